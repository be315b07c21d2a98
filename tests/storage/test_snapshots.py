"""Snapshots beside a log: a cache that is believed only about places the log holds."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nebula.model import Position
from nebula.storage.layout import Layout
from nebula.storage.snapshots import Snapshots
from nebula.testing.disk import SimulatedDisk


def everything(_place: Position) -> bool:
    return True


class SnapshotTests(SynchronousTestCase):
    """Two files on a simulated disk."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk()
        self.disk.makedirs("/d/p")
        self.snapshots = Snapshots(self.disk, Layout("/d/p"))

    def test_the_newest_that_is_believed(self) -> None:
        """Broken: after a crash a state is believed that speaks of batches the log has lost."""
        for offset in (5, 9, 12):
            self.snapshots.save(Position(1, offset), b"state %d" % offset)
        again = Snapshots(self.disk, Layout("/d/p"))
        self.assertEqual(again.newest(everything), (Position(1, 12), b"state 12"))
        self.assertEqual(again.newest(lambda place: place.offset < 12), (Position(1, 9), b"state 9"))
        self.assertIsNone(again.newest(lambda place: place.offset < 9))

    def test_the_believed_one_is_not_written_over(self) -> None:
        """Broken: a crash during the next save would leave none of the two."""
        self.snapshots.save(Position(1, 5), b"five")
        self.snapshots.save(Position(2, 9), b"nine")
        again = Snapshots(self.disk, Layout("/d/p"))
        again.newest(lambda place: place.term == 1)
        again.save(Position(1, 7), b"seven")
        self.assertEqual(again.newest(lambda place: place.offset < 7), (Position(1, 5), b"five"))

    def test_torn_files_are_no_snapshots(self) -> None:
        """Broken: half a file is decoded as state, or keeps the partition from opening."""
        self.snapshots.save(Position(1, 5), b"a state of some length")
        for size in range(40):
            self.disk.open("/d/p/snapshot-0").truncate(size)
            self.assertIsNone(self.snapshots.newest(everything))
