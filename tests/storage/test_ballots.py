"""The ballot journal: a promise that was synced is never forgotten."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from nebula.model import StartRefused, Voter
from nebula.storage import BallotJournal
from nebula.storage import ballots as module
from tests.storage.world import PowerCut, StoppableDisk

A, B = Voter("a", "1"), Voter("b", "2")


class BallotTests(SynchronousTestCase):
    """Append, reopen, tear, compact."""

    def test_newest_wins(self) -> None:
        """A node would vote twice in a term after a restart (scenario 2)."""
        disk = StoppableDisk()
        disk.makedirs("/n")
        journal = BallotJournal.open(disk, "/n")
        journal.append([(0, 1, A), (7, 3, None)])
        journal.append([(7, 3, B)])
        journal.file.sync()
        disk.crash(random.Random(1))
        self.assertEqual(BallotJournal.open(disk, "/n").ballots, {0: (1, A), 7: (3, B)})

    def test_crash_at_every_operation(self) -> None:
        """Some crash would lose a synced ballot, or keep the node from starting."""
        self.patch(module, "COMPACT_ABOVE", 200)
        for stop in range(1, 90):
            for seed in range(4):
                disk = StoppableDisk()
                disk.makedirs("/n")
                disk.stop_at = stop
                synced = 0
                try:
                    journal = BallotJournal.open(disk, "/n")
                    for term in range(1, 20):
                        journal.append([(1, term, A)])
                        journal.file.sync()
                        synced = term
                except PowerCut:
                    pass
                disk.stop_at = -1
                disk.crash(random.Random(seed))
                self.assertGreaterEqual(BallotJournal.open(disk, "/n").ballots.get(1, (0, None))[0], synced)

    def test_torn_tail_is_cut_for_good(self) -> None:
        """What follows a torn record would be unreadable for ever."""
        disk = StoppableDisk()
        disk.makedirs("/n")
        journal = BallotJournal.open(disk, "/n")
        journal.append([(1, 1, A)])
        size = journal.file.size()
        journal.append([(1, 2, A)])
        journal.file.truncate(size + 11)
        journal = BallotJournal.open(disk, "/n")
        journal.append([(1, 3, B)])
        self.assertEqual(BallotJournal.open(disk, "/n").ballots, {1: (3, B)})

    def test_rot_in_the_snapshot_refuses_to_start(self) -> None:
        """A node would forget its votes and give them again."""
        disk = StoppableDisk()
        disk.makedirs("/n")
        BallotJournal.open(disk, "/n").append([(1, 1, A)])
        BallotJournal.open(disk, "/n")
        disk.damage("/n/ballots", 12)
        self.assertRaises(StartRefused, BallotJournal.open, disk, "/n")
        disk.open("/n/ballots").truncate(0)
        self.assertRaises(StartRefused, BallotJournal.open, disk, "/n")

    def test_compaction_bounds_the_file(self) -> None:
        """The journal would grow with every election there ever was."""
        self.patch(module, "COMPACT_ABOVE", 500)
        disk = StoppableDisk()
        disk.makedirs("/n")
        journal = BallotJournal.open(disk, "/n")
        for term in range(500):
            journal.append([(1, term, B)])
        self.assertLess(journal.file.size(), 1200)
        self.assertEqual(BallotJournal.open(disk, "/n").ballots, {1: (499, B)})
