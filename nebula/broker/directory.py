"""ClusterView: what this node knows of the cluster, for the client APIs: nodes, topics, who leads what.

Topics and nodes come from the controller's applied state; leaders of local groups from Raft itself; leaders of groups
elsewhere from hints that their nodes send when leadership changes. A hint that is stale costs a redirect, never data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed

from nebula.broker.partition import Partition
from nebula.broker.settling import Settling
from nebula.cluster.commands import CreateTopic, DeleteTopic
from nebula.cluster.configs import effective
from nebula.model import GroupID, NebulaError, NodeName, TopicPartition, Voter

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

PATIENCE_S = 1.0
"""How long after a group was first seen without a leader an answer may wait for one; an election takes a tenth."""


class ClusterView:
    """The cluster as this node sees it."""

    def __init__(self, node: NebulaNode) -> None:
        self._node = node
        self._hints: dict[GroupID, tuple[int, NodeName]] = {}
        self._unled: dict[GroupID, float] = {}
        """Since when a group was found without a leader that can be reached."""
        self._settling = Settling(node.reactor)

    @property
    def state(self) -> Any:
        controller = self._node.controller
        return controller.state if controller is not None else None

    # ── the controller's records ────────────────────────────────────────────────────────────────────────────────────

    def applied(self, command: Any, outcome: Any) -> None:
        """A command was applied: open or delete the replicas it concerns."""
        if isinstance(command, CreateTopic):
            topic = self.state.topics.topics.get(command.name)
            if topic is not None and topic.topic_id == command.topic_id:
                self.open_topic(topic)
        elif isinstance(command, DeleteTopic):
            kept = {p.group for t in self.state.topics.topics.values() for p in t.partitions}
            for group in [g for g in self._node.replicas.groups if g and g not in kept]:
                self._node.replicas.delete(group)
            self._unled.clear()
            self._node.coordinators.topic_deleted(command.name)
        self._settling.changed()

    def open_topic(self, topic: Any) -> None:
        me, state = self._node.identity.node, self.state
        segment_bytes = int(effective(topic.configs, "segment.bytes"))
        for index, info in enumerate(topic.partitions):
            if me in info.replicas:
                # Deterministic: the incarnations registered at this place of the controller's log.
                voters = tuple(Voter(n, state.nodes[n].incarnation) for n in info.replicas)
                tp = TopicPartition(topic.name, index)
                partition = self._node.replicas.open(info.group, str(tp), voters, tp, segment_bytes)
                partition.on_leadership = self._leadership
                if info.replicas[0] == me and partition.log.end() == partition.log.start():
                    partition.raft.campaign()
                    partition.touch()

    def goals(self) -> dict[GroupID, tuple[Voter, ...]]:
        """The wanted voters of every group, by the controller's assignment and the registered incarnations."""
        state = self.state
        nodes = {name: Voter(name, info.incarnation) for name, info in state.nodes.items()}
        goals = {
            info.group: tuple(nodes[n] for n in info.replicas if n in nodes)
            for topic in state.topics.topics.values()
            for info in topic.partitions
        }
        names = sorted(nodes, key=lambda n: state.nodes[n].node_id)
        odd = min(5, len(names) - (1 - len(names) % 2)) if names else 0
        goals[0] = tuple(nodes[n] for n in names[:odd])
        current = {v.node for v in self._node.replicas.groups[0].raft.voters}
        if len(names) == 2:
            goals[0] = tuple(nodes[n] for n in names)
        elif current - set(names):
            goals[0] = ()  # births are registered one by one: nobody leaves before everybody is known
        return goals

    # ── leaders ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def leader(self, group: GroupID) -> tuple[NodeName | None, int]:
        """Who leads `group` as far as is known here, and its term."""
        local = self._node.replicas.groups.get(group)
        if local is not None and local.raft.leader is not None:
            return local.raft.leader.node, local.raft.term
        if group in self._hints:
            term, name = self._hints[group]
            return name, term
        return None, local.raft.term if local is not None else 0

    def live_leader(self, group: GroupID) -> tuple[NodeName | None, int]:
        """The same, but None for a leader whose process is gone as far as our connections to it tell."""
        name, term = self.leader(group)
        if name is None or not (name == self._me or self._node.peers.up(name)):
            return None, term
        self._unled.pop(group, None)
        return name, term

    def unled_lately(self, group: GroupID) -> bool:
        """No leader can be reached, but one may soon: a group that stays without is not worth waiting for."""
        if self.live_leader(group)[0] is not None:
            return False
        now = self._node.reactor.seconds()
        return bool(now - self._unled.setdefault(group, now) < PATIENCE_S)

    def settled(self, check: Callable[[], bool], seconds: float) -> Deferred[None]:
        """Fires once `check` is true, looked at whenever topics or leaders change, or when `seconds` are over."""
        return self._settling.wait(check, seconds)

    def _leadership(self, partition: Partition) -> None:
        self._settling.changed()
        if partition.leads:
            for name in self._node.peers.hellos():
                self._say(name, [partition])

    def tell(self, name: NodeName) -> None:
        """A peer was met: it may have missed which groups are led here."""
        self._say(name, [p for p in self._node.replicas.groups.values() if p.leads])

    def _say(self, name: NodeName, led: list[Partition]) -> None:
        rows = [[p.group, p.raft.term, self._me] for p in led]
        if rows:
            self._node.peers.call(name, "leads", rows).addErrback(lambda _gone: None)

    @property
    def _me(self) -> NodeName:
        return self._node.identity.node

    # ── calls from peers ────────────────────────────────────────────────────────────────────────────────────────────

    def called(self, method: str, params: Any) -> Deferred[Any]:
        """Answer a peer's call; a failure's text goes back to it."""
        controller = self._node.controller
        if method == "leads":
            for group, term, name in params:
                if term >= self._hints.get(group, (0, ""))[0]:
                    self._hints[group] = (term, name)
            self._settling.changed()
            return succeed(None)
        if method == "submit" and controller is not None:
            return controller.relay(params)
        if method == "submit_here" and controller is not None:
            return controller.submit_here(params.encode())
        if method == "publish" and controller is not None:
            return self._node.apis.publish_here(*params)
        return fail(NebulaError(f"unknown call {method}"))
