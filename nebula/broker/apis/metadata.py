"""Metadata: nodes, topics, leaders; topics that do not exist yet are created on demand (gotchas 32, 33)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from nebula.broker.apis.lookup import NO_ID, brokers, node_id, topic_of
from nebula.broker.apis.topics import ensure_topic
from nebula.cluster.topics import InvalidTopic, validate_name
from nebula.model import TopicPartition
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

UNKNOWN_OPERATIONS = -(2**31)


def metadata(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call: null topics (v0: an empty list) means all."""
    wanted = body["topics"]
    state = node.view.state
    if wanted is None or (version == 0 and not wanted):
        names = sorted(state.topics.topics) if state is not None else []
        rows = [_topic(node, state.topics.topics[name]) for name in names]
    else:
        create = body.get("allow_auto_topic_creation", True)
        rows = [_wanted(node, want.get("name"), want.get("topic_id"), create) for want in wanted]
    controller = node.controller.leader if node.controller is not None else None
    return {
        "throttle_time_ms": 0,
        "brokers": brokers(node, connection),
        "cluster_id": node.identity.cluster or None,
        "controller_id": node_id(node, controller),
        "topics": rows,
        "cluster_authorized_operations": UNKNOWN_OPERATIONS,
    }


def _wanted(node: NebulaNode, name: str | None, topic_id: bytes | None, create: bool) -> dict[str, Any]:
    topic = topic_of(node, name, topic_id)
    if topic is not None:
        return _topic(node, topic)
    row: dict[str, Any] = {"name": name, "topic_id": topic_id or NO_ID, "is_internal": False, "partitions": []}
    if name is None:
        return {**row, "error_code": errors.UNKNOWN_TOPIC_ID}
    try:
        validate_name(name)
    except InvalidTopic:
        return {**row, "error_code": errors.INVALID_TOPIC_EXCEPTION}
    if create and node.settings.auto_create:
        created: Deferred[Any] = ensure_topic(node, name)
        created.addErrback(lambda _failure: None)
        return {**row, "error_code": errors.LEADER_NOT_AVAILABLE}
    return {**row, "error_code": errors.UNKNOWN_TOPIC_OR_PARTITION}


def _topic(node: NebulaNode, topic: Any) -> dict[str, Any]:
    return {
        "error_code": 0,
        "name": topic.name,
        "topic_id": bytes.fromhex(topic.topic_id),
        "is_internal": topic.name.startswith("__"),
        "partitions": [_partition(node, topic, index) for index in range(len(topic.partitions))],
        "topic_authorized_operations": UNKNOWN_OPERATIONS,
    }


def _partition(node: NebulaNode, topic: Any, index: int) -> dict[str, Any]:
    info = topic.partitions[index]
    leader, term = node.view.leader(info.group)
    replicas = [node_id(node, name) for name in info.replicas]
    up = {node.identity.node, *node.peers.hellos()}
    local = node.replicas.by_name.get(TopicPartition(topic.name, index))
    isr = [node_id(node, name) for name in info.replicas if name in up] if local is not None else replicas
    return {
        "error_code": 0 if leader else errors.LEADER_NOT_AVAILABLE,
        "partition_index": index,
        "leader_id": node_id(node, leader),
        "leader_epoch": term if leader else -1,
        "replica_nodes": replicas,
        "isr_nodes": isr,
        "offline_replicas": [node_id(node, name) for name in info.replicas if name not in up],
    }
