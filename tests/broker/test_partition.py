"""A partition over a simulated disk, with its drain, alone: what a damaged one costs, and what a start reads."""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nebula.broker.drain import Drain
from nebula.broker.partition import Partition
from nebula.broker.replicas import CHECKPOINT_BYTES, HELD_GROUPS, Replicas
from nebula.model import START, InvariantBroken, Voter
from nebula.raft import Ballot, RaftNode, RaftSettings
from nebula.raft.messages import Heartbeat
from nebula.records.batch import read_header
from nebula.records.record import build_batch
from nebula.records.start import StartRecord
from nebula.storage import BallotJournal, NebulaLog
from nebula.storage.reading import Reading
from nebula.testing.disk import SimulatedDisk

ME = Voter("n1", "i")


class AtOnce:
    """Links to nobody, and sync rounds that end at once."""

    def send(self, to: Voter, group: int, message: Any) -> None:
        raise AssertionError("a cluster of one sends nothing")

    def flush(self) -> None:
        pass

    def request(self, files: Any, nbytes: int, done: Callable[[BaseException | None], None]) -> None:
        for file in files:
            file.sync()
        done(None)


class Logging(AtOnce):
    """Sync rounds like the group commit's: what a call after one raises is logged, and nothing else."""

    def request(self, files: Any, nbytes: int, done: Callable[[BaseException | None], None]) -> None:
        with contextlib.suppress(Exception):
            super().request(files, nbytes, done)


class Node:
    """The parts of a node that one disk holds."""

    def __init__(self, disk: SimulatedDisk, commits: AtOnce | None = None) -> None:
        self.disk = disk
        self.failures: list[BaseException] = []
        disk.makedirs("/d/partitions")
        self.turn: list[Callable[[], None]] = []
        self.broken: list[Partition] = []
        self.ballots = BallotJournal.open(disk, "/d")
        self.drain = Drain(
            AtOnce(), commits or AtOnce(), self.ballots, AtOnce(), self.turn.append, self._failed,
            lambda partition, _error: self.broken.append(partition),
        )  # fmt: skip

    def _failed(self, error: BaseException) -> None:
        self.failures.append(error)
        raise error

    def open(self, group: int, segment_bytes: int = 1 << 20) -> Partition:
        path = f"/d/partitions/{group}"
        if not self.disk.exists(f"{path}/start"):
            NebulaLog.create(self.disk, path, StartRecord(START, (), (ME,), (), b"", b""))
        log = NebulaLog.open(self.disk, path, segment_bytes=segment_bytes)
        term, vote = self.ballots.ballots.get(group, (0, None))
        raft = RaftNode(
            ME, group, log, Ballot(term, vote), random.Random(1), 0.0, RaftSettings(election_timeout=1.0, heartbeat=0.1)
        )
        partition = Partition(group, f"p{group}", raft, log, self.drain)
        partition.tick(100.0)
        self.run()
        return partition

    def run(self) -> None:
        while self.turn:
            self.turn.pop(0)()


def batch(sequence: int) -> bytearray:
    return build_batch([(None, b"v", (), 0)], producer_id=7, producer_epoch=0, base_sequence=sequence)


def failing(*_arguments: Any) -> None:
    """A disk whose fsync fails."""
    raise OSError(errno.EIO, "by this test")


class ReplicasTests(SynchronousTestCase):
    """All replicas of a node."""

    def test_a_checkpoint_off_the_hot_path_that_fails(self) -> None:
        """Broken: as in the hot path; and a stop that meets a dead disk leaves the other logs open."""
        disk = SimulatedDisk()
        node = Node(disk)
        replicas = Replicas(
            ME, disk, "/d", node.ballots, node.drain, random.Random(1), lambda: 0.0,
            RaftSettings(election_timeout=1.0, heartbeat=0.1),
        )  # fmt: skip
        closed: list[NebulaLog] = []
        self.patch(NebulaLog, "close", lambda log: closed.append(log))
        for group in (1, 2):
            partition = replicas.open(group, f"t-{group}", (ME,), None, 1 << 22)
            partition.tick(100.0)
            node.run()
            data = build_batch([(None, b"v" * CHECKPOINT_BYTES, (), 0)])
            self.successResultOf(self.committed(node, partition, data))
        self.patch(SimulatedDisk, "replace_file", failing)
        with self.assertRaises(OSError):
            replicas.checkpoint()
        self.assertEqual([type(error) for error in node.failures], [OSError])
        replicas.close()
        self.assertEqual(len(closed), 2)

    def committed(self, node: Node, partition: Partition, data: bytearray) -> Any:
        done = partition.append(memoryview(data), read_header(data))
        node.run()
        return done

    def test_messages_that_come_before_the_group(self) -> None:
        """Broken: a new topic has no leader for a second, for a vote came before its creation was applied here."""
        disk = SimulatedDisk()
        node = Node(disk)
        settings = RaftSettings(election_timeout=1.0, heartbeat=0.1)
        other = Voter("n2", "i")
        replicas = Replicas(ME, disk, "/d", node.ballots, node.drain, random.Random(1), lambda: 0.0, settings)
        for group in range(1, HELD_GROUPS + 3):
            replicas.step(other, group, Heartbeat(7, START, 0))
        newest = replicas.open(HELD_GROUPS + 2, "t-0", (ME, other), None, 1 << 20)
        self.assertEqual((newest.raft.term, newest.raft.leader), (7, other))
        replicas.step(other, 1, Heartbeat(7, START, 0))
        deleted = replicas.open(1, "t-1", (ME, other), None, 1 << 20)
        self.assertEqual(deleted.raft.term, 0)


class PartitionTests(SynchronousTestCase):
    """Clusters of one."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk()
        self.node = Node(self.disk)

    def publish(self, partition: Partition, sequence: int) -> int:
        data = batch(sequence)
        done = partition.append(memoryview(data), read_header(data))
        self.node.run()
        return self.successResultOf(done)

    def test_a_broken_partition_stops_alone(self) -> None:
        """Broken: one replica's bug or bit rot ends every turn of the node, and so all its partitions."""
        bad, good = self.node.open(1), self.node.open(2)

        def broken(_drain: Drain) -> None:
            raise InvariantBroken("by this test")

        bad.carry_out = broken  # type: ignore[method-assign]
        bad.touch()
        self.assertEqual(self.publish(good, 0), 0)
        self.assertEqual(self.node.broken, [bad])

    def test_a_checkpoint_that_cannot_be_synced_ends_the_node(self) -> None:
        """Broken: a failed fsync is only logged, and the node goes on acknowledging (RELIABILITY rule 3)."""
        self.node = Node(self.disk, Logging())
        partition = self.node.open(1, segment_bytes=200)
        self.patch(SimulatedDisk, "replace_file", failing)
        for sequence in range(4):  # the log rolls, and a rolled log moves its checkpoint after the next sync round
            data = batch(sequence)
            partition.append(memoryview(data), read_header(data)).addErrback(lambda _failure: None)
            self.node.run()
        self.assertEqual([type(error) for error in self.node.failures], [OSError])

    def test_a_start_reads_no_header_before_the_snapshot(self) -> None:
        """Broken: a start takes longer the longer the log is, or forgets a producer and takes its retry twice."""
        partition = self.node.open(1)
        for sequence in range(50):
            self.publish(partition, sequence)
        self.assertTrue(partition.save())
        self.publish(partition, 50)
        seen: list[int] = []
        plain = Reading.headers_from

        def counted(log: Reading, offset: int) -> Any:
            for header in plain(log, offset):
                seen.append(header.base_offset)
                yield header

        self.patch(Reading, "headers_from", counted)
        self.node = Node(self.disk)
        again = self.node.open(1)
        self.assertEqual([offset for offset in seen if offset < 50], [])
        self.assertEqual(self.publish(again, 50), 50)
        self.assertEqual(self.publish(again, 51), 51)

    def test_a_snapshot_of_what_the_disk_lost_is_not_believed(self) -> None:
        """Broken: after a power cut a producer's next batch is refused, for its state is ahead of the log."""
        partition = self.node.open(1)
        self.publish(partition, 0)
        partition.save()
        self.node.drain._commits.request = lambda files, nbytes, done: None  # type: ignore[method-assign]
        data = batch(1)
        partition.append(memoryview(data), read_header(data))
        self.node.run()
        partition.save()
        self.disk.crash(random.Random(3))
        self.node = Node(self.disk)
        again = self.node.open(1)
        following = again.log.end().offset
        self.assertEqual(self.publish(again, following), following)
