"""Fetch: whole batches as stored, below the high watermark; a long poll until there is enough (gotchas 10-17)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from nebula.broker.apis.lookup import brokers, current_leader, led_partition, topic_of
from nebula.broker.partition import Partition
from nebula.records.batch import read_header
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

MAX_ANSWER = 52_428_800
"""fetch.max.bytes of Kafka's own consumers: one answer never holds more than this (and one first batch)."""
ZSTD = 4


class Poll:
    """One Fetch request: tries, waits for its partitions, tries again, answers once."""

    def __init__(self, node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> None:
        self._node = node
        self._body = body
        self._version = version
        self._connection = connection
        self._done: Deferred[dict[str, Any]] = Deferred(self._cancelled)
        self._timer: Any = None
        self._watched: list[Partition] = []
        self._expired = False
        self._wants = max(0, body["min_bytes"])

    def start(self) -> Any:
        answer, enough = self._attempt()
        if enough or self._body["max_wait_ms"] <= 0 or not self._watched:
            return answer
        for partition in self._watched:
            partition.watch(self._wake)
        self._timer = self._node.reactor.callLater(self._body["max_wait_ms"] / 1000, self._expire)
        return self._done

    def _wake(self) -> None:
        if self._done.called:
            return
        answer, enough = self._attempt()
        if enough:
            self._finish(answer)

    def _expire(self) -> None:
        self._timer, self._expired = None, True
        if self._connection is None or self._connection.open:
            self._finish(self._attempt()[0])
        else:
            self._release()

    def _finish(self, answer: dict[str, Any]) -> None:
        self._release()
        self._done.callback(answer)

    def _cancelled(self, _done: Any) -> None:
        self._release()

    def _release(self) -> None:
        for partition in self._watched:
            partition.unwatch(self._wake)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _attempt(self) -> tuple[dict[str, Any], bool]:
        """The answer as of now, and whether it may be given at once."""
        left = min(self._body["max_bytes"], MAX_ANSWER)
        total, urgent, responses, watched = 0, False, [], []
        for wanted in self._body["topics"]:
            topic = topic_of(self._node, wanted.get("topic"), wanted.get("topic_id"))
            rows = []
            for part in wanted["partitions"]:
                row, size, partition = self._partition(topic, wanted, part, left - total, total == 0)
                total += size
                urgent = urgent or row["error_code"] != 0 or "diverging_epoch" in row
                if partition is not None:
                    watched.append(partition)
                rows.append(row)
            responses.append({"topic": wanted.get("topic"), "topic_id": wanted.get("topic_id"), "partitions": rows})
        if not self._watched:
            self._watched = watched
        answer = {"throttle_time_ms": 0, "error_code": 0, "session_id": 0, "responses": responses}
        if self._version >= 16 and urgent:
            answer["node_endpoints"] = brokers(self._node, self._connection)
        return answer, urgent or total >= self._wants

    def _partition(
        self, topic: Any, wanted: dict[str, Any], part: dict[str, Any], left: int, first: bool
    ) -> tuple[dict[str, Any], int, Partition | None]:
        index, offset = part["partition"], part["fetch_offset"]
        row: dict[str, Any] = {
            "partition_index": index, "error_code": 0, "high_watermark": -1, "last_stable_offset": -1,
            "log_start_offset": -1, "aborted_transactions": None, "preferred_read_replica": -1, "records": b"",
        }  # fmt: skip
        if topic is None and self._version >= 13:
            row["error_code"] = errors.UNKNOWN_TOPIC_ID
            return row, 0, None
        partition, row["error_code"] = led_partition(self._node, topic, index, part.get("current_leader_epoch", -1))
        if partition is None:
            if row["error_code"] in (errors.NOT_LEADER_OR_FOLLOWER, errors.FENCED_LEADER_EPOCH):
                row["current_leader"] = current_leader(self._node, topic, index)
            return row, 0, None
        if not partition.serving:
            # A leader that has not committed its own marker may not know the high watermark yet (rule 6): wait with it.
            waits = self._body["max_wait_ms"] > 0 and not self._expired
            row["error_code"] = 0 if waits else errors.NOT_LEADER_OR_FOLLOWER
            return row, 0, partition
        high = partition.high_watermark
        row.update(high_watermark=high, last_stable_offset=high, log_start_offset=partition.log.log_start)
        if self._body["isolation_level"] == 1:
            row["aborted_transactions"] = []
        if self._diverges(partition, part, row):
            return row, 0, partition
        if not partition.log.log_start <= offset <= partition.raft.end().offset:
            row["error_code"] = errors.OFFSET_OUT_OF_RANGE
            return row, 0, partition
        return self._read(partition, part, row, left, first)

    def _diverges(self, partition: Partition, part: dict[str, Any], row: dict[str, Any]) -> bool:
        """KIP-595/320: the fetcher's last epoch ends earlier here than it believes."""
        last = part.get("last_fetched_epoch", -1)
        if last < 0:
            return False
        term, end = partition.log.epoch_end(last)
        if term < last or end < part["fetch_offset"]:
            row["diverging_epoch"] = {"epoch": term, "end_offset": end}
            return True
        return False

    def _read(
        self, partition: Partition, part: dict[str, Any], row: dict[str, Any], left: int, first: bool
    ) -> tuple[dict[str, Any], int, Partition]:
        limit = min(part["partition_max_bytes"], left)
        if limit <= 0 and not first:
            return row, 0, partition
        chunks = partition.read(part["fetch_offset"], max(1, limit))
        size = sum(map(len, chunks))
        if size > limit and not first:  # only the answer's first batch may be larger than asked for (KIP-74)
            return row, 0, partition
        if chunks and self._version < 10 and read_header(chunks[0]).codec == ZSTD:
            row["error_code"] = errors.UNSUPPORTED_COMPRESSION_TYPE
            return row, 0, partition
        row["records"] = chunks if chunks else b""
        return row, size, partition


def fetch(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call. Sessions are never created (id 0 always, legal by KIP-227); a request that names one is told so."""
    if body.get("replica_id", -1) >= 0:  # CVE-2018-1288: replicas do not speak on the client port
        return {"error_code": errors.INVALID_REQUEST, "responses": [], "session_id": 0}
    if body.get("session_id", 0) != 0:
        return {"error_code": errors.FETCH_SESSION_ID_NOT_FOUND, "responses": [], "session_id": 0}
    return Poll(node, body, version, connection).start()
