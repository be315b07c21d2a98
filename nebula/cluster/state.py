"""ClusterState: group 0's state machine. Deterministic; a well-formed command never raises, its outcome says what it did."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from nebula.cluster.commands import AllocateProducerIds, CreateTopic, DeleteTopic, RegisterNode, decode
from nebula.cluster.topics import PartitionInfo, Topic, TopicManager
from nebula.model import GroupID, NodeName


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A registered node."""

    name: NodeName
    node_id: int
    incarnation: str
    host: str
    port: int


class ClusterState:
    """Nodes, topics, and the counters that give out ids."""

    def __init__(self) -> None:
        self.nodes: dict[NodeName, NodeInfo] = {}
        self.topics = TopicManager()
        self.next_group: GroupID = 1
        self.next_producer_id = 1

    def apply(self, encoded: bytes) -> dict[str, Any]:
        """Apply one committed command; the outcome goes to whoever submitted it."""
        command = decode(encoded)
        if isinstance(command, RegisterNode):
            return self._register(command)
        if isinstance(command, CreateTopic):
            return self._create(command)
        if isinstance(command, DeleteTopic):
            gone = self.topics.remove(command.name)
            return {"deleted": command.name} if gone else {"error": f"no topic {command.name}"}
        assert isinstance(command, AllocateProducerIds)
        first, self.next_producer_id = self.next_producer_id, self.next_producer_id + command.count
        return {"first": first}

    def _register(self, command: RegisterNode) -> dict[str, Any]:
        known = self.nodes.get(command.name)
        node_id = known.node_id if known is not None else len(self.nodes) + 1
        self.nodes[command.name] = NodeInfo(command.name, node_id, command.incarnation, command.host, command.port)
        return {"node_id": node_id}

    def _create(self, command: CreateTopic) -> dict[str, Any]:
        clash = command.name if command.name in self.topics.topics else self.topics.collision(command.name)
        if clash is not None:
            return {"error": f"Topic '{clash}' already exists."}
        first = self.next_group
        infos = tuple(PartitionInfo(first + i, names) for i, (_, names) in enumerate(command.partitions))
        self.next_group += len(infos)
        self.topics.add(Topic(command.name, command.topic_id, infos, command.configs))
        return {"groups": [info.group for info in infos]}

    def encode(self) -> bytes:
        """A snapshot."""
        nodes = [[n.name, n.node_id, n.incarnation, n.host, n.port] for n in self.nodes.values()]
        topics = [
            [t.name, t.topic_id, [[p.group, p.replicas] for p in t.partitions], dict(t.configs)]
            for t in self.topics.topics.values()
        ]
        return json.dumps([nodes, topics, self.next_group, self.next_producer_id]).encode()

    @classmethod
    def decode(cls, data: bytes) -> ClusterState:
        """The state a snapshot holds."""
        state = cls()
        nodes, topics, state.next_group, state.next_producer_id = json.loads(data)
        for row in nodes:
            state.nodes[row[0]] = NodeInfo(*row)
        for name, topic_id, partitions, configs in topics:
            infos = tuple(PartitionInfo(group, tuple(replicas)) for group, replicas in partitions)
            state.topics.add(Topic(name, topic_id, infos, configs))
        return state
