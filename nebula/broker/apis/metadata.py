"""Metadata: nodes, topics, leaders; topics that do not exist yet are created on demand (gotchas 32, 33)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from nebula.broker.apis.lookup import NO_ID, UNKNOWN_OPERATIONS, brokers, node_id, topic_of
from nebula.broker.apis.topics import ensure_topic
from nebula.cluster.topics import InvalidTopic, validate_name
from nebula.model import TopicPartition
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

NOTICE_S = 0.005
"""How long after a client the end of a process may show here: the kernel closes its sockets one by one."""
ELECT_S = 0.25
"""How long an answer waits for an election; it holds up what the same connection asks behind it."""
CREATE_S = 1.0
"""How long an answer waits for a topic that is created because of it: the client can do nothing else meanwhile."""


def metadata(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call: null topics (v0: an empty list) means all.

    Named topics whose leader has just died, or that are just being created, are waited for, a short time.
    """
    wanted = body["topics"]
    if wanted is None or (version == 0 and not wanted):
        return _answer(node, None, connection)
    create = body.get("allow_auto_topic_creation", True) and node.settings.auto_create
    named = [(want.get("name"), want.get("topic_id")) for want in wanted]
    created = [_create(node, *each) for each in named] if create else []

    def settled() -> bool:
        return not any(_unsettled(node, *each) for each in named)

    if settled() and all(_led_here(node, *each) for each in named):
        return _answer(node, wanted, connection)
    if not any(created):
        # Whoever lost its connection to a dying leader asks at once, and may be quicker than our own connection's end.
        wait = deferLater(node.reactor, NOTICE_S).addCallback(lambda _none: node.view.settled(settled, ELECT_S))
    else:
        wait = node.view.settled(settled, CREATE_S)
    return wait.addCallback(lambda _none: _answer(node, wanted, connection))


def _led_here(node: NebulaNode, name: str | None, topic_id: bytes | None) -> bool:
    """Unknown topics have no leader elsewhere."""
    topic = topic_of(node, name, topic_id)
    me = node.identity.node
    return topic is None or all(node.view.leader(info.group)[0] == me for info in topic.partitions)


def _answer(node: NebulaNode, wanted: list[dict[str, Any]] | None, connection: Any) -> dict[str, Any]:
    state = node.view.state
    if wanted is None:
        names = sorted(state.topics.topics) if state is not None else []
        rows = [_topic(node, state.topics.topics[name]) for name in names]
    else:
        rows = [_wanted(node, want.get("name"), want.get("topic_id")) for want in wanted]
    controller = node.controller.leader if node.controller is not None else None
    return {
        "throttle_time_ms": 0,
        "brokers": brokers(node, connection),
        "cluster_id": node.identity.cluster or None,
        "controller_id": node_id(node, controller),
        "topics": rows,
        "cluster_authorized_operations": UNKNOWN_OPERATIONS,
    }


def _create(node: NebulaNode, name: str | None, topic_id: bytes | None) -> bool:
    """Have a topic created if it has a possible name and is not there; is one being created?"""
    if name is None or topic_of(node, name, topic_id) is not None:
        return False
    try:
        validate_name(name)
    except InvalidTopic:
        return False
    created: Deferred[Any] = ensure_topic(node, name)
    created.addErrback(lambda _failure: None)
    return name in node.creating


def _unsettled(node: NebulaNode, name: str | None, topic_id: bytes | None) -> bool:
    """Will an answer about this topic be better in a moment?"""
    topic = topic_of(node, name, topic_id)
    if topic is None:
        return name in node.creating
    return any(node.view.unled_lately(info.group) for info in topic.partitions)


def _wanted(node: NebulaNode, name: str | None, topic_id: bytes | None) -> dict[str, Any]:
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
    if name in node.creating:
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
    leader, term = node.view.live_leader(info.group)
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
