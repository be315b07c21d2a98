"""Produce: checked batches into their logs; one Deferred per request, answered when all its batches are committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList

from nebula.broker.apis.lookup import current_leader, led_partition, topic_of
from nebula.broker.apis.topics import ensure_topic
from nebula.broker.clients import CloseConnection
from nebula.broker.timestamps import restamp
from nebula.cluster.configs import effective
from nebula.cluster.producers import InvalidProducerEpoch, OutOfOrderSequence
from nebula.model import InvalidBatch, NebulaError, NotLeader
from nebula.records.batch import check_produced
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

REASONS = {
    "corrupt": errors.CORRUPT_MESSAGE,
    "too_large": errors.MESSAGE_TOO_LARGE,
    "invalid_record": errors.INVALID_RECORD,
    "unsupported_codec": errors.UNSUPPORTED_COMPRESSION_TYPE,
}
ZSTD = 4


def produce(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call. acks=1 waits like acks=all (ARCHITECTURE §1.4); acks=0 is not answered, and closed on when refused."""
    acks = body["acks"]
    responses, waits = [], []
    for data in body["topic_data"]:
        topic = topic_of(node, data.get("name"), data.get("topic_id"))
        rows: list[dict[str, Any]] = []
        for part in data["partition_data"]:
            row: dict[str, Any] = {"index": part["index"], "error_code": 0, "base_offset": -1, "log_start_offset": -1}
            rows.append(row)
            wait = _append(node, topic, data.get("name"), part, row, acks, version)
            if wait is not None:
                waits.append(wait)
        responses.append({"name": data.get("name"), "topic_id": data.get("topic_id"), "partition_responses": rows})
    answer = {"responses": responses, "throttle_time_ms": 0}
    if acks == 0:
        return _unanswered(responses, waits)
    if not waits:
        return answer
    if len(waits) == 1:
        return waits[0].addCallback(lambda _done: answer)
    return DeferredList(waits).addCallback(lambda _done: answer)


def _unanswered(responses: list[dict[str, Any]], waits: list[Deferred[Any]]) -> None:
    if any(row["error_code"] for response in responses for row in response["partition_responses"]):
        raise CloseConnection  # gotcha 8: the only way to tell an acks=0 producer


def _append(
    node: NebulaNode, topic: Any, name: str | None, part: dict[str, Any], row: dict[str, Any], acks: int, version: int
) -> Deferred[Any] | None:
    """One partition's batch: append it and return what to wait for, or write the error into `row`."""
    if acks not in (-1, 0, 1):
        row["error_code"] = errors.INVALID_REQUIRED_ACKS
        return None
    if topic is None and name:
        ensure_topic(node, name)  # an old client may publish without asking for metadata first; it asks again
    partition, row["error_code"] = led_partition(node, topic, part["index"])
    if partition is None:
        if row["error_code"] == errors.NOT_LEADER_OR_FOLLOWER:
            row["current_leader"] = current_leader(node, topic, part["index"])
        return None
    try:
        header = _checked(topic, part["records"], version, row)
        batch, header = restamp(topic, part["records"], header, node.wall_ms(), row)
        wait = partition.append(batch, header)
    except InvalidBatch as bad:
        _refuse(row, REASONS.get(getattr(bad, "reason", ""), errors.CORRUPT_MESSAGE), bad)
        return None
    except NebulaError as refused:
        _refuse(row, _code(refused), refused)
        return None

    def committed(offset: int) -> None:
        row["base_offset"], row["log_start_offset"] = offset, partition.log.log_start

    def lost(failure: Any) -> None:
        failure.trap(NebulaError)
        _refuse(row, _code(failure.value), failure.value)

    return wait.addCallbacks(committed, lost)


def _checked(topic: Any, records: Any, version: int, row: dict[str, Any]) -> Any:
    if records is None:
        raise InvalidBatch("a produce request without records")
    header = check_produced(records, max_bytes=int(effective(topic.configs, "max.message.bytes")))
    if header.codec == ZSTD and version < 7:  # gotcha 18
        error = InvalidBatch("zstd needs Produce v7")
        error.reason = "unsupported_codec"  # type: ignore[attr-defined]
        raise error
    return header


def _refuse(row: dict[str, Any], code: int, error: BaseException) -> None:
    row["error_code"], row["error_message"] = code, str(error) or None


def _code(error: Exception) -> int:
    if isinstance(error, NotLeader):
        return errors.NOT_LEADER_OR_FOLLOWER
    if isinstance(error, OutOfOrderSequence):
        return errors.OUT_OF_ORDER_SEQUENCE_NUMBER
    if isinstance(error, InvalidProducerEpoch):
        return errors.INVALID_PRODUCER_EPOCH
    return getattr(error, "kafka_code", errors.NOT_ENOUGH_REPLICAS)
