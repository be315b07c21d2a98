"""Kills at the worst moments: the controller's leader, everybody at once, a leader that only sleeps."""

from __future__ import annotations

import os
import signal
from itertools import takewhile
from typing import Any

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from twisted.trial.unittest import SynchronousTestCase

from nebula.records.batch import HEADER_SIZE, read_header
from nebula.testing.processes import ProcessCluster, eventually
from nebula.testing.wireclient import WireClient


def batches(cluster: ProcessCluster, name: str, topic: str, partition: int) -> dict[int, bytes]:
    """The record batches in one replica's segment files, by offset; term markers are left out: they cover none."""
    root = os.path.join(cluster.data_dir(name), "partitions")
    (folder,) = [each for each in os.listdir(root) if each.endswith(f"-{topic}-{partition}")]
    found = {}
    for file in sorted(each for each in os.listdir(os.path.join(root, folder)) if each.endswith(".log")):
        with open(os.path.join(root, folder, file), "rb") as stream:
            data, at = stream.read(), 0
        while len(data) - at >= HEADER_SIZE and data[at + 16] == 2 and at + read_header(data, at).size <= len(data):
            header = read_header(data, at)
            if not header.is_control:
                found[header.base_offset] = data[at : at + header.size]
            at += header.size
    return found


class Load:
    """An idempotent producer with acks=all that remembers what it sent and what was acknowledged, by partition."""

    def __init__(self, cluster: ProcessCluster, topic: str, partitions: int = 1) -> None:
        config: dict[str, Any] = {"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True, "acks": "all"}
        config["linger.ms"] = 1
        # A frozen node keeps its connections open: only this timeout, a minute by default, makes the client look elsewhere.
        config["socket.timeout.ms"] = 3000
        self._producer = Producer({**config, "retry.backoff.ms": 20, "retry.backoff.max.ms": 200, "log_level": 0})
        self._topic = topic
        self.sent: list[list[bytes]] = [[] for _ in range(partitions)]
        self.acked: list[dict[int, bytes]] = [{} for _ in range(partitions)]
        self.errors: list[Any] = []

    def send(self, number: int) -> None:
        """`number` more records to every partition."""
        for _ in range(number):
            for index, sent in enumerate(self.sent):
                value = b"%d:%d" % (index, len(sent))
                sent.append(value)
                self._producer.produce(self._topic, value, partition=index, on_delivery=self._delivered)
            self._producer.poll(0.001)

    def finish(self, seconds: float = 60) -> None:
        """Wait for every answer. :raises AssertionError: some did not come."""
        left = self._producer.flush(seconds)
        if left or self.errors:
            raise AssertionError(f"{left} records unanswered after {seconds} s, errors: {self.errors[:3]}")

    def abandon(self) -> None:
        """Drop what is unanswered: the next test's cluster may have the same ports, and must not get this one's records."""
        self._producer.purge()
        self._producer.flush(5)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.errors.append(error)
        else:
            self.acked[message.partition()][message.offset()] = message.value()


class FailoverTests(SynchronousTestCase):
    """Three nodes."""

    def setUp(self) -> None:
        self.cluster = ProcessCluster(3)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def load(self, topic: str, partitions: int = 1) -> Load:
        load = Load(self.cluster, topic, partitions)
        self.addCleanup(load.abandon)
        return load

    def create(self, topic: str, partitions: int) -> None:
        def created() -> bool:
            admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})
            try:
                admin.create_topics([NewTopic(topic, partitions, 3)])[topic].result(15)
            except KafkaException as error:
                return error.args[0].name() == "TOPIC_ALREADY_EXISTS"
            return True

        eventually(f"{topic} created", created, 40)

    def read(self, topic: str, partition: int, total: int) -> list[tuple[int, bytes]]:
        """All records of a partition, once `total` are there; more would be found too."""
        rows: list[tuple[int, bytes]] = []

        def complete() -> bool:
            with WireClient(self.cluster.client_address(self.cluster.leader_of(topic, partition))) as client:
                row = client.fetch(topic, partition, len(rows))
                rows.extend(row["values"])
            return len(rows) >= total and row["error_code"] == 0 and row["high_watermark"] == len(rows)

        eventually(f"{total} records in {topic}-{partition}", complete, 30)
        return rows

    def check(self, topic: str, load: Load) -> None:
        """Everything sent is there once, in order, at the offset that its acknowledgement named."""
        for index, sent in enumerate(load.sent):
            self.assertEqual(self.read(topic, index, len(sent)), list(enumerate(sent)), f"{topic}-{index}")
            self.assertEqual(load.acked[index], dict(enumerate(sent)), f"{topic}-{index}")

    def replicas_agree(self, topic: str, partition: int, end: int) -> None:
        """Byte for byte up to `end`, on all three disks."""

        def agree() -> bool:
            replicas = [batches(self.cluster, name, topic, partition) for name in self.cluster.names]
            cut = [dict(takewhile(lambda row: row[0] < end, sorted(each.items()))) for each in replicas]
            last = max(cut[0], default=-1)
            complete = last >= 0 and read_header(cut[0][last]).end_offset >= end
            return complete and cut[1] == cut[0] and cut[2] == cut[0]

        eventually(f"byte-equal replicas of {topic}-{partition} up to {end}", agree, 20)

    def test_the_controllers_leader_dies_again_and_again(self) -> None:
        """If this failed, losing group 0's leader would lose records or topics, or leave nobody to make new ones."""
        cluster = self.cluster
        self.create("both", 6)
        load = self.load("both", 6)
        for turn in range(3):
            victim = cluster.controller()
            led = [index for index in range(6) if cluster.leader_of("both", index) == victim]
            load.send(60)
            cluster.kill(victim, signal.SIGKILL)
            load.send(60)
            self.create(f"made-without-{turn}", 1)
            self.assertNotEqual(cluster.controller(), victim)
            load.finish()
            cluster.restart(victim)
            self.assertTrue(cluster.leader_of("both", led[0] if led else 0))
        self.check("both", load)
        for index in range(6):
            self.replicas_agree("both", index, len(load.sent[index]))

    def test_everybody_dies_at_once(self) -> None:
        """If this failed, a promise would rest on a process's memory. (Not on fsync: kill -9 spares the page cache.)"""
        self.create("dark", 3)
        load = self.load("dark", 3)
        load.send(200)
        for process in self.cluster.processes.values():
            process.send_signal(signal.SIGKILL)
        for name in self.cluster.names:
            self.cluster.kill(name)
        promised = [dict(acked) for acked in load.acked]
        for name in self.cluster.names:
            self.cluster.spawn(name)
        for name in self.cluster.names:
            self.cluster.wait_ready(name)
        load.send(50)
        load.finish()
        self.check("dark", load)
        for before, after in zip(promised, load.acked, strict=True):
            self.assertEqual(before, {offset: after[offset] for offset in before})

    def test_a_leader_that_slept_through_its_end(self) -> None:
        """If this failed, a leader that was paused would go on acknowledging, or keep records that nobody else has."""
        cluster = self.cluster
        self.create("asleep", 1)
        load = self.load("asleep")
        load.send(100)
        load.finish()
        old = cluster.leader_of("asleep", 0)
        cluster.processes[old].send_signal(signal.SIGSTOP)
        awake = next(name for name in cluster.names if name != old)

        def succeeded() -> bool:
            with WireClient(cluster.client_address(awake)) as client:
                answer = client.metadata(["asleep"])
            ports = {broker["node_id"]: broker["port"] for broker in answer["brokers"]}
            leader = answer["topics"][0]["partitions"][0]["leader_id"]
            return leader > 0 and ports[leader] != cluster.client_address(old)[1]

        eventually("a successor", succeeded, 20)
        load.send(100)
        load.finish()
        cluster.processes[old].send_signal(signal.SIGCONT)
        load.send(50)
        load.finish()
        self.check("asleep", load)
        self.replicas_agree("asleep", 0, 250)

    def test_a_follower_killed_under_load_catches_up(self) -> None:
        """If this failed, a restarted follower would hold other bytes than the leader, and might lead with them."""
        self.create("caught", 1)
        load = self.load("caught")
        load.send(200)
        leader = self.cluster.leader_of("caught", 0)
        victim = next(name for name in self.cluster.names if name != leader)
        self.cluster.kill(victim, signal.SIGKILL)
        load.send(200)
        self.cluster.restart(victim)
        load.send(200)
        load.finish()
        self.check("caught", load)
        self.replicas_agree("caught", 0, 600)

    def test_without_a_majority_nothing_is_promised(self) -> None:
        """If this failed, a minority would acknowledge, and its records would vanish when the others return."""
        cluster = self.cluster
        self.create("minority", 1)
        load = self.load("minority")
        load.send(50)
        load.finish()
        leader = cluster.leader_of("minority", 0)
        others = [name for name in cluster.names if name != leader]
        for name in others:
            cluster.kill(name, signal.SIGKILL)
        load.send(20)
        with self.assertRaises(AssertionError):
            load.finish(4)
        self.assertEqual((len(load.acked[0]), load.errors), (50, []))
        for name in others:
            cluster.spawn(name)
        for name in others:
            cluster.wait_ready(name)
        load.finish()
        self.check("minority", load)
