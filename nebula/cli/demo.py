"""`nebula demo`: three real processes, a publisher, a kill -9 of the leader in the middle, and a check of every record.

Every printed figure is measured. Exit code 0 only if everything acknowledged is there once, in order, at the offset it
was acknowledged with; no process is left behind.
"""

from __future__ import annotations

import hashlib
import signal
import time
from dataclasses import dataclass, field

import click

from nebula.testing.processes import ClusterFailed, ProcessCluster, free_base
from nebula.testing.wireclient import WireClient

TOPIC = "stars"
BATCH = 50
PORTS = 5001
RETRIABLE = {3, 5, 6, 7, 19}


@dataclass
class Story:
    """What the demo saw."""

    acked: dict[int, int] = field(default_factory=dict)
    """First record of a batch → its offset."""
    latencies_ms: list[float] = field(default_factory=list)
    silence_s: float = 0.0
    """Longest time between two acknowledgements."""


class Publisher:
    """Publishes numbered records to one partition, idempotently, through any fail-over."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self._cluster = cluster
        self._client: WireClient | None = None
        with cluster.any_client() as client:
            self._producer = client.call(22, 3, {"transactional_id": None, "transaction_timeout_ms": 0})["producer_id"]

    def publish(self, first: int, deadline: float) -> int:
        """One batch from record `first` on; its offset. Tries again, under the same sequence, until `deadline`."""
        records: list[tuple[bytes | None, bytes | None]] = [(None, b"%d" % (first + i)) for i in range(BATCH)]
        ids = {"producer_id": self._producer, "producer_epoch": 0, "base_sequence": first}
        while time.monotonic() < deadline:
            try:
                if self._client is None:
                    leader = self._cluster.leader_of(TOPIC, 0, 10)
                    self._client = WireClient(self._cluster.client_address(leader), 3.0)
                row = self._client.produce(TOPIC, 0, records, **ids)
                if row["error_code"] == 0:
                    return int(row["base_offset"])
                if row["error_code"] not in RETRIABLE:
                    raise ClusterFailed(f"a publish was refused with Kafka's error {row['error_code']}")
            except OSError:
                pass
            self.forget()
            time.sleep(0.01)
        raise ClusterFailed("a publish found no leader in time")

    def forget(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def publish_all(cluster: ProcessCluster, records: int, story: Story) -> str:
    """Publish everything; in the middle, kill -9 the leader. Returns the victim's name."""
    publisher, victim, last = Publisher(cluster), "", 0.0
    for first in range(0, records, BATCH):
        if not victim and first * 2 >= records:
            victim = cluster.leader_of(TOPIC, 0)
            cluster.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        story.acked[first] = publisher.publish(first, began + 30)
        now = time.monotonic()
        story.latencies_ms.append((now - began) * 1000)
        story.silence_s = max(story.silence_s, now - last if last else 0.0)
        last = now
    publisher.forget()
    return victim


def check(cluster: ProcessCluster, story: Story) -> tuple[int, int, int, str]:
    """(records read, lost, doubled, checksum) by reading everything back from the present leader."""
    found: dict[int, list[int]] = {}
    digest, offset = hashlib.sha256(), 0
    total = len(story.acked) * BATCH
    deadline = time.monotonic() + 60
    with WireClient(cluster.client_address(cluster.leader_of(TOPIC, 0))) as client:
        while time.monotonic() < deadline:
            row = client.fetch(TOPIC, 0, offset)
            for at, value in row["values"]:
                found.setdefault(int(value or b"-1"), []).append(at)
                digest.update(value or b"")
                offset = at + 1
            if row["error_code"] == 0 and offset >= row["high_watermark"] >= total:
                break
    lost = sum(1 for f, at in story.acked.items() for i in range(BATCH) if at + i not in found.get(f + i, []))
    doubled = sum(len(places) - 1 for places in found.values())
    return sum(map(len, found.values())), lost, doubled, digest.hexdigest()


def run(records: int, keep: bool, any_port: bool) -> int:
    """The demo; its exit code."""
    records -= records % BATCH
    base = free_base(3) if any_port or (free_base(3) and _taken()) else PORTS
    if base != PORTS and not any_port:
        click.echo(
            "Ports 5001-5003, 6001-6003 or 7001-7003 are taken: stop what has them, or add --any-port.", err=True
        )
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        with ProcessCluster(3, base) as cluster:
            return _tell(cluster, records, keep, time.monotonic() - began)
    except ClusterFailed as failed:
        click.echo(f"nebula demo: {failed}", err=True)
        return 1
    except KeyboardInterrupt:
        click.echo("\nstopped; no process is left behind")
        return 130


def _taken() -> bool:
    from nebula.testing.processes import _is_free

    return not all(_is_free(PORTS + lane + i) for lane in (0, 1000, 2000) for i in range(3))


def _tell(cluster: ProcessCluster, records: int, keep: bool, started_s: float) -> int:
    click.echo(f"  three nodes ready after {started_s:.2f} s")
    click.echo("  NODE  GOSSIP           RAFT             KAFKA            RSS")
    for name in cluster.names:
        port = cluster.port(name)
        places = "  ".join(f"127.0.0.1:{p:<5d}" for p in (port, port + 1000, port + 2000))
        click.echo(f"  {name}    {places}  {_rss_mb(cluster, name)} MB")
    story, began = Story(), time.monotonic()
    victim = publish_all(cluster, records, story)
    seconds = time.monotonic() - began
    ordered = sorted(story.latencies_ms)
    p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    click.echo(
        f"  publish  {records:,} records in batches of {BATCH}: {records / seconds:,.0f} rec/s,"
        f" p50 {p50:.2f} p99 {p99:.2f} ms a batch (majority, fsynced)"
    )
    read, lost, doubled, checksum = check(cluster, story)
    leader = cluster.leader_of(TOPIC, 0)
    click.echo(
        f"  kill -9 {victim}, leader of {TOPIC}-0: {leader} leads; longest silence {story.silence_s * 1000:.0f} ms;"
        f" {lost} acknowledged records lost, {doubled} doubled"
    )
    click.echo(f"  consume  {read:,} of {records:,}, sha256 {checksum[:16]}")
    good = lost == 0 and doubled == 0 and read == records
    click.echo("  the check holds" if good else "  THE CHECK DOES NOT HOLD")
    if keep:
        click.echo(f"  running until Ctrl-C; try: kcat -b {cluster.bootstrap} -L")
        signal.pause()
    return 0 if good else 1


def _rss_mb(cluster: ProcessCluster, name: str) -> int:
    try:
        return cluster.rss_bytes(name) // (1 << 20)
    except OSError:
        return 0
