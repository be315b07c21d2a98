"""kafka-python, unmodified, against real nodes."""

from __future__ import annotations

from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import (
    InvalidReplicationFactorError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from twisted.trial.unittest import SynchronousTestCase

from nebula.testing.processes import eventually
from tests.interop.shared import (
    ILLEGAL_NAMES,
    LARGE,
    PAYLOADS,
    fresh,
    is_gone,
    shared,
    stored,
    wait_for_end,
    wait_for_topic,
)


class Base(SynchronousTestCase):
    """Producing and reading, bounded in time."""

    size = 3

    def setUp(self) -> None:
        self.cluster = shared(__name__, self.size)
        self.servers = self.cluster.bootstrap.split(",")

    def producer(self, **config: Any) -> KafkaProducer:
        producer = KafkaProducer(bootstrap_servers=self.servers, **config)
        self.addCleanup(producer.close, 10)
        return producer

    def consumer(self, topic: str) -> KafkaConsumer:
        """Assigned to partition 0; iterating ends after ten silent seconds."""
        consumer = KafkaConsumer(bootstrap_servers=self.servers, consumer_timeout_ms=10_000)
        self.addCleanup(consumer.close)
        consumer.assign([TopicPartition(topic, 0)])
        return consumer

    def read(self, topic: str, number: int, offset: int = 0) -> list[Any]:
        consumer = self.consumer(topic)
        consumer.seek(TopicPartition(topic, 0), offset)
        return [next(consumer) for _ in range(number)]


class PublishTests(Base):
    """What a producer can ask for."""

    def test_default_config_and_a_topic_nobody_made(self) -> None:
        """If this failed, kafka-python's default (idempotent, acks=all) would not work here."""
        producer, values = self.producer(), [b"%d" % i for i in range(100)]
        sent = [producer.send("alerts", value=value).get(20) for value in values]
        places = sorted((row.partition, row.offset) for row in sent)
        self.assertEqual(len(set(places)), len(values))
        consumer = self.consumer("alerts")
        consumer.assign([TopicPartition("alerts", index) for index in consumer.partitions_for_topic("alerts")])
        consumer.seek_to_beginning()
        self.assertEqual(sorted(next(consumer).value for _ in values), sorted(values))

    def test_acks(self) -> None:
        """If this failed, one of the three promises a producer can choose would hang or lose records."""
        for acks in (0, 1, "all"):
            topic = fresh("acks")
            self.cluster.leader_of(topic, 0)
            producer = self.producer(acks=acks, enable_idempotence=False)
            for i in range(30):
                producer.send(topic, value=b"%d" % i, partition=0)
            producer.flush(20)
            wait_for_end(self.cluster, topic, 30)
            self.assertEqual([r.value for r in self.read(topic, 30)], [b"%d" % i for i in range(30)], acks)

    def test_codecs_are_kept(self) -> None:
        """If this failed, a codec would not be understood. (snappy needs a library that kafka-python does not bring.)"""
        for codec, number in {"gzip": 1, "lz4": 3, "zstd": 4}.items():
            topic = fresh(codec)
            producer = self.producer(compression_type=codec, linger_ms=50)
            waits = [producer.send(topic, value=b"abc" * 500, partition=0) for _ in range(20)]
            self.assertEqual([wait.get(20).offset for wait in waits], list(range(20)))
            self.assertEqual({header.codec for header in stored(self.cluster, topic)}, {number}, codec)
            self.assertEqual([r.value for r in self.read(topic, 20)], [b"abc" * 500] * 20, codec)

    def test_every_kind_of_payload(self) -> None:
        """If this failed, null would become empty, a header would be lost, or a binary value would be changed."""
        topic, headers = fresh("payloads"), [("h", b"1"), ("h", b"2"), ("empty", b"")]
        producer = self.producer()
        keys = [b"k", b"", b"null", b"\n", b"\x00", None]  # kafka-python itself refuses a null value without a key
        for i, (key, value) in enumerate(zip(keys, PAYLOADS, strict=True)):
            row = producer.send(topic, value=value, key=key, headers=headers, partition=0, timestamp_ms=1000 + i).get(
                20
            )
            self.assertEqual(row.offset, i)
        found = self.read(topic, len(PAYLOADS))
        self.assertEqual([(r.key, r.value) for r in found], list(zip(keys, PAYLOADS, strict=True)))
        self.assertEqual([list(r.headers) for r in found], [headers] * len(found))
        self.assertEqual([r.timestamp for r in found], [1000 + i for i in range(len(found))])

    def test_oversize_is_refused_and_nothing_else(self) -> None:
        """If this failed, a record above max.message.bytes would be stored, or would take the producer with it."""
        topic, producer = fresh("oversize"), self.producer(max_request_size=3_000_000)
        self.assertEqual(producer.send(topic, value=b"before", partition=0).get(20).offset, 0)
        with self.assertRaises(MessageSizeTooLargeError):
            producer.send(topic, value=LARGE + LARGE, partition=0).get(20)
        self.assertEqual(self.producer().send(topic, value=b"after", partition=0).get(20).offset, 1)

    def test_an_illegal_topic_is_refused(self) -> None:
        """If this failed, a producer with a mistyped topic would wait for metadata instead of saying so."""
        for name in ("not/legal", "."):
            with self.assertRaises((KafkaError, ValueError)):
                self.producer(max_block_ms=5000).send(name, value=b"x").get(20)
            self.assertTrue(is_gone(self.cluster, name))


class ConsumeTests(Base):
    """Where a consumer can begin."""

    def test_positions(self) -> None:
        """If this failed, a consumer would begin somewhere else than it asked."""
        topic, producer = fresh("positions"), self.producer()
        for i in range(20):
            producer.send(topic, value=b"%d" % i, partition=0, timestamp_ms=1000 + 10 * i)
        producer.flush(20)
        place, consumer = TopicPartition(topic, 0), self.consumer(topic)
        self.assertEqual((consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]), (0, 20))
        for timestamp, expected in ((0, 0), (1050, 5), (1051, 6), (1190, 19)):
            self.assertEqual(consumer.offsets_for_times({place: timestamp})[place].offset, expected, timestamp)
        self.assertIsNone(consumer.offsets_for_times({place: 9000})[place])
        self.assertEqual([r.offset for r in self.read(topic, 13, 7)], list(range(7, 20)))
        consumer.seek_to_end(place)
        self.assertEqual(consumer.position(place), 20)
        producer.send(topic, value=b"new", partition=0).get(20)
        self.assertEqual(next(consumer).value, b"new")


class AdminTests(Base):
    """Topics through the admin client."""

    def setUp(self) -> None:
        super().setUp()
        self.admin = KafkaAdminClient(bootstrap_servers=self.servers)
        self.addCleanup(self.admin.close)

    def test_a_topic_s_life(self) -> None:
        """If this failed, a topic could not be made as asked, described, or deleted."""
        topic = fresh("life")
        self.admin.create_topics([NewTopic(topic, num_partitions=4, replication_factor=3)])
        with self.assertRaises(TopicAlreadyExistsError):
            self.admin.create_topics([NewTopic(topic, num_partitions=4, replication_factor=3)])
        wait_for_topic(self.cluster, topic)
        self.assertIn(topic, self.admin.list_topics())
        self.admin.delete_topics([topic])
        eventually(f"{topic} gone", lambda: is_gone(self.cluster, topic))
        with self.assertRaises(UnknownTopicOrPartitionError):
            self.admin.delete_topics([topic])

    def test_refusals(self) -> None:
        """If this failed, a topic that cannot be would be made, or the reason would be the wrong one."""
        for name in ILLEGAL_NAMES:
            with self.assertRaises(InvalidTopicError, msg=name):
                self.admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=3)])
        with self.assertRaises(InvalidReplicationFactorError):
            self.admin.create_topics([NewTopic(fresh("many"), num_partitions=1, replication_factor=4)])


class SingleNodeTests(Base):
    """A cluster of one, as on a developer's machine."""

    size = 1

    def test_publish_and_read(self) -> None:
        """If this failed, Nebula could not be tried without three processes."""
        topic, producer = fresh("one"), self.producer()
        sent = [producer.send(topic, value=v, key=b"k", partition=0).get(20).offset for v in PAYLOADS]
        self.assertEqual(sent, list(range(6)))
        self.assertEqual([r.value for r in self.read(topic, 6)], PAYLOADS)
