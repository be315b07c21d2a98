"""The longest silence of acknowledgements around kill -9 of the leader: median and worst of several runs.

    python benchmarks/failover.py [--runs 20]

A client nobody here wrote (confluent-kafka, idempotent, acks=all) publishes one record every 5 ms. Two seconds in, the
partition's leader is killed; the client goes on for three more seconds. Then everything is read back: nothing that was
acknowledged may be missing, doubled or out of order. The dead node is started again before the next run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from nebula.testing.processes import ProcessCluster

PERIOD_S = 0.005
BEFORE_S, AFTER_S = 2.0, 3.0


class Run:
    """One kill."""

    def __init__(self, cluster: ProcessCluster, topic: str) -> None:
        self.cluster = cluster
        self.topic = topic
        self.acked: list[tuple[float, int, int]] = []
        """(when, offset, number) of every acknowledgement."""
        self.producer = Producer({
            "bootstrap.servers": cluster.bootstrap, "enable.idempotence": True, "linger.ms": 0, "log_level": 0,
            "retry.backoff.ms": 20, "retry.backoff.max.ms": 100, "topic.metadata.refresh.fast.interval.ms": 20,
            "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100,
        })  # fmt: skip

    def silence_s(self) -> float:
        """Publish, kill, publish on: the longest time between two acknowledgements."""
        victim = self.cluster.leader_of(self.topic, 0)
        began = due = time.monotonic()
        sent, killed = 0, False
        while time.monotonic() < began + BEFORE_S + AFTER_S:
            if not killed and time.monotonic() > began + BEFORE_S:
                self.cluster.kill(victim)
                killed = True
            self.producer.produce(self.topic, b"%d" % sent, partition=0, on_delivery=self._delivered(sent))
            sent += 1
            due += PERIOD_S
            self.producer.poll(max(0.0, due - time.monotonic()))
        if self.producer.flush(30) or len(self.acked) != sent:
            raise SystemExit(f"{sent - len(self.acked)} of {sent} records were never acknowledged")
        self.cluster.restart(victim)
        self._check(sent)
        times = sorted(when for when, _, _ in self.acked)
        return max(b - a for a, b in pairwise(times) if a > began + BEFORE_S / 2)

    def _delivered(self, number: int) -> Any:
        def done(error: Any, message: Any) -> None:
            if error is None:
                self.acked.append((time.monotonic(), message.offset(), number))

        return done

    def _check(self, sent: int) -> None:
        """:raises SystemExit: an acknowledged record is not where it was acknowledged, or there is one too many."""
        consumer = Consumer({
            "bootstrap.servers": self.cluster.bootstrap, "group.id": "check", "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "log_level": 0,
        })  # fmt: skip
        consumer.assign([TopicPartition(self.topic, 0, 0)])
        found: list[bytes] = []
        deadline = time.monotonic() + 30
        while len(found) < sent and time.monotonic() < deadline:
            found += [message.value() for message in consumer.consume(1000, 0.2) if message.error() is None]
        _, high = consumer.get_watermark_offsets(TopicPartition(self.topic, 0), timeout=10)
        consumer.close()
        wrong = [number for _, offset, number in self.acked if found[offset : offset + 1] != [b"%d" % number]]
        if wrong or high != sent:
            raise SystemExit(f"{len(wrong)} acknowledged records are not where they were, {high - sent} are too many")


def main() -> None:
    """Run and report."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=20)
    runs = options.parse_args().runs
    silences = []
    with ProcessCluster(3) as cluster:
        for number in range(runs):
            topic = f"failover{number}"
            cluster.leader_of(topic, 0)
            silences.append(Run(cluster, topic).silence_s())
            print(f"run {number + 1:2d}: {silences[-1] * 1000:5.0f} ms", flush=True)
    print(f"longest silence, {runs} runs: median {statistics.median(silences):.3f} s, worst {max(silences):.3f} s")


if __name__ == "__main__":
    main()
