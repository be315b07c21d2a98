"""Finding the replica a call is about, with the error a Kafka client expects when it is not here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nebula.broker.partition import Partition
from nebula.model import TopicPartition
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

NO_ID = bytes(16)
UNKNOWN_OPERATIONS = -(2**31)
"""authorized_operations when nobody asked, or nobody can tell (gotcha 33)."""


def topic_of(node: NebulaNode, name: str | None, topic_id: bytes | None) -> Any:
    """The topic by name or, where the request has none, by id; None when unknown."""
    state = node.view.state
    if state is None:
        return None
    if name:
        return state.topics.topics.get(name)
    return state.topics.by_id.get(topic_id.hex()) if topic_id and topic_id != NO_ID else None


def led_partition(node: NebulaNode, topic: Any, index: int, epoch: int = -1) -> tuple[Partition | None, int]:
    """The replica that leads (topic, index) here, or the error to answer (gotcha 16)."""
    if topic is None or not 0 <= index < len(topic.partitions):
        return None, errors.UNKNOWN_TOPIC_OR_PARTITION
    partition = node.replicas.by_name.get(TopicPartition(topic.name, index))
    if partition is None or not partition.leads:
        return None, errors.NOT_LEADER_OR_FOLLOWER
    if 0 <= epoch < partition.raft.term:
        return None, errors.FENCED_LEADER_EPOCH
    if epoch > partition.raft.term:
        return None, errors.UNKNOWN_LEADER_EPOCH
    return partition, 0


def current_leader(node: NebulaNode, topic: Any, index: int) -> dict[str, int]:
    """KIP-951's hint: who leads instead."""
    if topic is None or not 0 <= index < len(topic.partitions):
        return {"leader_id": -1, "leader_epoch": -1}
    name, term = node.view.leader(topic.partitions[index].group)
    return {"leader_id": node_id(node, name), "leader_epoch": term if name else -1}


def node_id(node: NebulaNode, name: str | None) -> int:
    """A node's permanent Kafka id; -1 when unknown."""
    state = node.view.state
    info = state.nodes.get(name) if state is not None and name is not None else None
    return int(info.node_id) if info is not None else -1


def brokers(node: NebulaNode, connection: Any) -> list[dict[str, Any]]:
    """All registered nodes; this one under the address the client came through (gotcha 33)."""
    state, me = node.view.state, node.identity.node
    if state is None:
        return []
    rows = []
    for name, info in sorted(state.nodes.items(), key=lambda item: item[1].node_id):
        host, port = (info.host, info.port + 2000)
        if name == me and connection is not None:
            host, port = connection.local
        rows.append({"node_id": info.node_id, "broker_id": info.node_id, "host": host, "port": port, "rack": None})
    return rows
