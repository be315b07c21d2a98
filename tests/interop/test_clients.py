"""Kafka's clients, unmodified, against three real nodes."""

from __future__ import annotations

import asyncio
import subprocess
import time

import aiokafka
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KTopicPartition
from twisted.trial.unittest import SynchronousTestCase

from nebula.testing.processes import ProcessCluster

PAYLOADS = [b"plain", b"", None, b"line\nbreak", b"x" * 900_000]


class ClientTests(SynchronousTestCase):
    """Each publishes to a topic nobody has heard of, and reads it back by assignment."""

    def setUp(self) -> None:
        self.cluster = ProcessCluster(3)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def confluent_read(self, topic: str, offset: int, count: int) -> list[tuple[int, object]]:
        consumer = Consumer({"bootstrap.servers": self.cluster.bootstrap, "group.id": "none", "log_level": 0,
                             "enable.auto.commit": False})  # fmt: skip
        consumer.assign([TopicPartition(topic, 0, offset)])
        found: list[tuple[int, object]] = []
        deadline = time.monotonic() + 20
        while len(found) < count and time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                found.append((message.offset(), message.value()))
        consumer.close()
        return found

    def test_confluent_every_codec_and_acks(self) -> None:
        """If this failed, librdkafka's users could not move here."""
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            for acks in ("all", "1"):
                topic = f"c-{codec}-{acks}"
                config = {"bootstrap.servers": self.cluster.bootstrap, "compression.type": codec, "acks": acks}
                producer, errors = Producer({**config, "log_level": 0}), []
                for payload in PAYLOADS:
                    producer.produce(topic, payload, key=b"k", partition=0, headers=[("h", b"1")],
                                     on_delivery=lambda error, _m: errors.append(error))  # fmt: skip
                producer.flush(20)
                self.assertEqual(errors, [None] * len(PAYLOADS), topic)
                self.assertEqual(self.confluent_read(topic, 0, 5), list(enumerate(PAYLOADS)), topic)

    def test_confluent_admin_and_errors(self) -> None:
        """If this failed, topics could not be managed, or bad ones would be accepted."""
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        admin.create_topics([NewTopic("made", 2, 3)])["made"].result(10)
        self.assertEqual(len(admin.list_topics("made", timeout=10).topics["made"].partitions), 2)
        for name, partitions in (("../x", 1), ("made", 1), ("zero", 0)):
            with self.assertRaises(KafkaException):
                admin.create_topics([NewTopic(name, partitions, 3)])[name].result(10)
        admin.delete_topics(["made"])["made"].result(10)

    def test_kafka_python(self) -> None:
        """If this failed, kafka-python's users could not move here."""
        producer = KafkaProducer(bootstrap_servers=self.cluster.bootstrap.split(","))
        sent = [producer.send("kp", value=b"%d" % i, key=b"k", partition=0).get(20).offset for i in range(20)]
        self.assertEqual(sent, list(range(20)))
        producer.close()
        consumer = KafkaConsumer(bootstrap_servers=self.cluster.bootstrap.split(","), consumer_timeout_ms=5000)
        place = KTopicPartition("kp", 0)
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        self.assertEqual([next(consumer).value for _ in range(20)], [b"%d" % i for i in range(20)])
        self.assertEqual(
            (consumer.beginning_offsets([place]), consumer.end_offsets([place])), ({place: 0}, {place: 20})
        )
        consumer.seek(place, 7)
        self.assertEqual(next(consumer).offset, 7)
        consumer.close()

    def test_aiokafka(self) -> None:
        """If this failed, aiokafka's users could not move here."""

        async def story() -> list[bytes]:
            producer = aiokafka.AIOKafkaProducer(bootstrap_servers=self.cluster.bootstrap, enable_idempotence=True)
            await producer.start()
            for i in range(10):
                await producer.send_and_wait("aio", b"%d" % i, partition=0)
            await producer.stop()
            consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=self.cluster.bootstrap)
            await consumer.start()
            place = aiokafka.TopicPartition("aio", 0)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            found = [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(10)]
            await consumer.stop()
            return found

        self.assertEqual(asyncio.run(story()), [b"%d" % i for i in range(10)])

    def test_kcat(self) -> None:
        """If this failed, the tool everybody reaches for first would not work."""
        lines = "".join(f"{i}\n" for i in range(500)).encode()
        base = ["kcat", "-b", self.cluster.bootstrap, "-t", "kc", "-p", "0"]
        subprocess.run([*base, "-P", "-z", "gzip"], input=lines, check=True, timeout=30)
        done = subprocess.run([*base, "-C", "-o", "beginning", "-e", "-q"], capture_output=True, check=True, timeout=30)
        self.assertEqual(done.stdout, lines)

    def test_oversize_is_refused(self) -> None:
        """If this failed, a record above max.message.bytes would be stored, or the connection would hang."""
        producer, errors = Producer({"bootstrap.servers": self.cluster.bootstrap, "message.max.bytes": 3_000_000}), []
        producer.produce(
            "big", b"x" * 2_000_000, partition=0, on_delivery=lambda error, _m: errors.append(error.name())
        )
        producer.flush(20)
        self.assertEqual(errors, ["MSG_SIZE_TOO_LARGE"])
