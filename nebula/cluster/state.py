"""ClusterState: what the controller's log says so far. Same log, same state, same results, on every node."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from typing import Any

from nebula.cluster.commands import (
    AllocateProducerIds,
    CreateTopic,
    DeleteTopic,
    RegisterNode,
    SetConfigs,
    decode,
)
from nebula.cluster.configs import InvalidConfig, validate
from nebula.cluster.topics import InvalidTopic, PartitionInfo, Topic, TopicManager, validate_name
from nebula.model import DecodeError, GroupID, NodeName

Result = dict[str, Any]
"""JSON values only (rule 4). A refusal has `error`, a text for people, and `kind`, a word for programs."""

SNAPSHOT_VERSION = 1
MAX_ID_BLOCK = 1_000_000
"""Producer ids given at once: 2**63 of them last, unless one command could take them all."""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A registered node."""

    name: NodeName
    node_id: int
    """Kafka's broker id: int32 from 1, given at the first registration, kept for ever."""
    incarnation: str
    host: str
    port: int


def _refused(kind: str, text: str) -> Result:
    return {"kind": kind, "error": text}


class ClusterState:
    """The controller's state machine. `apply` is the only way to change it."""

    def __init__(self, cluster_id: str = "") -> None:
        self.cluster_id = cluster_id
        self.nodes: dict[NodeName, NodeInfo] = {}
        self.topics = TopicManager()
        self.next_group: GroupID = 1
        """Group 0 is the controller itself."""
        self.next_producer_id = 1

    def apply(self, command: bytes) -> Result:
        """Apply one committed command and say what came of it.

        :raises DecodeError: these bytes are no command (written by a newer version, or corrupt): the caller must stop.
        """
        match decode(command):
            case CreateTopic() as create:
                return self._create(create)
            case DeleteTopic(name):
                return self._delete(name)
            case RegisterNode() as register:
                return self._register(register)
            case AllocateProducerIds() as allocate:
                return self._allocate(allocate)
            case SetConfigs() as configs:
                return self._configure(configs)

    def _create(self, command: CreateTopic) -> Result:
        refusal = self._refuse_create(command)
        if refusal is not None:
            return refusal
        first = self.next_group
        self.next_group += len(command.partitions)
        partitions = tuple(PartitionInfo(first + i, names) for i, (_group, names) in enumerate(command.partitions))
        self.topics.add(Topic(command.name, command.topic_id, partitions, dict(command.configs)))
        return {"topic_id": command.topic_id, "groups": [p.group for p in partitions]}

    def _refuse_create(self, command: CreateTopic) -> Result | None:
        name = command.name
        if name in self.topics.topics:
            return _refused("TopicExists", f"Topic '{name}' already exists.")
        try:
            validate_name(name)
            validate(command.configs)
        except (InvalidTopic, InvalidConfig) as bad:
            return _refused(type(bad).__name__, str(bad))
        other = self.topics.colliding(name)
        if other is not None:
            return _refused("InvalidTopic", f"Topic '{name}' collides with existing topic: {other}")
        if command.topic_id in self.topics.by_id:
            return _refused("TopicExists", f"Topic id {command.topic_id} is taken.")
        return self._refuse_placement(command)

    def _refuse_placement(self, command: CreateTopic) -> Result | None:
        if not command.partitions:
            return _refused("InvalidPlacement", "a topic has at least one partition")
        for index, (_group, names) in enumerate(command.partitions):
            unknown = [n for n in names if n not in self.nodes]
            if not names or unknown or len(set(names)) != len(names):
                text = f"partition {index} has replicas {list(names)}: they must be distinct registered nodes"
                return _refused("InvalidPlacement", text)
        return None

    def _delete(self, name: str) -> Result:
        if name not in self.topics.topics:
            return _refused("UnknownTopic", f"Topic '{name}' does not exist.")
        return {"groups": [p.group for p in self.topics.remove(name).partitions]}

    def _register(self, command: RegisterNode) -> Result:
        known = self.nodes.get(command.name)
        # Nodes are never forgotten, so their number is the highest id given.
        node_id = known.node_id if known is not None else len(self.nodes) + 1
        self.nodes[command.name] = NodeInfo(command.name, node_id, command.incarnation, command.host, command.port)
        return {"node_id": node_id}

    def _allocate(self, command: AllocateProducerIds) -> Result:
        if not 1 <= command.count <= MAX_ID_BLOCK:
            return _refused("InvalidCount", f"a block has 1 to {MAX_ID_BLOCK} producer ids, not {command.count}")
        first = self.next_producer_id
        self.next_producer_id += command.count
        return {"first": first, "count": command.count}

    def _configure(self, command: SetConfigs) -> Result:
        if command.topic not in self.topics.topics:
            return _refused("UnknownTopic", f"Topic '{command.topic}' does not exist.")
        try:
            validate(command.configs)
        except InvalidConfig as bad:
            return _refused("InvalidConfig", str(bad))
        self.topics.set_configs(command.topic, command.configs)
        return {}

    def encode(self) -> bytes:
        """The snapshot: equal states have equal bytes."""
        state = {
            "version": SNAPSHOT_VERSION,
            "cluster_id": self.cluster_id,
            "nodes": [list(astuple(info)) for _name, info in sorted(self.nodes.items())],
            "topics": self.topics.to_json(),
            "next_group": self.next_group,
            "next_producer_id": self.next_producer_id,
        }
        return json.dumps(state, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, encoded: bytes) -> ClusterState:
        """What `encode` gave.

        :raises DecodeError: no snapshot, or one of another version.
        """
        try:
            fields = json.loads(encoded)
            if fields["version"] != SNAPSHOT_VERSION:
                raise DecodeError(f"cluster snapshot has version {fields['version']}, this is {SNAPSHOT_VERSION}")
            state = cls(fields["cluster_id"])
            state.nodes = {info.name: info for info in (NodeInfo(*row) for row in fields["nodes"])}
            state.topics = TopicManager.from_json(fields["topics"])
            state.next_group = int(fields["next_group"])
            state.next_producer_id = int(fields["next_producer_id"])
        except (ValueError, KeyError, TypeError, AttributeError) as bad:
            raise DecodeError(f"not a cluster snapshot: {bad!r}") from bad
        return state
