"""confluent-kafka (librdkafka), unmodified, against real nodes."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic
from twisted.trial.unittest import SynchronousTestCase

from nebula.testing.processes import eventually
from tests.interop.shared import (
    ILLEGAL_NAMES,
    LARGE,
    PAYLOADS,
    end_offset,
    fresh,
    is_gone,
    shared,
    stored,
    wait_for_end,
    wait_for_topic,
)

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


class Base(SynchronousTestCase):
    """Producing and reading, bounded in time."""

    size = 3

    def setUp(self) -> None:
        self.cluster = shared(__name__, self.size)

    def produce(self, topic: str, rows: list[dict[str, Any]], **config: Any) -> list[KafkaError | None]:
        """Send all; the error, or None, of each in the order of the reports."""
        producer = Producer({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0, **config})
        errors: list[KafkaError | None] = []
        for row in rows:
            producer.produce(topic, on_delivery=lambda error, _message: errors.append(error), **row)
        self.assertEqual(producer.flush(30), 0, "records neither delivered nor refused in 30 s")
        return errors

    def consumer(self) -> Consumer:
        config = {"bootstrap.servers": self.cluster.bootstrap, "group.id": "unused", "enable.auto.commit": False}
        consumer = Consumer({**config, "log_level": 0, "auto.offset.reset": "error"})
        self.addCleanup(consumer.close)
        return consumer

    def take(self, consumer: Consumer, number: int) -> list[Message]:
        """The next `number` records."""
        found: list[Message] = []
        deadline = time.monotonic() + 30
        while len(found) < number and time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None:
                self.assertIsNone(message.error())
                found.append(message)
        self.assertEqual(len(found), number)
        return found

    def read(self, topic: str, number: int, offset: int = OFFSET_BEGINNING) -> list[Message]:
        consumer = self.consumer()
        consumer.assign([TopicPartition(topic, 0, offset)])
        return self.take(consumer, number)


class PublishTests(Base):
    """What a producer can ask for."""

    def test_default_config_and_a_topic_nobody_made(self) -> None:
        """If this failed, the first three lines a newcomer writes would not work."""
        values = [b"%d" % i for i in range(300)]
        errors = self.produce("alerts", [{"value": value, "key": b"k%d" % i} for i, value in enumerate(values)])
        self.assertEqual(errors, [None] * len(values))
        partitions = self.consumer().list_topics("alerts", timeout=10).topics["alerts"].partitions
        consumer = self.consumer()
        consumer.assign([TopicPartition("alerts", index, OFFSET_BEGINNING) for index in partitions])
        self.assertEqual(sorted(m.value() for m in self.take(consumer, len(values))), sorted(values))

    def test_acks(self) -> None:
        """If this failed, one of the three promises a producer can choose would hang or lose records."""
        for acks in ("0", "1", "all"):
            topic = fresh("acks")
            self.cluster.leader_of(topic, 0)  # creates it: with acks=0 nobody would say that it was not there yet
            errors = self.produce(topic, [{"value": b"%d" % i, "partition": 0} for i in range(50)], acks=acks)
            self.assertEqual(errors, [None] * 50, acks)
            wait_for_end(self.cluster, topic, 50)
            self.assertEqual([m.value() for m in self.read(topic, 50)], [b"%d" % i for i in range(50)], acks)

    def test_codecs_are_kept(self) -> None:
        """If this failed, batches would be stored in another form than sent, or the client would silently not compress."""
        for codec, number in CODECS.items():
            topic = fresh(codec)
            rows = [{"value": b"abc" * 500, "partition": 0} for _ in range(40)]
            self.assertEqual(self.produce(topic, rows, **{"compression.type": codec, "linger.ms": 100}), [None] * 40)
            self.assertEqual({header.codec for header in stored(self.cluster, topic)}, {number}, codec)
            self.assertEqual([m.value() for m in self.read(topic, 40)], [b"abc" * 500] * 40, codec)

    def test_every_kind_of_payload_idempotent(self) -> None:
        """If this failed, null would become empty, a header would be lost, or a binary value would be changed."""
        topic = fresh("payloads")
        headers = [("h", b"1"), ("h", b"2"), ("none", None), ("empty", b""), ("naïve", b"\xff")]
        keys = [b"k", b"", None, b"\n", b"\x00", b"large"]
        rows = [
            {"value": v, "key": k, "partition": 0, "headers": headers, "timestamp": 1_700_000_000_000 + i}
            for i, (k, v) in enumerate(zip(keys, PAYLOADS, strict=True))
        ]
        self.assertEqual(self.produce(topic, rows, **{"enable.idempotence": True}), [None] * len(rows))
        found = self.read(topic, len(rows))
        self.assertEqual([m.value() for m in found], PAYLOADS)
        self.assertEqual([m.key() for m in found], keys)
        self.assertEqual([m.headers() for m in found], [headers] * len(rows))
        self.assertEqual([m.timestamp()[1] for m in found], [1_700_000_000_000 + i for i in range(len(rows))])
        self.assertTrue(all(header.producer_id >= 0 for header in stored(self.cluster, topic)))

    def test_oversize_is_refused_and_nothing_else(self) -> None:
        """If this failed, a record above max.message.bytes would be stored, or would take the connection with it."""
        topic = fresh("oversize")
        rows = [{"value": value, "partition": 0} for value in (b"before", LARGE + LARGE, b"after")]
        errors = self.produce(topic, rows, **{"message.max.bytes": 3_000_000, "batch.num.messages": 1})
        refused = [error.code() for error in errors if error is not None]
        self.assertEqual(refused, [KafkaError.MSG_SIZE_TOO_LARGE])
        self.assertEqual([m.value() for m in self.read(topic, 2)], [b"before", b"after"])

    def test_an_illegal_topic_is_refused_at_once(self) -> None:
        """If this failed, a producer with a mistyped topic would retry until its timeout instead of saying so."""
        errors = self.produce("not/legal", [{"value": b"x"}])
        self.assertEqual([error and error.code() for error in errors], [KafkaError.TOPIC_EXCEPTION])


class ConsumeTests(Base):
    """Where a consumer can begin."""

    def test_positions(self) -> None:
        """If this failed, a consumer would begin somewhere else than it asked."""
        topic = fresh("positions")
        rows = [{"value": b"%d" % i, "partition": 0, "timestamp": 1_000_000 + 10 * i} for i in range(20)]
        self.assertEqual(self.produce(topic, rows), [None] * 20)
        place = TopicPartition(topic, 0)
        consumer = self.consumer()
        self.assertEqual(consumer.get_watermark_offsets(place, timeout=10), (0, 20))
        self.assertEqual([m.offset() for m in self.read(topic, 13, 7)], list(range(7, 20)))
        for timestamp, expected in ((0, 0), (1_000_050, 5), (1_000_051, 6), (1_000_190, 19)):
            found = consumer.offsets_for_times([TopicPartition(topic, 0, timestamp)], timeout=10)
            self.assertEqual(found[0].offset, expected, timestamp)
        late = consumer.offsets_for_times([TopicPartition(topic, 0, 2_000_000)], timeout=10)
        self.assertEqual(late[0].offset, OFFSET_END)

    def test_from_the_end_only_what_is_new(self) -> None:
        """If this failed, a tailing consumer would get old records, or would sleep through new ones."""
        topic = fresh("tail")
        self.produce(topic, [{"value": b"old", "partition": 0}])
        consumer = self.consumer()
        consumer.assign([TopicPartition(topic, 0, OFFSET_END)])

        def new_one() -> Message | None:
            # Again and again: until the consumer has asked where the end is, a record only moves that end.
            self.assertEqual(self.produce(topic, [{"value": b"new", "partition": 0}]), [None])
            return consumer.poll(0.5)

        self.assertEqual(eventually("a new record", new_one).value(), b"new")

    def test_beyond_the_end_is_an_error(self) -> None:
        """If this failed, a consumer with an impossible offset would wait for ever instead of being told."""
        topic = fresh("beyond")
        self.produce(topic, [{"value": b"x", "partition": 0}])
        consumer = self.consumer()
        consumer.assign([TopicPartition(topic, 0, 1000)])
        message = eventually("an answer", lambda: consumer.poll(0.5))
        self.assertEqual(message.error().code(), KafkaError._AUTO_OFFSET_RESET)


class AdminTests(Base):
    """Topics through the admin client."""

    def setUp(self) -> None:
        super().setUp()
        self.admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})

    def create(self, *arguments: Any, **more: Any) -> int | None:
        """Kafka's error code of one creation, None when it succeeded."""
        (future,) = self.admin.create_topics([NewTopic(*arguments, **more)]).values()
        try:
            future.result(15)
        except KafkaException as error:
            return int(error.args[0].code())
        return None

    def test_a_topic_s_life(self) -> None:
        """If this failed, a topic could not be made as asked, deleted, or made again without its old records."""
        topic = fresh("life")
        self.assertIsNone(self.create(topic, 4, 3))
        self.assertEqual(self.create(topic, 4, 3), KafkaError.TOPIC_ALREADY_EXISTS)
        wait_for_topic(self.cluster, topic)
        found = self.admin.list_topics(topic, timeout=10).topics[topic].partitions
        self.assertEqual([len(p.replicas) for p in found.values()], [3] * 4)
        self.assertEqual(self.produce(topic, [{"value": b"old", "partition": 0}]), [None])
        self.admin.delete_topics([topic])[topic].result(15)
        eventually(f"{topic} gone", lambda: is_gone(self.cluster, topic))
        self.assertIsNone(self.create(topic, 1, 3))
        self.assertEqual(end_offset(self.cluster, topic), 0)
        self.assertEqual(self.produce(topic, [{"value": b"new", "partition": 0}]), [None])
        self.assertEqual([m.value() for m in self.read(topic, 1)], [b"new"])

    def test_refusals(self) -> None:
        """If this failed, a topic that cannot be would be made, or the reason would be the wrong one."""
        for name in ILLEGAL_NAMES:
            self.assertEqual(self.create(name, 1, 3), KafkaError.TOPIC_EXCEPTION, name)
        self.assertEqual(self.create(fresh("zero"), 0, 3), KafkaError.INVALID_PARTITIONS)
        self.assertEqual(self.create(fresh("many"), 1, 4), KafkaError.INVALID_REPLICATION_FACTOR)
        self.assertEqual(self.create(fresh("config"), 1, 3, config={"no.such": "1"}), KafkaError.INVALID_CONFIG)
        with self.assertRaises(KafkaException) as refused:
            self.admin.delete_topics(["never-made"])["never-made"].result(15)
        self.assertEqual(refused.exception.args[0].code(), KafkaError.UNKNOWN_TOPIC_OR_PART)


class SingleNodeTests(Base):
    """A cluster of one, as on a developer's machine."""

    size = 1

    def test_publish_and_read(self) -> None:
        """If this failed, Nebula could not be tried without three processes."""
        topic = fresh("one")
        self.assertEqual(self.produce(topic, [{"value": v, "partition": 0} for v in PAYLOADS]), [None] * len(PAYLOADS))
        self.assertEqual([m.value() for m in self.read(topic, len(PAYLOADS))], PAYLOADS)

    def test_more_replicas_than_nodes_are_refused(self) -> None:
        """If this failed, one copy would be called three."""
        topic = fresh("three")
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})
        with self.assertRaises(KafkaException) as refused:
            admin.create_topics([NewTopic(topic, 1, 3)])[topic].result(15)
        self.assertEqual(refused.exception.args[0].code(), KafkaError.INVALID_REPLICATION_FACTOR)
