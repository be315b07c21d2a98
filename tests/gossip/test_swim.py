"""SWIM in a simulated network of datagrams."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nebula.gossip import GossipCluster, Member

Address = tuple[str, int]


class Net:
    """Members, and what they send each other."""

    def __init__(self, size: int, loss: float = 0.0) -> None:
        self.now, self.loss, self.rng = 0.0, loss, random.Random(1)
        self.nodes: dict[Address, GossipCluster] = {}
        self.cut: set[Address] = set()
        for i in range(size):
            self.add(f"n{i}", 5000 + i)

    def add(self, name: str, port: int, generation: int = 1) -> GossipCluster:
        member = Member(name, f"disk-{name}", "h", port, "1", {})
        node = GossipCluster(member, "c", [("h", 5000)], random.Random(port), self.now, generation)
        self.nodes["h", port] = node
        return node

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.05
            for address, node in self.nodes.items():
                if address not in self.cut:
                    node.tick(self.now)
            for _ in range(3):
                for address, node in list(self.nodes.items()):
                    for data, to in node.outgoing():
                        assert len(data) <= 1400
                        lost = self.rng.random() < self.loss or address in self.cut or to in self.cut
                        if not lost and to in self.nodes:
                            self.nodes[to].receive(data, address, self.now)

    def seen(self, by: int, name: str) -> str:
        return self.nodes["h", 5000 + by].members()[name].status


class SwimTests(SynchronousTestCase):
    """Who is there."""

    def test_everybody_is_known_and_stays_alive_under_loss(self) -> None:
        """If this failed, nodes that join through one seed would not find each other."""
        net = Net(6, loss=0.1)
        net.run(6)
        for node in net.nodes.values():
            self.assertEqual({n: s.status for n, s in node.members().items()}, {f"n{i}": "alive" for i in range(6)})

    def test_a_dead_member_is_found_and_a_returned_one_too(self) -> None:
        """If this failed, a node that comes back under a new address would stay dead for the others."""
        net = Net(4)
        net.run(3)
        net.cut.add(("h", 5003))
        net.run(8)
        self.assertEqual(net.seen(0, "n3"), "dead")
        net.add("n3", 5009, generation=50)
        net.run(4)
        self.assertEqual((net.seen(0, "n3"), net.nodes["h", 5000].members()["n3"].member.port), ("alive", 5009))

    def test_a_false_suspicion_is_refuted(self) -> None:
        """If this failed, a short silence would remove a healthy node."""
        net = Net(4)
        net.run(3)
        net.cut.add(("h", 5002))
        net.run(0.9)
        net.cut.clear()
        net.run(5)
        self.assertEqual(net.seen(0, "n2"), "alive")

    def test_leaving_is_no_death(self) -> None:
        """If this failed, a planned stop would look like a failure."""
        net = Net(3)
        net.run(3)
        net.nodes["h", 5002].leave(net.now)
        net.run(1)
        self.assertEqual(net.seen(0, "n2"), "left")

    @given(st.binary(max_size=1500))
    def test_hostile_datagrams(self, data: bytes) -> None:
        """If this failed, one datagram could crash a node (RELIABILITY 78)."""
        net = Net(1)
        net.nodes["h", 5000].receive(data, ("evil", 1), 0.0)
        self.assertEqual(set(net.nodes["h", 5000].members()), {"n0"})

    def test_another_cluster_is_ignored(self) -> None:
        """If this failed, two clusters that meet would merge (RELIABILITY 55)."""
        net = Net(1)
        other = net.add("x", 5007)
        other.set_cluster("other")
        net.run(3)
        self.assertEqual(set(net.nodes["h", 5000].members()), {"n0"})
