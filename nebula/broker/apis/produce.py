"""Produce: checked batches into their logs; one Deferred per request, answered when all its batches are committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from nebula.broker.apis.lookup import current_leader, led_partition, topic_of
from nebula.broker.apis.topics import ensure_topic
from nebula.broker.clients import CloseConnection
from nebula.broker.timestamps import restamp
from nebula.cluster.configs import effective
from nebula.cluster.producers import InvalidProducerEpoch, OutOfOrderSequence, ProducerError
from nebula.model import InvalidBatch, NebulaError, NotLeader
from nebula.records.batch import Header, RefusedBatch, check_produced
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode
    from nebula.broker.partition import Partition
    from nebula.broker.waiters import Done

REASONS = {
    "corrupt": errors.CORRUPT_MESSAGE,
    "no_batch": errors.INVALID_RECORD,
    "too_large": errors.MESSAGE_TOO_LARGE,
    "invalid_record": errors.INVALID_RECORD,
    "unsupported_codec": errors.UNSUPPORTED_COMPRESSION_TYPE,
}
WITH_START = ("invalid_record", "unsupported_codec")
"""Refusals that say where the log starts, as Kafka's do: they come from its log, the others from before it."""
ZSTD = 4
ACKS = (-1, 0, 1)


class _Call:
    """One request: its answer, filled batch by batch, and how many batches are still to be committed."""

    __slots__ = ("answer", "done", "left")

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.left = 0
        self.done: Deferred[dict[str, Any]] | None = None
        """Made only if something is left to wait for: the one Deferred of a request."""

    def waiter(self, partition: Partition, row: dict[str, Any]) -> Done:
        """What is to be called at the end of the batch that `row` answers."""
        self.left += 1

        def done(offset: int, error: Exception | None) -> None:
            if error is None:
                row["base_offset"], row["log_start_offset"] = offset, partition.log.log_start
            else:
                _refuse(row, _code(error), error)
            self.left -= 1
            if not self.left and self.done is not None:
                self.done.callback(self.answer)

        return done


def produce(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call. acks=1 waits like acks=all (ARCHITECTURE §1.4); acks=0 is not answered, and closed on when refused."""
    acks = body["acks"]
    responses: list[dict[str, Any]] = []
    call = _Call({"responses": responses, "throttle_time_ms": 0})
    for data in body["topic_data"]:
        name, topic_id = data.get("name"), data.get("topic_id")
        topic = topic_of(node, name, topic_id)
        rows: list[dict[str, Any]] = []
        responses.append({"name": name, "topic_id": topic_id, "partition_responses": rows})
        for part in data["partition_data"]:
            row: dict[str, Any] = {"index": part["index"], "error_code": 0, "base_offset": -1, "log_start_offset": -1}
            rows.append(row)
            if acks in ACKS:
                _append(node, topic, name, part, row, version, call)
            else:
                row["error_code"] = errors.INVALID_REQUIRED_ACKS
    if acks == 0:
        return _unanswered(responses)
    if not call.left:
        return call.answer
    call.done = Deferred()
    return call.done


def _unanswered(responses: list[dict[str, Any]]) -> None:
    if any(row["error_code"] for response in responses for row in response["partition_responses"]):
        raise CloseConnection  # gotcha 8: the only way to tell an acks=0 producer


def _append(
    node: NebulaNode, topic: Any, name: str | None, part: dict[str, Any], row: dict[str, Any], version: int, call: _Call
) -> None:
    """Append one partition's batch for `call`, or write the error into `row`."""
    if topic is None and name:
        ensure_topic(node, name)  # an old client may publish without asking for metadata first; it asks again
    partition, row["error_code"] = led_partition(node, topic, part["index"])
    if partition is None:
        if row["error_code"] == errors.NOT_LEADER_OR_FOLLOWER:
            row["current_leader"] = current_leader(node, topic, part["index"])
        return
    waiting = call.left
    try:
        header = _checked(topic, part["records"], version)
        batch, header = restamp(topic, part["records"], header, node.wall_ms(), row)
        partition.append_then(batch, header, call.waiter(partition, row))
    except NebulaError as refused:
        call.left = waiting
        _refuse(row, _code(refused), refused)
        if isinstance(refused, ProducerError) or getattr(refused, "reason", "") in WITH_START:
            row["log_start_offset"] = partition.log.log_start


def _checked(topic: Any, records: Any, version: int) -> Header:
    if records is None:
        raise InvalidBatch("a produce request without records")
    header = check_produced(records, max_bytes=int(effective(topic.configs, "max.message.bytes")))
    if header.codec == ZSTD and version < 7:  # gotcha 18
        raise RefusedBatch("unsupported_codec", "zstd needs Produce v7")
    return header


def _refuse(row: dict[str, Any], code: int, error: BaseException) -> None:
    row["error_code"], row["error_message"] = code, str(error) or None


def _code(error: Exception) -> int:
    if isinstance(error, InvalidBatch):
        return REASONS.get(getattr(error, "reason", ""), errors.CORRUPT_MESSAGE)
    if isinstance(error, NotLeader):
        return errors.NOT_LEADER_OR_FOLLOWER
    if isinstance(error, OutOfOrderSequence):
        return errors.OUT_OF_ORDER_SEQUENCE_NUMBER
    if isinstance(error, InvalidProducerEpoch):
        return errors.INVALID_PRODUCER_EPOCH
    return getattr(error, "kafka_code", errors.NOT_ENOUGH_REPLICAS)
