"""The numbered traps of the protocol, each against a real node, byte for byte as a client sees them.

`docs/protocol.md` has the table from number to test; the last test here keeps the two together.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nebula import wire
from nebula.records.batch import read_header, walk
from nebula.records.record import build_batch, read_records
from nebula.testing.processes import eventually
from nebula.testing.wireclient import WireClient
from nebula.wire import errors
from tests.interop.shared import fresh, produce_body, shared, spoiled

DOCS = Path(__file__).parents[2] / "docs" / "protocol.md"
NUMBERS = {*range(1, 26), *range(32, 36)}
NO_ID = bytes(16)


class Raw:
    """A connection on which requests are sent without waiting."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, 10)
        self.serial = 0

    def send(self, api: int, version: int, body: dict[str, Any]) -> int:
        self.serial += 1
        self.socket.sendall(b"".join(wire.encode_request(api, version, self.serial, "raw", body)))
        return self.serial

    def frame(self) -> bytes:
        """The next answer's frame; empty when the node closed the connection."""
        try:
            head = self._exactly(4)
            return self._exactly(struct.unpack(">i", head)[0]) if head else b""
        except ConnectionError:
            return b""

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                return b""
            data += part
        return data

    def answer(self, api: int, version: int) -> tuple[int, dict[str, Any]]:
        return wire.decode_response(api, version, memoryview(self.frame()))


def batch(*values: bytes, **more: int) -> bytearray:
    """One record a value, at time 1, 2, 3 …"""
    return build_batch([(None, value, (), number + 1) for number, value in enumerate(values)], **more)


def fetch_body(topic: str, offset: int, **more: Any) -> dict[str, Any]:
    part = {"partition": 0, "fetch_offset": offset, "partition_max_bytes": more.pop("part_bytes", 1 << 20)}
    part.update({key: more.pop(key) for key in ("current_leader_epoch",) if key in more})
    topics = [{"topic": topic, "partitions": [part]}]
    return {"max_wait_ms": 0, "min_bytes": 1, "max_bytes": 1 << 22, "topics": topics, **more}


class Base(SynchronousTestCase):
    """One node, a topic of one partition for each test."""

    size = 1

    def setUp(self) -> None:
        self.cluster = shared(__name__, self.size)
        self.client = WireClient(self.cluster.client_address("n1"), 10)
        self.addCleanup(self.client.close)

    def raw(self) -> Raw:
        raw = Raw(self.cluster.client_address("n1"))
        self.addCleanup(raw.socket.close)
        return raw

    def create(self, **configs: str) -> str:
        name = fresh("gotcha")
        rows = [{"name": key.replace("_", "."), "value": value} for key, value in configs.items()]
        topic = {"name": name, "num_partitions": 1, "replication_factor": -1, "assignments": [], "configs": rows}
        body = {"topics": [topic], "timeout_ms": 5000, "validate_only": False}
        self.assertEqual(self.client.call(19, 5, body)["topics"][0]["error_code"], 0)
        return name

    def produce(self, topic: str, records: Any, version: int = 9) -> dict[str, Any]:
        answer = self.client.call(0, version, produce_body(records, topic))
        return dict(answer["responses"][0]["partition_responses"][0])

    def fetch(self, topic: str, offset: int, version: int = 11, **more: Any) -> dict[str, Any]:
        return dict(self.client.call(1, version, fetch_body(topic, offset, **more))["responses"][0]["partitions"][0])


class HandshakeTests(Base):
    """1 to 6."""

    def test_01_api_versions_keeps_header_zero(self) -> None:
        """Broken: every modern client reads the error code one byte too late."""
        raw = self.raw()
        raw.send(18, 3, {"client_software_name": "raw", "client_software_version": "1"})
        frame = raw.frame()
        self.assertEqual(struct.unpack(">ih", frame[:6]), (1, 0))
        _, answer = wire.decode_response(18, 3, memoryview(frame))
        keys = {row["api_key"]: (row["min_version"], row["max_version"]) for row in answer["api_keys"]}
        self.assertEqual(keys, wire.SERVED)

    def test_02_unknown_version_of_api_versions(self) -> None:
        """Broken: clients newer than this broker do not find out what it speaks."""
        raw = self.raw()
        raw.socket.sendall(struct.pack(">ihhih", 14, 18, 99, 7, -1) + b"\xff\xff\xff\xff")
        serial, answer = wire.decode_response(18, 0, memoryview(raw.frame()))
        self.assertEqual((serial, answer["error_code"]), (7, errors.UNSUPPORTED_VERSION))
        self.assertEqual([row["api_key"] for row in answer["api_keys"]], [18])

    def test_03_software_names(self) -> None:
        """Broken: names that would confuse metrics are let in (KIP-511)."""
        for name, code in (("ok-1.2", 0), ("-no", 42), ("no\n", 42), ("", 42)):
            body = {"client_software_name": name, "client_software_version": "1"}
            self.assertEqual(self.client.call(18, 3, body)["error_code"], code, name)

    def test_04_what_is_not_served_closes(self) -> None:
        """Broken: a client waits for an answer that never comes."""
        for api, version in ((0, 2), (999, 0), (4, 0), (3, 99)):
            raw = self.raw()
            raw.socket.sendall(struct.pack(">ihhih", 10, api, version, 1, -1))
            self.assertEqual(raw.frame(), b"", (api, version))

    def test_05_no_sasl_here(self) -> None:
        """Broken: a client that wants to authenticate is left waiting, or believes it has."""
        raw = self.raw()
        raw.socket.sendall(struct.pack(">ihhih", 17, 17, 1, 1, -1) + struct.pack(">h", 5) + b"PLAIN")
        self.assertEqual(raw.frame(), b"")
        self.assertNotIn(17, wire.SERVED)

    def test_06_produce_from_zero_and_join_from_zero(self) -> None:
        """Broken: librdkafka before 2.11.1 sends uncompressed, and old group clients cannot join."""
        rows = {row["api_key"]: row["min_version"] for row in self.client.call(18, 0, {})["api_keys"]}
        self.assertEqual((rows[0], rows[11]), (0, 0))


class OrderTests(Base):
    """7 to 9, 25."""

    def test_07_answers_in_request_order(self) -> None:
        """Broken: Java and kafka-python take one answer for another."""
        topic, raw = self.create(), self.raw()
        raw.send(1, 11, fetch_body(topic, 0, max_wait_ms=400))
        raw.send(18, 0, {})
        raw.send(0, 9, produce_body(batch(b"x"), fresh("unknown")))
        self.assertEqual(raw.answer(1, 11)[0], 1)
        self.assertEqual(raw.answer(18, 0)[0], 2)
        self.assertEqual(raw.answer(0, 9)[0], 3)

    def test_08_acks_zero(self) -> None:
        """Broken: an answer nobody asked for shifts all that follow; or a refused publish goes unnoticed."""
        topic, raw = self.create(), self.raw()
        raw.send(0, 9, produce_body(batch(b"x"), topic, acks=0))
        raw.send(18, 0, {})
        self.assertEqual(raw.answer(18, 0)[0], 2)
        eventually("the record", lambda: self.fetch(topic, 0)["high_watermark"] == 1)
        bad = batch(b"x")
        bad[-1] ^= 1
        raw.send(0, 9, produce_body(bad, topic, acks=0))
        self.assertEqual(raw.frame(), b"")

    def test_09_a_client_that_does_not_read(self) -> None:
        """Broken: one client that asks and never reads makes the node grow."""
        topic, raw = self.create(), self.raw()
        for _ in range(8):
            self.produce(topic, batch(*[b"x" * 1000] * 900))
        raw.socket.settimeout(3)
        sent = 0
        try:
            for _ in range(5000):
                raw.send(1, 11, fetch_body(topic, 0, part_bytes=8 << 20, max_bytes=8 << 20))
                sent += 1
        except TimeoutError:
            pass
        self.assertLess(self.cluster.rss_bytes("n1"), 400 << 20)
        self.assertEqual(self.client.call(18, 0, {})["error_code"], 0)

    def test_25_five_in_flight_in_order(self) -> None:
        """Broken: pipelined batches of an idempotent producer are appended out of order."""
        topic, raw = self.create(), self.raw()
        for first in range(5):
            raw.send(
                0, 9, produce_body(batch(b"%d" % first, producer_id=9, producer_epoch=0, base_sequence=first), topic)
            )
        rows = [raw.answer(0, 9)[1]["responses"][0]["partition_responses"][0] for _ in range(5)]
        self.assertEqual([(row["error_code"], row["base_offset"]) for row in rows], [(0, n) for n in range(5)])


class FetchTests(Base):
    """10 to 19."""

    def test_10_long_poll(self) -> None:
        """Broken: consumers spin, or hear of records and errors only when their wait is over."""
        topic, raw = self.create(), self.raw()
        began = time.monotonic()
        self.assertEqual(self.fetch(topic, 0, max_wait_ms=300)["records"], b"")
        self.assertGreaterEqual(time.monotonic() - began, 0.29)
        raw.send(1, 11, fetch_body(topic, 0, max_wait_ms=30_000))
        self.produce(topic, batch(b"x"))
        self.assertEqual(raw.answer(1, 11)[1]["responses"][0]["partitions"][0]["error_code"], 0)
        row = self.fetch(topic, 9, max_wait_ms=30_000)
        self.assertEqual(row["error_code"], errors.OFFSET_OUT_OF_RANGE)

    def test_11_the_first_batch_whole(self) -> None:
        """Broken: a consumer whose limit is below one batch never gets on (KIP-74)."""
        topic = self.create()
        for _ in range(2):
            self.produce(topic, batch(b"x" * 5000))
        row = self.fetch(topic, 0, part_bytes=10, max_bytes=10)
        self.assertEqual([header.base_offset for _, header in walk(row["records"])], [0])

    def test_12_records_are_never_null(self) -> None:
        """Broken: librdkafka reports "invalid MessageSetSize -1"."""
        topic = self.create()
        self.assertEqual(self.fetch(topic, 0)["records"], b"")
        self.assertEqual(self.fetch(topic, 7)["records"], b"")
        self.assertEqual(self.fetch(fresh("unknown"), 0)["records"], b"")

    def test_13_whole_batches(self) -> None:
        """Broken: a fetch in the middle of a batch gets half of it, or none."""
        topic = self.create()
        self.produce(topic, batch(b"a", b"b", b"c"))
        ((_, header),) = walk(self.fetch(topic, 2)["records"])
        self.assertEqual((header.base_offset, header.count), (0, 3))

    def test_14_watermarks(self) -> None:
        """Broken: lag is computed from numbers that are not there."""
        topic = self.create()
        self.produce(topic, batch(b"a", b"b", b"c"))
        row = self.fetch(topic, 3)
        self.assertEqual([row[k] for k in ("high_watermark", "last_stable_offset", "log_start_offset")], [3, 3, 0])

    def test_15_sessions(self) -> None:
        """Broken: a client waits for changes of a session that does not exist (KIP-227)."""
        topic = self.create()
        answer = self.client.call(1, 11, fetch_body(topic, 0, session_id=0, session_epoch=0))
        self.assertEqual((answer["error_code"], answer["session_id"]), (0, 0))
        answer = self.client.call(1, 11, fetch_body(topic, 0, session_id=77, session_epoch=3))
        self.assertEqual(answer["error_code"], errors.FETCH_SESSION_ID_NOT_FOUND)

    def test_16_leader_epochs(self) -> None:
        """Broken: a client follows a leader of the past (KIP-320)."""
        topic = self.create()
        self.produce(topic, batch(b"x"))
        term = next(header.leader_epoch for _, header in walk(self.fetch(topic, 0)["records"]))
        for epoch, code in ((term, 0), (term - 1, errors.FENCED_LEADER_EPOCH), (term + 1, errors.UNKNOWN_LEADER_EPOCH)):
            self.assertEqual(self.fetch(topic, 0, current_leader_epoch=epoch)["error_code"], code)

    def test_17_out_of_range(self) -> None:
        """Broken: a consumer at the end is told to reset, or one beyond it waits for ever."""
        topic = self.create()
        self.produce(topic, batch(b"x"))
        self.assertEqual([self.fetch(topic, offset)["error_code"] for offset in (0, 1, 2, -1)], [0, 0, 1, 1])

    def test_18_zstd_for_old_clients(self) -> None:
        """Broken: an old client gets bytes it cannot read, or sends what others cannot."""
        topic = self.create()
        self.assertEqual(self.produce(topic, batch(b"x", codec=4), version=5)["error_code"], 76)
        self.assertEqual(self.produce(topic, batch(b"x", codec=4), version=7)["error_code"], 0)
        self.assertEqual([self.fetch(topic, 0, version=v)["error_code"] for v in (8, 10)], [76, 0])

    def test_19_topic_ids(self) -> None:
        """Broken: a client reads a topic that was deleted and made again as if it were the same."""
        topic = self.create()
        self.produce(topic, batch(b"x"))
        known = self.client.call(3, 12, {"topics": [{"name": topic}]})["topics"][0]["topic_id"]
        self.assertNotEqual(known, NO_ID)
        for topic_id, code in ((known, 0), (b"\x01" * 16, errors.UNKNOWN_TOPIC_ID)):
            body = fetch_body("", 0, forgotten_topics_data=[{"topic_id": NO_ID, "partitions": [0]}])
            body["topics"][0]["topic_id"] = topic_id
            row = self.client.call(1, 13, body)["responses"][0]
            self.assertEqual((row["topic_id"], row["partitions"][0]["error_code"]), (topic_id, code))


class OffsetTests(Base):
    """20 to 22."""

    def list(self, topic: str, timestamp: int) -> tuple[int, int]:
        body = {
            "replica_id": -1,
            "topics": [{"name": topic, "partitions": [{"partition_index": 0, "timestamp": timestamp}]}],
        }
        row = self.client.call(2, 7, body)["topics"][0]["partitions"][0]
        self.assertEqual(row["error_code"], 0)
        return row["timestamp"], row["offset"]

    def test_20_no_holes(self) -> None:
        """Broken: what Raft writes for itself takes an offset that no batch fills, and librdkafka stalls there."""
        topic = self.create()
        self.assertEqual(self.produce(topic, batch(b"x"))["base_offset"], 0)
        leader = self.cluster.processes["n1"].pid
        self.cluster.stop("n1")
        self.cluster.restart("n1")
        self.assertNotEqual(self.cluster.processes["n1"].pid, leader)
        self.client = WireClient(self.cluster.client_address("n1"), 10)
        self.addCleanup(self.client.close)
        eventually("a second record", lambda: self.produce(topic, batch(b"y"))["error_code"] == 0)
        headers = [header for _, header in walk(self.fetch(topic, 0)["records"])]
        headers += [header for _, header in walk(self.fetch(topic, headers[-1].end_offset)["records"])]
        self.assertEqual([header.base_offset for header in headers], list(range(len(headers))))
        self.assertGreater(headers[-1].leader_epoch, headers[0].leader_epoch)

    def test_21_by_timestamp(self) -> None:
        """Broken: a consumer that starts at a time misses a record, or gets one too old."""
        topic = self.create()
        self.produce(topic, batch(b"a", b"b", b"c"))
        found = [self.list(topic, at) for at in (0, 2, 3, 4, -1, -2, -3)]
        self.assertEqual(found, [(1, 0), (2, 1), (3, 2), (-1, -1), (-1, 3), (-1, 0), (3, 2)])

    def test_22_log_append_time(self) -> None:
        """Broken: a topic that stamps its records serves the producer's times, or batches with a wrong checksum."""
        topic = self.create(message_timestamp_type="LogAppendTime")
        row = self.produce(topic, batch(b"a"))
        self.assertGreater(row["log_append_time_ms"], 1_600_000_000_000)
        data = self.fetch(topic, 0)["records"]
        header = read_header(data)
        self.assertEqual((header.attributes & 8, header.max_timestamp), (8, row["log_append_time_ms"]))
        self.assertEqual([record.value for record in read_records(data)], [b"a"])
        self.assertEqual(self.produce(self.create(), batch(b"a"))["log_append_time_ms"], -1)
        strict = self.create(message_timestamp_before_max_ms="1000")
        self.assertEqual(self.produce(strict, batch(b"a"))["error_code"], errors.INVALID_TIMESTAMP)


class ProduceTests(Base):
    """23, 24."""

    def test_23_what_is_refused(self) -> None:
        """Broken: a batch enters the log that some consumer cannot read."""
        topic = self.create(max_message_bytes="2000")
        good = batch(b"a", b"b")

        cases = {
            "crc": (spoiled(good, len(good) - 1, b"\xff"), errors.CORRUPT_MESSAGE),
            "magic": (spoiled(good, 16, b"\x01"), errors.INVALID_RECORD),
            "length": (spoiled(good, 8, struct.pack(">i", len(good))), errors.CORRUPT_MESSAGE),
            "base offset": (spoiled(good, 0, struct.pack(">q", 5)), errors.INVALID_RECORD),
            "control": (spoiled(good, 21, struct.pack(">h", 0x20), seal=True), errors.INVALID_RECORD),
            "codec": (spoiled(good, 21, struct.pack(">h", 7), seal=True), errors.UNSUPPORTED_COMPRESSION_TYPE),
            "count": (spoiled(good, 57, struct.pack(">i", 3), seal=True), errors.INVALID_RECORD),
            "two batches": (good + good, errors.INVALID_RECORD),
            "too large": (batch(b"x" * 3000), errors.MESSAGE_TOO_LARGE),
        }
        for name, (records, code) in cases.items():
            self.assertEqual(self.produce(topic, records)["error_code"], code, name)
        self.assertEqual(
            self.produce(topic, spoiled(good, 12, struct.pack(">i", 77)))["error_code"], 0
        )  # ignored: its epoch
        self.assertEqual(self.fetch(topic, 0)["high_watermark"], 2)

    def test_24_idempotence(self) -> None:
        """Broken: a retry is stored twice, or a gap goes unnoticed."""
        topic = self.create()

        def send(sequence: int, epoch: int = 0, pid: int = 5) -> tuple[int, int]:
            row = self.produce(topic, batch(b"x", producer_id=pid, producer_epoch=epoch, base_sequence=sequence))
            return row["error_code"], row["base_offset"]

        self.assertEqual(send(3), (errors.OUT_OF_ORDER_SEQUENCE_NUMBER, -1))  # KAFKA-15591: nothing is here yet
        self.assertEqual([send(n) for n in range(6)], [(0, n) for n in range(6)])
        self.assertEqual([send(n) for n in range(1, 6)], [(0, n) for n in range(1, 6)])
        self.assertEqual(send(7)[0], errors.OUT_OF_ORDER_SEQUENCE_NUMBER)
        self.assertEqual(send(1, epoch=1)[0], errors.OUT_OF_ORDER_SEQUENCE_NUMBER)
        self.assertEqual(send(0, epoch=1), (0, 6))
        self.assertEqual(send(6)[0], errors.INVALID_PRODUCER_EPOCH)


class MetadataTests(Base):
    """32 to 35, with three nodes."""

    size = 3

    def test_32_created_on_demand(self) -> None:
        """Broken: publishing to a topic nobody made does not work, or asking about one creates it."""
        name = fresh("demand")
        row = self.client.metadata([name], create=False)["topics"][0]
        self.assertEqual(row["error_code"], errors.UNKNOWN_TOPIC_OR_PARTITION)

        def there() -> bool:
            row = self.client.metadata([name])["topics"][0]
            self.assertIn(row["error_code"], (0, errors.UNKNOWN_TOPIC_OR_PARTITION, errors.LEADER_NOT_AVAILABLE))
            return row["error_code"] == 0 and [p["partition_index"] for p in row["partitions"]] == [0, 1, 2]

        eventually("the topic", there)

    def test_33_lists_and_listeners(self) -> None:
        """Broken: an old client sees no topics, a new one sees all when it asked for none."""
        name = self.create()
        for version, wanted, seen in ((0, [], True), (1, None, True), (1, [], False), (9, None, True), (9, [], False)):
            rows = self.client.call(3, version, {"topics": wanted})["topics"]
            self.assertEqual(name in [row["name"] for row in rows], seen, (version, wanted))
        answer = self.client.call(3, 9, {"topics": []})
        ports = {row["port"] for row in answer["brokers"]}
        self.assertEqual(ports, {self.cluster.client_address(n)[1] for n in self.cluster.names})
        self.assertIn(answer["controller_id"], [row["node_id"] for row in answer["brokers"]])
        self.assertEqual(answer["cluster_authorized_operations"], -(2**31))

    def test_34_usable_when_created(self) -> None:
        """Broken: a client that publishes right after CreateTopics hears a fatal error."""
        for name, code in (("a/b", 17), ("", 17), ("..", 17)):
            body = {"topics": [{"name": name, "num_partitions": 1, "replication_factor": 1}], "timeout_ms": 1000}
            self.assertEqual(self.client.call(19, 5, body)["topics"][0]["error_code"], code, name)
        topic = self.create()
        row = self.client.metadata([topic], create=False)["topics"][0]
        self.assertEqual([part["error_code"] for part in row["partitions"]], [0])
        clash = {"topics": [{"name": topic.replace("-", "."), "num_partitions": 1, "replication_factor": 1}]}
        self.assertEqual(self.client.call(19, 5, clash)["topics"][0]["error_code"], 0)  # '-' is not '.' nor '_'
        clash["topics"][0]["name"] = topic.replace("-", "_")
        self.assertEqual(self.client.call(19, 5, clash)["topics"][0]["error_code"], errors.INVALID_TOPIC_EXCEPTION)

    def test_35_no_throttling(self) -> None:
        """Broken: clients mute themselves."""
        for api, version, body in ((3, 9, {"topics": []}), (18, 1, {}), (60, 0, {}), (16, 3, {})):
            self.assertEqual(self.client.call(api, version, body)["throttle_time_ms"], 0)


class TableTests(SynchronousTestCase):
    """The table in the docs."""

    def test_every_number_has_its_test(self) -> None:
        """Broken: the docs promise a test that is not there."""
        rows = dict(re.findall(r"^\| (\d+) \|.*\| `(test_\w+)` \|$", DOCS.read_text(), re.M))
        source = Path(__file__).read_text()
        self.assertEqual({int(number) for number in rows}, NUMBERS)
        for number, name in rows.items():
            self.assertIn(f"def {name}(", source)
            self.assertTrue(name.startswith(f"test_{int(number):02d}_"), name)
