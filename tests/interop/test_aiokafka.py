"""aiokafka, unmodified, against real nodes: the client with the oldest versions of the calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import InvalidTopicError, MessageSizeTooLargeError
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


class AiokafkaTests(SynchronousTestCase):
    """One story per test, each with an event loop of its own."""

    def setUp(self) -> None:
        self.cluster = shared(__name__)
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        self.addCleanup(logging.getLogger("aiokafka").setLevel, logging.NOTSET)

    def play(self, story: Coroutine[Any, Any, Any], seconds: float = 60) -> Any:
        return asyncio.run(asyncio.wait_for(story, seconds))

    async def send(self, topic: str, rows: list[dict[str, Any]], **config: Any) -> list[Any]:
        async with AIOKafkaProducer(bootstrap_servers=self.cluster.bootstrap, **config) as producer:
            waits = [await producer.send(topic, **row) for row in rows]
            return list(await asyncio.gather(*waits))

    async def read(self, topic: str, number: int, offset: int = 0) -> list[Any]:
        async with AIOKafkaConsumer(bootstrap_servers=self.cluster.bootstrap) as consumer:
            consumer.assign([TopicPartition(topic, 0)])
            consumer.seek(TopicPartition(topic, 0), offset)
            return [await consumer.getone() for _ in range(number)]

    def test_default_config_and_a_topic_nobody_made(self) -> None:
        """If this failed, aiokafka's first example would not work here."""
        rows = [{"value": b"%d" % i, "key": b"k%d" % i} for i in range(100)]
        sent = self.play(self.send("alerts", rows))
        self.assertEqual(len({(row.partition, row.offset) for row in sent}), 100)

    def test_acks_and_idempotence(self) -> None:
        """If this failed, one of the promises a producer can choose would hang or lose records."""
        for config in ({"acks": 0}, {"acks": 1}, {"acks": "all"}, {"enable_idempotence": True}):
            topic = fresh("acks")
            self.cluster.leader_of(topic, 0)
            self.play(self.send(topic, [{"value": b"%d" % i, "partition": 0} for i in range(30)], **config))
            wait_for_end(self.cluster, topic, 30)
            found = self.play(self.read(topic, 30))
            self.assertEqual([r.value for r in found], [b"%d" % i for i in range(30)], config)

    def test_codecs_are_kept(self) -> None:
        """If this failed, a codec would not be understood, or batches would be stored in another form than sent."""
        for codec, number in {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}.items():
            topic = fresh(codec)
            rows = [{"value": b"abc" * 500, "partition": 0} for _ in range(20)]
            self.play(self.send(topic, rows, compression_type=codec, linger_ms=50))
            self.assertEqual({header.codec for header in stored(self.cluster, topic)}, {number}, codec)
            self.assertEqual([r.value for r in self.play(self.read(topic, 20))], [b"abc" * 500] * 20, codec)

    def test_every_kind_of_payload(self) -> None:
        """If this failed, null would become empty, a header would be lost, or a binary value would be changed."""
        topic, headers = fresh("payloads"), [("h", b"1"), ("h", b"2"), ("empty", b"")]
        keys = [b"k", b"", b"null", b"\n", b"\x00", None]
        rows = [
            {"value": v, "key": k, "partition": 0, "headers": headers, "timestamp_ms": 1000 + i}
            for i, (k, v) in enumerate(zip(keys, PAYLOADS, strict=True))
        ]
        self.play(self.send(topic, rows))
        found = self.play(self.read(topic, len(rows)))
        self.assertEqual([(r.key, r.value) for r in found], list(zip(keys, PAYLOADS, strict=True)))
        self.assertEqual([list(r.headers) for r in found], [headers] * len(found))

    def test_positions(self) -> None:
        """If this failed, a consumer would begin somewhere else than it asked."""
        topic = fresh("positions")
        place = TopicPartition(topic, 0)
        rows = [{"value": b"%d" % i, "partition": 0, "timestamp_ms": 1000 + 10 * i} for i in range(20)]
        self.play(self.send(topic, rows))

        async def ask() -> tuple[Any, ...]:
            async with AIOKafkaConsumer(bootstrap_servers=self.cluster.bootstrap) as consumer:
                consumer.assign([place])
                at = await consumer.offsets_for_times({place: 1051})
                late = await consumer.offsets_for_times({place: 9000})
                ends = (await consumer.beginning_offsets([place]), await consumer.end_offsets([place]))
                await consumer.seek_to_end(place)
                position = await consumer.position(place)
                await self.send(topic, [{"value": b"new", "partition": 0}])
                return at[place].offset, late[place], ends, position, (await consumer.getone()).value

        self.assertEqual(self.play(ask()), (6, None, ({place: 0}, {place: 20}), 20, b"new"))
        self.assertEqual([r.offset for r in self.play(self.read(topic, 13, 7))], list(range(7, 20)))

    def test_oversize_is_refused(self) -> None:
        """If this failed, a record above max.message.bytes would be stored, or would take the connection with it."""
        topic = fresh("oversize")
        with self.assertRaises(MessageSizeTooLargeError):
            self.play(self.send(topic, [{"value": LARGE + LARGE, "partition": 0}], max_request_size=3_000_000))
        (row,) = self.play(self.send(topic, [{"value": b"after", "partition": 0}]))
        self.assertEqual(row.offset, 0)

    def test_admin(self) -> None:
        """If this failed, topics could not be made and deleted, or an illegal name would be taken."""
        topic = fresh("life")

        async def life() -> list[int]:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.cluster.bootstrap)
            await admin.start()
            try:
                await admin.create_topics([NewTopic(topic, 2, 3)])
                wait_for_topic(self.cluster, topic)
                rows = await admin.describe_topics([topic])
                self.assertEqual(len(rows[0]["partitions"]), 2)
                await admin.delete_topics([topic])
                answers = [await admin.create_topics([NewTopic(name, 1, 3)]) for name in ILLEGAL_NAMES]
                return [answer.topic_errors[0][1] for answer in answers]
            finally:
                await admin.close()

        self.assertEqual(self.play(life()), [InvalidTopicError.errno] * len(ILLEGAL_NAMES))
        eventually(f"{topic} gone", lambda: is_gone(self.cluster, topic))
