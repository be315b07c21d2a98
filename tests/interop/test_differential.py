"""The same requests to Nebula and to Apache Kafka: the decoded answers are the same, but for what is listed with a reason."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nebula.records.record import build_batch
from nebula.testing.processes import ProcessCluster
from nebula.testing.wireclient import WireClient
from tests.interop.kafka_broker import KafkaBroker
from tests.interop.shared import produce_body, spoiled

DIFFERS = {
    "throttle_time_ms", "cluster_id", "topic_id", "host", "port", "error_message", "leader_epoch", "controller_id",
    "log_append_time_ms", "configs", "member_id", "leader", "producer_id", "num_partitions", "replication_factor",
    "broker_id", "rack", "coordinator", "current_leader", "topic_authorized_operations", "aborted_transactions",
}  # fmt: skip
"""Fields that two clusters may fill differently, or that other tests check."""
BOUNDS = "an answer out of range tells both bounds (gotcha 14); Kafka tells -1"
ACCEPTED = {
    "metadata unknown v1": "the answer waits for the topic it creates; Kafka says UNKNOWN_TOPIC_OR_PARTITION first",
    "codec": "an unknown codec is UNSUPPORTED_COMPRESSION_TYPE; Kafka fails with an unknown server error",
    "no records": "a request without records is refused; Kafka does not answer it at all",
    **{f"fetch {offset} v{version}": BOUNDS for offset in (8, 9, -1, 100) for version in (4, 8, 11, 12)},
}
"""Case → why Nebula answers something else. `docs/protocol.md` has them too."""
Case = tuple[str, int, int, dict[str, Any]]


def batch(*values: bytes, **more: int) -> bytearray:
    now = int(time.time() * 1000)
    return build_batch([(None, value, (), now) for value in values], **more)


def bad(at: int, data: bytes, seal: bool = True) -> bytearray:
    return spoiled(batch(b"a", b"b"), at, data, seal)


def topic(name: str, **more: Any) -> dict[str, Any]:
    row = {"name": name, "num_partitions": 1, "replication_factor": 1, "assignments": [], "configs": [], **more}
    return {"topics": [row], "timeout_ms": 10_000, "validate_only": False}


def produce(records: Any, name: str = "judged", partition: int = 0, acks: int = -1) -> dict[str, Any]:
    return produce_body(records, name, partition, acks)


def fetch(offset: int, name: str = "judged", partition: int = 0, epoch: int = -1) -> dict[str, Any]:
    part = {
        "partition": partition,
        "fetch_offset": offset,
        "partition_max_bytes": 1 << 20,
        "current_leader_epoch": epoch,
    }
    topics = [{"topic": name, "partitions": [part]}]
    body = {"replica_id": -1, "max_wait_ms": 0, "min_bytes": 1, "max_bytes": 1 << 22, "topics": topics}
    return {**body, "session_epoch": -1, "rack_id": ""}


def offsets(timestamp: int, name: str = "judged", partition: int = 0) -> dict[str, Any]:
    part = {"partition_index": partition, "timestamp": timestamp, "current_leader_epoch": -1}
    return {"replica_id": -1, "topics": [{"name": name, "partitions": [part]}]}


def topic_cases() -> Iterator[Case]:
    yield "create", 19, 5, topic("judged")
    yield "create again", 19, 5, topic("judged")
    yield "create colliding", 19, 5, topic("a.b")
    yield "create colliding 2", 19, 5, topic("a_b")
    for name in ("", ".", "..", "a/b", "x" * 250):
        yield f"create {name[:5]!r}", 19, 5, topic(name)
    for count in (0, -2):
        yield f"create with {count} partitions", 19, 5, topic("other", num_partitions=count)
        yield f"create with {count} replicas", 19, 5, topic("other", replication_factor=count)
    yield "create with 2 replicas", 19, 5, topic("other", replication_factor=2)
    yield "create with an unknown config", 19, 5, topic("other", configs=[{"name": "no.such", "value": "1"}])
    yield "create with a bad config", 19, 5, topic("other", configs=[{"name": "segment.bytes", "value": "x"}])
    twice = topic("twice")
    yield "create twice at once", 19, 5, {**twice, "topics": twice["topics"] * 2}
    yield "validate only", 19, 5, {**topic("other"), "validate_only": True}
    assigned = [{"partition_index": 0, "broker_ids": [99]}]
    more = {"num_partitions": -1, "replication_factor": -1}
    yield "create on an unknown broker", 19, 5, topic("other", assignments=assigned, **more)
    assigned = [{"partition_index": 1, "broker_ids": [1]}]
    yield "create with a gap", 19, 5, topic("other", assignments=assigned, **more)
    yield "delete unknown", 20, 4, {"topic_names": ["nobody"], "timeout_ms": 5000}
    yield "delete by unknown id", 20, 6, {"topics": [{"name": None, "topic_id": b"\1" * 16}], "timeout_ms": 5000}


def metadata_cases() -> Iterator[Case]:
    for version in (1, 5, 9, 12):
        body = {"topics": [{"name": "judged"}], "allow_auto_topic_creation": False}
        yield f"metadata v{version}", 3, version, body
        yield f"metadata of none v{version}", 3, version, {**body, "topics": []}
        yield f"metadata unknown v{version}", 3, version, {**body, "topics": [{"name": f"nobody{version}"}]}
        yield f"metadata illegal v{version}", 3, version, {**body, "topics": [{"name": "a/b"}]}
    by_id = {"topics": [{"name": None, "topic_id": b"\1" * 16}], "allow_auto_topic_creation": False}
    yield "metadata by unknown id", 3, 12, by_id
    yield "describe cluster", 60, 1, {"endpoint_type": 1}
    yield "coordinator of a strange kind", 10, 1, {"key": "g", "key_type": 7}


def produce_cases() -> Iterator[Case]:
    for version in (3, 7, 9, 11):
        yield f"produce v{version}", 0, version, produce(batch(b"x"))
    yield "crc", 0, 9, produce(bad(70, b"\xff", seal=False))
    yield "magic", 0, 9, produce(bad(16, b"\x01"))
    yield "base offset", 0, 9, produce(bad(0, struct.pack(">q", 5)))
    yield "control", 0, 9, produce(bad(21, struct.pack(">h", 0x20)))
    yield "count", 0, 9, produce(bad(57, struct.pack(">i", 3)))
    yield "codec", 0, 9, produce(bad(21, struct.pack(">h", 7)))
    yield "two batches", 0, 9, produce(batch(b"x") + batch(b"x"))
    yield "no records", 0, 9, produce(None)
    yield "empty records", 0, 9, produce(b"")
    yield "too large", 0, 9, produce(batch(b"x" * 1_100_000))
    yield "unknown partition", 0, 9, produce(batch(b"x"), partition=7)
    yield "unknown topic", 0, 9, produce(batch(b"x"), name="nobody9")
    yield "illegal topic", 0, 9, produce(batch(b"x"), name="a/b")
    yield "acks 2", 0, 9, produce(batch(b"x"), acks=2)
    yield "init producer id", 22, 4, {"transactional_id": None, "transaction_timeout_ms": 1000, "producer_epoch": -1}
    for name, sequence, epoch in (
        ("first", 0, 0), ("second", 1, 0), ("duplicate", 1, 0), ("older duplicate", 0, 0), ("gap", 5, 0),
        ("new epoch not at 0", 3, 1), ("new epoch", 0, 1), ("old epoch", 2, 0),
    ):  # fmt: skip
        records = batch(b"x", producer_id=77, producer_epoch=epoch, base_sequence=sequence)
        yield f"sequence: {name}", 0, 9, produce(records)


def read_cases() -> Iterator[Case]:
    for version in (4, 8, 11, 12):
        for offset in (0, 3, 8, 9, -1, 100):
            yield f"fetch {offset} v{version}", 1, version, fetch(offset)
    yield "fetch unknown", 1, 11, fetch(0, name="nobody")
    yield "fetch unknown partition", 1, 11, fetch(0, partition=9)
    yield "fetch newer epoch", 1, 11, fetch(0, epoch=1000)
    yield "fetch of a session", 1, 11, {**fetch(0), "session_id": 12345, "session_epoch": 1}
    for version in (1, 5, 7):
        for at in (-1, -2, 1 << 60):
            yield f"offset {at} v{version}", 2, version, offsets(at)
    yield "offset -3", 2, 7, {**offsets(-3), "isolation_level": 0}
    yield "offset unknown", 2, 7, offsets(-1, name="nobody")
    yield "offset unknown partition", 2, 7, offsets(-1, partition=9)
    for epoch in (-1, 1000):
        part = {"partition": 0, "leader_epoch": epoch, "current_leader_epoch": -1}
        yield f"epoch {epoch}", 23, 3, {"replica_id": -1, "topics": [{"topic": "judged", "partitions": [part]}]}
    unknown = [{"resource_type": 2, "resource_name": "nobody", "configuration_keys": None}]
    yield "configs of nobody", 32, 2, {"resources": unknown}
    yield "configs of no broker", 32, 2, {"resources": [{**unknown[0], "resource_type": 4, "resource_name": "99"}]}


def group_cases() -> Iterator[Case]:
    join = {
        "group_id": "g", "session_timeout_ms": 10_000, "rebalance_timeout_ms": 10_000, "member_id": "",
        "protocol_type": "consumer", "protocols": [{"name": "range", "metadata": b"m"}],
    }  # fmt: skip
    member = {"group_id": "g", "generation_id": 1, "member_id": "nobody"}
    yield "join with an id first", 11, 5, join
    yield "join as nobody", 11, 5, {**join, "member_id": "nobody"}
    yield "join no group", 11, 5, {**join, "group_id": ""}
    yield "join for a moment", 11, 5, {**join, "session_timeout_ms": 1}
    yield "join without protocols", 11, 5, {**join, "protocols": []}
    yield "join without type", 11, 5, {**join, "protocol_type": ""}
    for version in (0, 3, 4):
        yield f"heartbeat v{version}", 12, version, member
        yield f"sync v{version}", 14, version, {**member, "assignments": []}
    yield "leave v1", 13, 1, member
    yield "leave v3", 13, 3, {**member, "members": [{"member_id": "nobody", "group_instance_id": None}]}
    part = {"partition_index": 0, "committed_offset": 5, "committed_metadata": "m"}
    commit = {"group_id": "simple", "generation_id_or_member_epoch": -1, "member_id": "", "retention_time_ms": -1}
    rows = [{"name": "judged", "partitions": [part]}]
    for version in (2, 5, 8):
        yield f"commit v{version}", 8, version, {**commit, "topics": rows}
    yield (
        "commit as nobody",
        8,
        7,
        {**commit, "member_id": "nobody", "generation_id_or_member_epoch": 3, "topics": rows},
    )
    long = [{"name": "judged", "partitions": [{**part, "committed_metadata": "m" * 5000}]}]
    yield "commit much metadata", 8, 7, {**commit, "topics": long}
    yield "commit null metadata", 8, 7, {
        **commit, "group_id": "null", "topics": [{"name": "judged", "partitions": [{**part, "committed_metadata": None}]}],
    }  # fmt: skip
    yield "commit unknown topic", 8, 7, {**commit, "topics": [{"name": "nobody", "partitions": [part]}]}
    asked = [{"name": "judged", "partition_indexes": [0, 1]}]
    for version in (1, 5, 7):
        yield f"fetch offsets v{version}", 9, version, {"group_id": "simple", "topics": asked}
        yield f"fetch offsets of nobody v{version}", 9, version, {"group_id": "nobody", "topics": asked}
    yield "fetch null metadata", 9, 7, {"group_id": "null", "topics": asked}
    yield "fetch all offsets", 9, 7, {"group_id": "simple", "topics": None}
    groups = [{"group_id": name, "topics": asked, "member_epoch": -1} for name in ("simple", "nobody")]
    yield "fetch offsets v8", 9, 8, {"groups": groups}
    for version in (4, 5, 6):
        yield f"describe groups v{version}", 15, version, {"groups": ["simple", "nobody"]}
    yield "delete groups", 42, 2, {"groups_names": ["nobody", "null", ""]}
    gone = {"group_id": "nobody", "topics": [{"name": "judged", "partitions": [{"partition_index": 0}]}]}
    yield "delete offsets of nobody", 47, 0, gone
    yield "delete offsets", 47, 0, {**gone, "group_id": "simple"}
    yield "fetch deleted offsets", 9, 7, {"group_id": "simple", "topics": asked}


def plain(answer: Any) -> Any:
    """An answer without what may differ."""
    if isinstance(answer, dict):
        return {key: plain(value) for key, value in answer.items() if key not in DIFFERS}
    if isinstance(answer, list):
        items = [plain(item) for item in answer]
        named = all(isinstance(item, dict) and "group_id" in item for item in items)
        return sorted(items, key=lambda item: item["group_id"]) if named else items  # Kafka's order is a hash map's
    return len(answer) if isinstance(answer, memoryview) else answer


class DifferentialTests(SynchronousTestCase):
    """One broker of each kind."""

    def setUp(self) -> None:
        self.judge = KafkaBroker()
        self.addCleanup(self.judge.close)
        self.nebula = ProcessCluster(1, settings={"GROUP_INITIAL_DELAY": "0", "OFFSETS_PARTITIONS": "4"})
        self.addCleanup(self.nebula.close)
        self.nebula.start()

    def ask(self, address: tuple[str, int], case: Case) -> Any:
        _name, api, version, body = case
        for _ in range(50):
            with WireClient(address, 8) as client:
                try:
                    answer = plain(client.call(api, version, body))
                except TimeoutError:
                    return "no answer"
                except ConnectionError:
                    return "the connection was closed"
            if not {14, 15, 16} & set(codes(answer)):
                return answer
            time.sleep(0.1)  # a coordinator that is loading says so, and clients ask again
        return answer

    def test_same_answers(self) -> None:
        """Broken: an application that works with Kafka meets something else here."""
        found = {}
        for address in (self.judge.address, self.nebula.client_address("n1")):
            for key in ("g", "simple"):
                self.ask(address, ("coordinator", 10, 3, {"key": key, "key_type": 0}))
        makers = (topic_cases, metadata_cases, produce_cases, read_cases, group_cases)
        for case in [case for make in makers for case in make()]:
            right, ours = self.ask(self.judge.address, case), self.ask(self.nebula.client_address("n1"), case)
            if right != ours:
                found[case[0]] = f"\n  Kafka:  {right}\n  Nebula: {ours}"
        unexpected = "".join(f"\n{name}{text}" for name, text in found.items() if name not in ACCEPTED)
        self.assertFalse(unexpected, unexpected)
        self.assertEqual(set(ACCEPTED) - set(found), set(), "these are the same by now: take them off the list")


def codes(answer: Any) -> Iterator[int]:
    """All error codes in an answer."""
    if isinstance(answer, dict):
        if "error_code" in answer:
            yield answer["error_code"]
        for value in answer.values():
            yield from codes(value)
    elif isinstance(answer, list):
        for item in answer:
            yield from codes(item)
