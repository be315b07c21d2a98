"""Groups' offsets: OffsetCommit, OffsetFetch, OffsetDelete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults, succeed

from nebula.broker.apis.lookup import topic_of
from nebula.broker.shard import Shard
from nebula.cluster.groups import Committed, Group, GroupError
from nebula.model import NotLeader
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

MAX_METADATA = 4096
"""offset.metadata.max.bytes of Kafka."""
Rows = list[dict[str, Any]]


def offset_commit(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call; answered when the offsets are committed by a majority."""
    try:
        shard, group = node.coordinators.group(body["group_id"])
        group.check_commit(
            body["member_id"], body.get("group_instance_id"), body["generation_id_or_member_epoch"],
            node.coordinators.now(),
        )  # fmt: skip
    except GroupError as refused:
        return _answer(_rows(body, refused.kafka_code))
    topics = _rows(body, 0)
    offsets: dict[tuple[str, int], Committed] = {}
    for wanted, topic in zip(body["topics"], topics, strict=True):
        for part, row in zip(wanted["partitions"], topic["partitions"], strict=True):
            row["error_code"] = _refusal(node, wanted["name"], part)
            if not row["error_code"]:
                offsets[wanted["name"], part["partition_index"]] = Committed(
                    part["committed_offset"], part.get("committed_leader_epoch", -1),
                    part["committed_metadata"] or "", node.wall_ms(),
                )  # fmt: skip
    if not offsets:
        return _answer(topics)
    done: Deferred[dict[str, Any]] = Deferred()

    def stored(code: int) -> None:
        for row in [row for topic in topics for row in topic["partitions"] if not row["error_code"]]:
            row["error_code"] = code
        done.callback(_answer(topics))

    shard.commit(group, offsets, stored)
    return done


def _refusal(node: NebulaNode, name: str, part: dict[str, Any]) -> int:
    topic = topic_of(node, name, None)
    if topic is None or not 0 <= part["partition_index"] < len(topic.partitions):
        return errors.UNKNOWN_TOPIC_OR_PARTITION
    if len(part["committed_metadata"] or "") > MAX_METADATA:
        return errors.OFFSET_METADATA_TOO_LARGE
    return 0


def _rows(body: dict[str, Any], code: int) -> Rows:
    return [
        {"name": topic["name"],
         "partitions": [{"partition_index": p["partition_index"], "error_code": code} for p in topic["partitions"]]}
        for topic in body["topics"]
    ]  # fmt: skip


def _answer(topics: Rows) -> dict[str, Any]:
    return {"throttle_time_ms": 0, "topics": topics}


def offset_fetch(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call. Answered once a heartbeat round has shown that no other node coordinates meanwhile."""
    asked = body["groups"] if version >= 8 else [{"group_id": body["group_id"], "topics": body["topics"]}]
    waits = [_fetch_group(node, group, version) for group in asked]

    def answer(rows: Rows) -> dict[str, Any]:
        return {"throttle_time_ms": 0, "groups": rows} if version >= 8 else {"throttle_time_ms": 0, **rows[0]}

    return gatherResults(waits).addCallback(answer)


def _fetch_group(node: NebulaNode, asked: dict[str, Any], version: int) -> Deferred[dict[str, Any]]:
    name = asked["group_id"]

    def failed(code: int) -> dict[str, Any]:
        topics = (
            [] if version >= 2 else [_fetched(t["name"], t["partition_indexes"], {}, code) for t in asked["topics"]]
        )
        return {"group_id": name, "error_code": code, "topics": topics}

    def found(_none: None) -> dict[str, Any]:
        group = shard.groups.get(name)
        return {"group_id": name, "error_code": 0, "topics": _offsets(group, asked["topics"])}

    def lost(failure: Any) -> dict[str, Any]:
        failure.trap(NotLeader)
        return failed(errors.NOT_COORDINATOR)

    try:
        shard = node.coordinators.shard(name)
        confirmed = shard.partition.confirmed()
    except GroupError as refused:
        return succeed(failed(refused.kafka_code))
    except NotLeader:
        return succeed(failed(errors.NOT_COORDINATOR))
    return confirmed.addCallbacks(found, lost)


def _offsets(group: Group | None, asked: Rows | None) -> Rows:
    offsets = group.offsets if group is not None else {}
    if asked is None:
        names = sorted({topic for topic, _ in offsets})
        return [_fetched(name, sorted(p for t, p in offsets if t == name), offsets, 0) for name in names]
    return [_fetched(topic["name"], topic["partition_indexes"], offsets, 0) for topic in asked]


def _fetched(name: str, indexes: list[int], offsets: dict[tuple[str, int], Committed], code: int) -> dict[str, Any]:
    nothing = Committed(-1, -1, "", 0)
    rows = []
    for index in indexes:
        committed = offsets.get((name, index), nothing)
        rows.append({
            "partition_index": index, "committed_offset": committed.offset, "metadata": committed.metadata,
            "committed_leader_epoch": committed.leader_epoch, "error_code": code,
        })  # fmt: skip
    return {"name": name, "partitions": rows}


def offset_delete(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call (KIP-496): offsets of partitions that no member is subscribed to.

    Subscriptions are opaque here, so a group that has members keeps all its offsets.
    """
    try:
        shard = node.coordinators.shard(body["group_id"])
    except GroupError as refused:
        return {"error_code": refused.kafka_code, "throttle_time_ms": 0, "topics": []}
    group = shard.groups.get(body["group_id"])
    if group is None:
        return {"error_code": errors.GROUP_ID_NOT_FOUND, "throttle_time_ms": 0, "topics": []}
    if group.members:
        code = errors.GROUP_SUBSCRIBED_TO_TOPIC if group.protocol_type == "consumer" else errors.NON_EMPTY_GROUP
        return {"error_code": 0, "throttle_time_ms": 0, "topics": _rows(body, code)}
    return _delete(shard, group, body)


def _delete(shard: Shard, group: Group, body: dict[str, Any]) -> Any:
    places = [(t["name"], p["partition_index"]) for t in body["topics"] for p in t["partitions"]]
    known = [place for place in places if place in group.offsets]
    done: Deferred[dict[str, Any]] = Deferred()

    def stored(code: int) -> None:
        done.callback({"error_code": code, "throttle_time_ms": 0, "topics": _rows(body, 0)})

    if not known:
        stored(0)
    else:
        shard.forget(group, known, stored)
    return done
