"""Kafka's Java clients, through Kafka's own command line tools, against real nodes."""

from __future__ import annotations

import json
import re

from twisted.trial.unittest import SynchronousTestCase

from nebula.testing.processes import eventually
from tests.interop.java_tools import tool
from tests.interop.shared import end_offset, fresh, is_gone, shared, stored, wait_for_topic


class Base(SynchronousTestCase):
    """The tools, told where the cluster is."""

    size = 3

    def setUp(self) -> None:
        self.cluster = shared(__name__, self.size)
        self.at = ("--bootstrap-server", self.cluster.bootstrap)

    def topics(self, *arguments: str, expect: int = 0) -> str:
        out, said = tool("TopicCommand", *self.at, *arguments, expect=expect)
        return out.decode() + said

    def read(self, topic: str, offset: str, number: int, *more: str) -> list[bytes]:
        """`number` records of partition 0, by assignment."""
        place = ("--topic", topic, "--partition", "0", "--offset", offset, "--max-messages", str(number))
        out, _said = tool("consumer.ConsoleConsumer", *self.at, *place, "--timeout-ms", "20000", *more)
        return out.splitlines()


class TopicTests(Base):
    """kafka-topics.sh."""

    def test_a_topic_s_life(self) -> None:
        """If this failed, Kafka's administrators could not use what they know."""
        topic = fresh("life")
        self.topics("--create", "--topic", topic, "--partitions", "4", "--replication-factor", "3")
        wait_for_topic(self.cluster, topic)
        for index in range(4):
            self.cluster.leader_of(topic, index)
        shown = self.topics("--describe", "--topic", topic)
        self.assertIn("PartitionCount: 4\tReplicationFactor: 3", shown)
        rows = re.findall(r"Partition: (\d+)\tLeader: \d+\tReplicas: (\S+)", shown)
        self.assertEqual(
            [(int(index), len(replicas.split(","))) for index, replicas in rows], [(i, 3) for i in range(4)]
        )
        self.assertIn(topic, self.topics("--list").split())
        self.assertIn("already exists", self.topics("--create", "--topic", topic, expect=1))
        self.topics("--delete", "--topic", topic)
        eventually(f"{topic} gone", lambda: is_gone(self.cluster, topic))

    def test_refusals(self) -> None:
        """If this failed, a topic that cannot be would be made, or the reason would not reach the operator."""
        self.assertIn("Topic name is invalid", self.topics("--create", "--topic", "a/b", expect=1))
        many = ("--create", "--topic", fresh("many"), "--replication-factor", "4")
        self.assertIn("larger than available brokers", self.topics(*many, expect=1))


class RecordTests(Base):
    """The console tools, and the two that count."""

    def produce(self, topic: str, lines: bytes, *more: str) -> None:
        tool("ConsoleProducer", *self.at, "--topic", topic, *more, given=lines)

    def test_console(self) -> None:
        """If this failed, a record typed on one side would not come out on the other, or positions would be off."""
        topic = fresh("console")
        self.topics("--create", "--topic", topic, "--partitions", "1")
        self.produce(topic, b"".join(b"%d\n" % i for i in range(20)))
        self.assertEqual(self.read(topic, "earliest", 20), [b"%d" % i for i in range(20)])
        self.assertEqual(self.read(topic, "7", 3), [b"7", b"8", b"9"])

    def test_codecs_keys_headers_nulls(self) -> None:
        """If this failed, a codec or a part of a record would not survive the Java client's way of writing it."""
        properties = ("parse.key=true", "key.separator=:", "parse.headers=true", "null.marker=NULL")
        options = [part for each in properties for part in ("--reader-property", each)]
        shown = ("print.key=true", "print.headers=true", "print.offset=true")
        wanted = [part for each in shown for part in ("--formatter-property", each)]
        for codec, number in {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}.items():
            topic = fresh(codec)
            self.topics("--create", "--topic", topic, "--partitions", "1")
            self.produce(topic, b"h:1\tk:v\nh:2\tk2:NULL\n", "--compression-codec", codec, *options)
            expected = [b"Offset:0\th:1\tk\tv", b"Offset:1\th:2\tk2\tnull"]
            self.assertEqual(self.read(topic, "earliest", 2, *wanted), expected, codec)
            self.assertEqual({header.codec for header in stored(self.cluster, topic)}, {number}, codec)

    def test_a_topic_nobody_made(self) -> None:
        """If this failed, the Java producer's default config (idempotent, acks=all) would not work on a new topic."""
        self.produce("alerts", b"one\n")
        partitions = range(self.topics("--describe", "--topic", "alerts").count("\tPartition: "))
        self.assertEqual(sum(end_offset(self.cluster, "alerts", index) for index in partitions), 1)

    def test_verifiable_producer(self) -> None:
        """If this failed, the tool of Kafka's own system tests would see records fail."""
        topic = fresh("verifiable")
        out, _said = tool("VerifiableProducer", *self.at, "--topic", topic, "--max-messages", "2000", "--acks", "-1")
        events = [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]
        summary = next(event for event in events if event["name"] == "tool_data")
        self.assertEqual((summary["sent"], summary["acked"]), (2000, 2000))
        acked = {(e["partition"], e["offset"]) for e in events if e["name"] == "producer_send_success"}
        self.assertEqual(len(acked), 2000)

    def test_performance_tool(self) -> None:
        """If this failed, nobody could measure Nebula against Kafka with Kafka's tool."""
        topic = fresh("perf")
        self.topics("--create", "--topic", topic, "--partitions", "1")
        load = ("--num-records", "20000", "--record-size", "100", "--throughput", "-1")
        out, _said = tool("ProducerPerformance", *self.at, "--topic", topic, *load)
        self.assertIn(b"20000 records sent", out)
        self.assertEqual(end_offset(self.cluster, topic), 20000)

    def test_offsets_by_time(self) -> None:
        """If this failed, kafka-get-offsets would tell another end than the log has."""
        topic = fresh("offsets")
        self.topics("--create", "--topic", topic, "--partitions", "1")
        self.produce(topic, b"a\nb\nc\n")
        for time, expected in (("earliest", 0), ("latest", 3), ("0", 0), ("max-timestamp", None)):
            out, _said = tool("GetOffsetShell", *self.at, "--topic", topic, "--time", time)
            name, index, offset = out.decode().strip().rsplit(":", 2)
            self.assertEqual((name, index), (topic, "0"))
            self.assertIn(int(offset), range(3) if expected is None else [expected], time)

    def test_oversize_is_refused(self) -> None:
        """If this failed, a record above max.message.bytes would be stored."""
        topic = fresh("oversize")
        self.topics("--create", "--topic", topic, "--partitions", "1")
        wide = ("--command-property", "max.request.size=3000000")
        load = ("--num-records", "1", "--record-size", "2000000", "--throughput", "-1")
        out, said = tool("ProducerPerformance", *self.at, "--topic", topic, *load, *wide, expect=None)
        self.assertIn("RecordTooLargeException", out.decode() + said)
        self.assertEqual(end_offset(self.cluster, topic), 0)


class SingleNodeTests(Base):
    """A cluster of one, as on a developer's machine."""

    size = 1

    def test_console(self) -> None:
        """If this failed, Kafka's quick start would not work on one node."""
        topic = fresh("one")
        self.topics("--create", "--topic", topic, "--partitions", "1")
        tool("ConsoleProducer", *self.at, "--topic", topic, given=b"hello\n")
        self.assertEqual(self.read(topic, "earliest", 1), [b"hello"])
