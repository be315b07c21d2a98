"""A network of gossiping nodes in one process: seeded, with loss, delay, partitions and restarts; no clock but its own."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from nebula.gossip import MAX_DATAGRAM, GossipCluster, GossipSettings, Member
from nebula.gossip.member import Address

TICK = 0.1


class World:
    """Nodes at addresses, and datagrams on their way."""

    def __init__(self, seed: int = 0, loss: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.loss = loss
        self.now = 1000.0
        self.nodes: dict[Address, GossipCluster] = {}
        self.frozen: set[Address] = set()
        """Stopped like by SIGSTOP: they do not tick, and what comes in meanwhile waits."""
        self.cut: Callable[[Address, Address], bool] = lambda source, target: False
        self.told: dict[str, list[tuple[str, str]]] = {}
        """Events by the name of who was told."""
        self._flying: list[tuple[float, int, bytes, Address, Address]] = []
        self._sent = 0

    def start(
        self, name: str, port: int, seeds: list[int] | None = None, *, cluster: str = "c", incarnation: str = "",
        host: str = "10.0.0.1", generation: int | None = None, settings: GossipSettings | None = None,
    ) -> GossipCluster:  # fmt: skip
        """A node at 10.0.0.1:port that knows the seeds' ports."""
        me = Member(name, incarnation or name * 2, host, port, "1", {})
        node = GossipCluster(
            me, cluster, [("10.0.0.1", p) for p in (seeds or [])], random.Random(self.rng.random()), self.now,
            int(self.now * 1000) if generation is None else generation, settings,
        )  # fmt: skip
        self.nodes["10.0.0.1", port] = node
        self.told[name] = []
        return node

    def cluster(self, size: int, cluster: str = "c") -> list[GossipCluster]:
        """`size` nodes n1.. on ports 1.., each knowing n1 and n2, that have met."""
        nodes = [self.start(f"n{i}", i, [1, 2], cluster=cluster) for i in range(1, size + 1)]
        self.run(5.0)
        return nodes

    def kill(self, port: int) -> None:
        del self.nodes["10.0.0.1", port]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self.now < until:
            self.now = round(self.now + TICK, 6)
            self._deliver()
            for address, node in list(self.nodes.items()):
                if address not in self.frozen:
                    node.tick(self.now)
                    self._collect(address, node)
            self._deliver()

    def run_until(self, condition: Callable[[], bool], at_most: float) -> float:
        """Let time pass until the condition holds; how long it took."""
        begun = self.now
        while not condition():
            if self.now - begun > at_most:
                raise AssertionError(f"not within {at_most} s")
            self.run(TICK)
        return self.now - begun

    def leave(self, node: GossipCluster) -> None:
        node.leave(self.now)
        self._collect(node.members()[self.name(node)].member.address, node)

    @staticmethod
    def name(node: GossipCluster) -> str:
        return next(iter(node.members()))

    def _collect(self, address: Address, node: GossipCluster) -> None:
        self.told[self.name(node)] += node.events()
        for data, target in node.outgoing():
            assert len(data) <= MAX_DATAGRAM, len(data)
            if self.rng.random() >= self.loss and not self.cut(address, target):
                self._sent += 1
                arrives = self.now + self.rng.uniform(0.0001, 0.02)
                heapq.heappush(self._flying, (arrives, self._sent, data, address, target))

    def _deliver(self) -> None:
        """Everything that arrives before the next tick; what it causes may arrive before it, too."""
        held = []
        while self._flying and self._flying[0][0] < self.now + TICK:
            item = heapq.heappop(self._flying)
            arrives, _, data, source, target = item
            if target in self.frozen:
                held.append(item)
            elif target in self.nodes:
                before, self.now = self.now, max(self.now, arrives)
                self.nodes[target].receive(data, source, self.now)
                self._collect(target, self.nodes[target])
                self.now = before
        for item in held:
            heapq.heappush(self._flying, item)


def statuses(node: GossipCluster) -> dict[str, str]:
    """What a node believes, by name."""
    return {name: str(state.status) for name, state in node.members().items()}


def alive(node: GossipCluster) -> set[str]:
    return {name for name, status in statuses(node).items() if status == "alive"}


def all_alive(nodes: list[GossipCluster], count: int) -> Callable[[], bool]:
    """The condition that each of `nodes` takes `count` members for alive."""
    return lambda: all(len(alive(node)) == count for node in nodes)


def all_say(nodes: list[GossipCluster], name: str, status: str) -> Callable[[], bool]:
    """The condition that each of `nodes` believes `status` of `name`."""
    return lambda: all(statuses(node).get(name) == status for node in nodes)
