"""ListOffsets and OffsetForLeaderEpoch. Latest offsets are confirmed by a heartbeat round begun after the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList

from nebula.broker.apis.lookup import led_partition, topic_of
from nebula.broker.partition import Partition
from nebula.model import NotLeader
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED = -1, -2, -3, -4, -5


def list_offsets(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call: -1 latest (the high watermark), -2 earliest, -3 largest timestamp, else the first record with ts >= t."""
    waits: list[Deferred[Any]] = []
    topics = []
    for wanted in body["topics"]:
        topic = topic_of(node, wanted["name"], None)
        rows: list[dict[str, Any]] = []
        for part in wanted["partitions"]:
            row = {"partition_index": part["partition_index"], "error_code": 0, "timestamp": -1, "offset": -1,
                   "leader_epoch": -1}  # fmt: skip
            rows.append(row)
            wait = _list_one(node, topic, part, row)
            if wait is not None:
                waits.append(wait)
        topics.append({"name": wanted["name"], "partitions": rows})
    answer = {"throttle_time_ms": 0, "topics": topics}
    return DeferredList(waits).addCallback(lambda _done: answer) if waits else answer


def _list_one(node: NebulaNode, topic: Any, part: dict[str, Any], row: dict[str, Any]) -> Deferred[Any] | None:
    epoch = part.get("current_leader_epoch", -1)
    partition, row["error_code"] = led_partition(node, topic, part["partition_index"], epoch)
    if partition is None:
        return None
    if not partition.serving:
        row["error_code"] = errors.OFFSET_NOT_AVAILABLE  # gotcha 17: never let a client see offsets go backwards
        return None

    def lost(failure: Any) -> None:
        failure.trap(NotLeader)
        row["error_code"] = errors.NOT_LEADER_OR_FOLLOWER

    return partition.confirmed().addCallbacks(lambda _none: _answer(partition, part["timestamp"], row), lost)


def _answer(partition: Partition, timestamp: int, row: dict[str, Any]) -> None:
    log, high = partition.log, partition.high_watermark
    found: tuple[int, int] | None
    if timestamp == LATEST:
        row["offset"], row["leader_epoch"] = high, partition.raft.term
        return
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        row["offset"], row["leader_epoch"] = log.log_start, log.term_at(log.log_start)
        return
    if timestamp == LATEST_TIERED:
        return
    found = log.max_timestamp() if timestamp == MAX_TIMESTAMP else log.offset_for_time(timestamp)
    if found is not None and found[1] < high:
        row["timestamp"], row["offset"] = found
        row["leader_epoch"] = log.term_at(found[1])


def offset_for_leader_epoch(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call: where the records of an epoch end here (KIP-101, KIP-320)."""
    topics = []
    for wanted in body["topics"]:
        topic = topic_of(node, wanted["topic"], None)
        rows = []
        for part in wanted["partitions"]:
            epoch = part.get("current_leader_epoch", -1)
            partition, code = led_partition(node, topic, part["partition"], epoch)
            row = {"error_code": code, "partition": part["partition"], "leader_epoch": -1, "end_offset": -1}
            if partition is not None and part["leader_epoch"] <= partition.raft.term:
                row["leader_epoch"], row["end_offset"] = partition.log.epoch_end(part["leader_epoch"])
            rows.append(row)
        topics.append({"topic": wanted["topic"], "partitions": rows})
    return {"throttle_time_ms": 0, "topics": topics}
