"""Consumer groups with clients nobody here wrote, against three real nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka import KafkaConsumer
from kafka.coordinator.assignors.range import RangePartitionAssignor
from twisted.trial.unittest import SynchronousTestCase

from nebula.testing.processes import ProcessCluster, eventually
from tests.interop.java_tools import tool
from tests.interop.shared import fresh, run, shared


def produce(cluster: ProcessCluster, topic: str, number: int) -> None:
    """So many records, spread over three partitions."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    for count in range(number):
        producer.produce(topic, b"%d" % count, partition=count % 3)
    if producer.flush(20):
        raise AssertionError("not all records were acknowledged")


class Base(SynchronousTestCase):
    """One cluster for all tests of this module; each has topics and groups of its own."""

    def setUp(self) -> None:
        self.cluster = shared(__name__, settings={"GROUP_INITIAL_DELAY": "0.2"})
        self.topic, self.group = fresh("t"), fresh("g")
        produce(self.cluster, self.topic, 30)

    def confluent(self, **more: Any) -> Consumer:
        config = {
            "bootstrap.servers": self.cluster.bootstrap, "group.id": self.group, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": 6000, "heartbeat.interval.ms": 200, "log_level": 0,
            **more,
        }  # fmt: skip
        consumer = Consumer(config)
        self.addCleanup(consumer.close)
        consumer.subscribe([self.topic])
        return consumer

    def take(self, consumer: Consumer, number: int) -> list[bytes]:
        """Values, until there are so many."""
        found: list[bytes] = []

        def enough() -> bool:
            found.extend(m.value() for m in consumer.consume(100, 0.1) if m.error() is None)
            return len(found) >= number

        eventually(f"{number} records", enough)
        return found

    def spread(self, *consumers: Consumer) -> None:
        """Poll until the three partitions are spread over exactly these members, each having some."""

        def done() -> bool:
            for consumer in consumers:
                consumer.consume(10, 0.05)
            sizes = [len(consumer.assignment()) for consumer in consumers]
            return sum(sizes) == 3 and all(sizes)

        eventually(f"three partitions over {len(consumers)} members", done, 30)

    def committed(self) -> int:
        """Sum of the group's offsets, as a consumer of no group reads them."""
        consumer = Consumer({"bootstrap.servers": self.cluster.bootstrap, "group.id": self.group, "log_level": 0})
        self.addCleanup(consumer.close)
        rows = consumer.committed([TopicPartition(self.topic, index) for index in range(3)], timeout=20)
        return sum(max(0, row.offset) for row in rows)


class ConfluentTests(Base):
    """librdkafka."""

    def test_resume(self) -> None:
        """Broken: a consumer that restarts reads everything again, or skips what it had not read."""
        consumer = self.confluent()
        self.assertEqual(len(self.take(consumer, 30)), 30)
        consumer.commit(asynchronous=False)
        consumer.close()
        produce(self.cluster, self.topic, 3)
        self.assertEqual(sorted(self.take(self.confluent(), 3)), [b"0", b"1", b"2"])
        self.assertEqual(self.committed(), 30)

    def test_two_members(self) -> None:
        """Broken: a second consumer gets nothing, or the first keeps what it was to give away."""
        for strategy in ("range", "cooperative-sticky"):
            self.group = fresh("g")
            first = self.confluent(**{"partition.assignment.strategy": strategy})
            self.spread(first)
            second = self.confluent(**{"partition.assignment.strategy": strategy})
            self.spread(first, second)
            second.close()
            self.spread(first)
            first.close()

    def test_metadata_and_offsets_of_nobody(self) -> None:
        """Broken: a commit's metadata changes on its way, or a group without offsets looks broken (gotcha 30)."""
        consumer = Consumer({"bootstrap.servers": self.cluster.bootstrap, "group.id": self.group, "log_level": 0})
        self.addCleanup(consumer.close)
        place = TopicPartition(self.topic, 0, 7, metadata="note \N{SNOWMAN}")
        consumer.commit(offsets=[place], asynchronous=False)
        row, other = consumer.committed([TopicPartition(self.topic, 0), TopicPartition(self.topic, 1)], timeout=10)
        self.assertEqual((row.offset, row.metadata, row.error), (7, "note \N{SNOWMAN}", None))
        self.assertLess(other.offset, 0)
        self.assertIsNone(other.error)

    def test_static_member(self) -> None:
        """Broken: a static member's restart costs the others a rebalance (KIP-345)."""
        first = self.confluent(**{"group.instance.id": "one", "session.timeout.ms": 20000})
        second = self.confluent(**{"group.instance.id": "two", "session.timeout.ms": 20000})
        self.spread(first, second)
        before = {(p.topic, p.partition) for p in second.assignment()}
        second.close()
        third = self.confluent(**{"group.instance.id": "two", "session.timeout.ms": 20000})
        self.spread(first, third)
        self.assertEqual({(p.topic, p.partition) for p in third.assignment()}, before)

    def test_admin(self) -> None:
        """Broken: tools cannot see, list, or delete groups."""
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})
        consumer = self.confluent()
        self.take(consumer, 30)
        consumer.commit(asynchronous=False)
        told = admin.describe_consumer_groups([self.group])[self.group].result(10)
        self.assertEqual((told.state, len(told.members)), (ConsumerGroupState.STABLE, 1))
        self.assertEqual(len(told.members[0].assignment.topic_partitions), 3)
        listed = admin.list_consumer_groups().result(10)
        self.assertIn(self.group, [group.group_id for group in listed.valid])
        with self.assertRaises(Exception) as refused:
            admin.delete_consumer_groups([self.group])[self.group].result(10)
        self.assertEqual(refused.exception.args[0].code(), KafkaError.NON_EMPTY_GROUP)
        consumer.close()
        admin.delete_consumer_groups([self.group])[self.group].result(10)
        self.assertEqual(self.committed(), 0)

    def test_a_deleted_topic_takes_its_offsets_along(self) -> None:
        """Broken: a topic made again under the same name is read from somewhere in the middle."""
        consumer = self.confluent()
        self.take(consumer, 30)
        consumer.commit(asynchronous=False)
        consumer.close()
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})
        admin.delete_topics([self.topic])[self.topic].result(10)
        produce(self.cluster, self.topic, 3)
        eventually("no offsets left", lambda: self.committed() == 0)


class OtherClientsTests(Base):
    """kafka-python, aiokafka, kcat, and all together."""

    def python(self) -> KafkaConsumer:
        consumer = KafkaConsumer(
            self.topic, bootstrap_servers=self.cluster.bootstrap.split(","), group_id=self.group,
            auto_offset_reset="earliest", session_timeout_ms=10000, heartbeat_interval_ms=300,
            partition_assignment_strategy=[RangePartitionAssignor],
        )  # fmt: skip
        self.addCleanup(consumer.close)
        return consumer

    def test_kafka_python(self) -> None:
        """Broken: kafka-python's groups do not work."""
        consumer, found = self.python(), []

        def enough() -> bool:
            found.extend(m for rows in consumer.poll(200).values() for m in rows)
            return len(found) >= 30

        eventually("30 records", enough)
        consumer.commit()
        self.assertEqual(self.committed(), 30)

    def test_aiokafka(self) -> None:
        """Broken: aiokafka's groups do not work."""

        async def story() -> int:
            consumer = AIOKafkaConsumer(
                self.topic, bootstrap_servers=self.cluster.bootstrap, group_id=self.group, auto_offset_reset="earliest",
                enable_auto_commit=False,
            )  # fmt: skip
            await consumer.start()
            try:
                for _ in range(30):
                    await consumer.getone()
                await consumer.commit()
            finally:
                await consumer.stop()
            return 30

        self.assertEqual(asyncio.run(asyncio.wait_for(story(), 60)), 30)
        self.assertEqual(self.committed(), 30)

    def test_kcat(self) -> None:
        """Broken: kcat -G does not work."""
        argv = [
            "kcat",
            "-b",
            self.cluster.bootstrap,
            "-G",
            self.group,
            "-X",
            "auto.offset.reset=earliest",
            "-e",
            self.topic,
        ]
        out, _ = run(argv)
        self.assertEqual(len(out.split()), 30)

    def test_mixed(self) -> None:
        """Broken: clients of different make do not share a group."""
        first, second = self.confluent(**{"partition.assignment.strategy": "range"}), self.python()

        def shared() -> bool:
            first.consume(10, 0.05)
            second.poll(50)
            return len(first.assignment()) + len(second.assignment()) == 3 and bool(second.assignment())

        self.spread(first)
        eventually("partitions shared by two clients", shared, 30)


class JavaTests(Base):
    """The Java client's tools."""

    def groups(self, *arguments: str) -> str:
        return tool("consumer.group.ConsumerGroupCommand", "--bootstrap-server", self.cluster.bootstrap, *arguments)[
            0
        ].decode()

    def test_tools(self) -> None:
        """Broken: kafka-consumer-groups cannot list, describe, reset and delete."""
        server = ("--bootstrap-server", self.cluster.bootstrap)
        out, _ = tool(
            "consumer.ConsoleConsumer", *server, "--topic", self.topic, "--group", self.group, "--from-beginning",
            "--max-messages", "30", "--timeout-ms", "30000",
        )  # fmt: skip
        self.assertEqual(len(out.split()), 30)
        self.assertIn(self.group, self.groups("--list"))
        described = self.groups("--describe", "--group", self.group)
        rows = [line.split() for line in described.splitlines() if self.topic in line]
        self.assertEqual([(row[3], row[4], row[5]) for row in rows], [("10", "10", "0")] * 3)
        self.groups("--reset-offsets", "--group", self.group, "--topic", self.topic, "--to-earliest", "--execute")
        self.assertEqual(self.committed(), 0)
        self.groups("--delete", "--group", self.group)
        self.assertNotIn(self.group, self.groups("--list"))

    def test_verifiable_consumer(self) -> None:
        """Broken: Kafka's own checking consumer finds a fault."""
        out, _ = tool(
            "VerifiableConsumer", "--bootstrap-server", self.cluster.bootstrap, "--topic", self.topic, "--group-id",
            self.group, "--max-messages", "30", "--reset-policy", "earliest",
        )  # fmt: skip
        self.assertIn(b'"name":"offsets_committed"', out)
        self.assertEqual(self.committed(), 30)


class FaultTests(SynchronousTestCase):
    """A cluster of their own, whose nodes are killed."""

    def setUp(self) -> None:
        self.cluster = ProcessCluster(3, settings={"GROUP_INITIAL_DELAY": "0"})
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        producer = Producer({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})
        for count in range(30):
            producer.produce("t", b"%d" % count, partition=count % 3)
        self.assertEqual(producer.flush(20), 0)

    def consumer(self) -> Consumer:
        consumer = Consumer({
            "bootstrap.servers": self.cluster.bootstrap, "group.id": "g", "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": 10000, "heartbeat.interval.ms": 200, "log_level": 0,
            "reconnect.backoff.max.ms": 500,
        })  # fmt: skip
        self.addCleanup(consumer.close)
        return consumer

    def committed(self) -> list[int]:
        rows = self.consumer().committed([TopicPartition("t", index) for index in range(3)], timeout=30)
        return [row.offset for row in rows]

    def coordinator(self) -> str:
        with self.cluster.any_client() as client:
            return self.cluster.node_of(client.call(10, 3, {"key": "g", "key_type": 0})["node_id"])

    def until(self, what: str, check: Callable[[], bool]) -> None:
        eventually(what, check, 40)

    def test_the_coordinator_dies(self) -> None:
        """Broken: a group stands still, or forgets its offsets, when the node that coordinates it is killed."""
        consumer, found = self.consumer(), []
        consumer.subscribe(["t"])

        def read(number: int) -> Callable[[], bool]:
            def enough() -> bool:
                found.extend(m.value() for m in consumer.consume(100, 0.1) if m.error() is None)
                return len(set(found)) >= number

            return enough

        self.until("30 records", read(30))
        consumer.commit(asynchronous=False)
        victim = self.coordinator()
        self.cluster.kill(victim)
        producer = Producer({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})
        for count in range(30, 60):
            producer.produce("t", b"%d" % count, partition=count % 3)
        self.assertEqual(producer.flush(30), 0)
        self.until("30 more", read(60))
        self.until("a commit at the new coordinator", lambda: consumer.commit(asynchronous=False) is not None)
        self.assertEqual(self.committed(), [20, 20, 20])
        self.assertEqual(sorted(found, key=int), [b"%d" % count for count in range(60)])

    def test_everybody_dies(self) -> None:
        """Broken: committed offsets are only in memory."""
        consumer = self.consumer()
        consumer.commit(offsets=[TopicPartition("t", index, index + 1) for index in range(3)], asynchronous=False)
        for name in self.cluster.names:
            self.cluster.kill(name)
        for name in self.cluster.names:
            self.cluster.spawn(name)
        for name in self.cluster.names:
            self.cluster.wait_ready(name)
        self.assertEqual(self.committed(), [1, 2, 3])
