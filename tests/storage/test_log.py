"""NebulaLog: append, read, truncate, recover; what crashes leave behind."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from nebula.model import START, Position
from nebula.records import control
from nebula.records.batch import stamp, walk
from nebula.records.entries import DATA, MARKER, Entry
from nebula.records.record import build_batch
from nebula.records.start import StartRecord
from nebula.storage import BallotJournal, NebulaLog
from nebula.testing.disk import SimulatedDisk

PATH = "/d/partitions/p"


def fresh(disk: SimulatedDisk, segment_bytes: int = 1000) -> NebulaLog:
    NebulaLog.create(disk, PATH, StartRecord(START, (), (), (), b"", b""))
    return NebulaLog.open(disk, PATH, segment_bytes=segment_bytes)


def batch(offset: int, term: int = 1, records: int = 1, time: int = 0) -> Entry:
    data = build_batch([(None, b"v%d" % (offset + i) * 10, (), time + i) for i in range(records)])
    stamp(data, offset, term)
    return Entry(Position(term, offset + records), data, DATA)


def marker(offset: int, term: int) -> Entry:
    return Entry(Position(term, offset), control.marker(term, offset, 0), MARKER)


def fill(log: NebulaLog, count: int = 40, term: int = 1) -> None:
    start = log.end().offset
    log.append([marker(start, term)])
    for offset in range(start, start + count):
        log.append([batch(offset, term, time=offset)])


def sync(log: NebulaLog) -> None:
    for file in log.dirty_files():
        file.sync()


class LogTests(SynchronousTestCase):
    """A log that nothing happens to."""

    def test_positions(self) -> None:
        """If this failed, Raft's consistency check would accept or refuse the wrong places."""
        log = fresh(SimulatedDisk())
        fill(log, 5, 1)
        log.append([marker(5, 4)])
        fill(log, 2, 6)
        for place in (START, Position(1, 0), Position(1, 5), Position(4, 5), Position(6, 7)):
            self.assertTrue(log.contains(place), place)
        for place in (Position(2, 5), Position(4, 6), Position(6, 4), Position(6, 8), Position(1, 6)):
            self.assertFalse(log.contains(place), place)
        self.assertEqual([log.last_in_term(t) for t in (0, 1, 3, 5, 9)],
                         [START, Position(1, 5), Position(1, 5), Position(4, 5), Position(6, 7)])  # fmt: skip
        self.assertEqual([log.epoch_end(t) for t in (1, 5, 6)], [(1, 5), (4, 5), (6, 7)])

    def test_reads_across_segments_never_show_a_marker(self) -> None:
        """If this failed, a consumer would stall on, or be sent, a batch that covers no offset (gotcha 20)."""
        log = fresh(SimulatedDisk(), 600)
        for term in (1, 2, 3):
            fill(log, 10, term)
        seen, offset = [], 0
        while chunks := log.read_records_at(offset, 300, 30):
            for chunk in chunks:
                for _, header in walk(chunk):
                    self.assertFalse(header.is_marker)
                    seen.append(header.base_offset)
                    offset = header.end_offset
        self.assertEqual(seen, list(range(30)))

    def test_by_time(self) -> None:
        """If this failed, consuming from a time would begin one record off (gotcha 21)."""
        log = fresh(SimulatedDisk(), 700)
        fill(log, 30)
        self.assertEqual(log.offset_for_time(17), (17, 17))
        self.assertEqual(log.offset_for_time(0), (0, 0))
        self.assertIsNone(log.offset_for_time(30))
        self.assertEqual(log.max_timestamp(), (29, 29))

    def test_the_given_buffers_are_written(self) -> None:
        """If this failed, every record byte would be copied on its way to the disk."""
        log = fresh(SimulatedDisk())
        log.append([marker(0, 1)])
        entry, given = batch(0), []
        log._active.file.pwritev = lambda buffers, at: given.extend(buffers) or 0  # type: ignore
        log.append([entry])
        self.assertIs(given[0], entry.data)

    def test_raft_reads_back_what_was_appended(self) -> None:
        """If this failed, a follower that is fed from disk would get other bytes than the leader has."""
        log = fresh(SimulatedDisk(), 600)
        fill(log, 30)
        place, data = START, b""
        while place < log.end():
            run = log.read(place, 250)
            data += b"".join(map(bytes, run.chunks))
            place = run.end
        self.assertEqual(data, b"".join(log._view(n).file.pread(s.size, 0) for n, s in enumerate(log._segments)))


class CrashTests(SynchronousTestCase):
    """What was synced is there, whatever was not."""

    def test_synced_records_survive_and_torn_tails_move_no_offset(self) -> None:
        """If this failed, a power cut would lose acknowledged records, or renumber the ones that come after."""
        for seed in range(150):
            rng, disk = random.Random(seed), SimulatedDisk()
            log = fresh(disk, rng.choice([500, 2000]))
            fill(log, rng.randrange(1, 40))
            sync(log)
            kept = log.end()
            for _ in range(rng.randrange(5)):
                log.append([batch(log.end().offset, records=rng.randrange(1, 4))])
            disk.crash(rng)
            again = NebulaLog.open(disk, PATH, segment_bytes=2000)
            self.assertGreaterEqual(again.end(), kept, seed)
            self.assertTrue(again.contains(kept))
            self.assertIsNone(again.quarantine)
            again.append([batch(again.end().offset)])
            numbers = [h.base_offset for h in again.headers_from(0)]
            self.assertEqual(numbers, sorted(numbers))

    def test_truncation_is_final(self) -> None:
        """If this failed, entries that a newer leader replaced could come back after a crash."""
        disk = SimulatedDisk()
        log = fresh(disk, 600)
        fill(log, 30)
        sync(log)
        log.truncate(Position(1, 7))
        disk.crash(random.Random(1))
        self.assertEqual(NebulaLog.open(disk, PATH).end(), Position(1, 7))

    def test_rot_in_a_sealed_segment_is_no_torn_tail(self) -> None:
        """If this failed, a node with damaged records could help to elect a leader that lacks them (rule 4)."""
        disk = SimulatedDisk()
        log = fresh(disk, 600)
        fill(log, 30)
        sync(log)
        log._view(0).file.inode.seen[100] ^= 1  # type: ignore[attr-defined]
        log.synced(log.end(), log.end())
        again = NebulaLog.open(disk, PATH, verify=True)
        assert again.quarantine is not None
        self.assertGreater(again.quarantine, again.end())
        self.assertEqual(NebulaLog.open(disk, PATH).quarantine, again.quarantine)

    def test_a_damaged_index_is_rebuilt(self) -> None:
        """If this failed, a cache would be believed over the log."""
        disk = SimulatedDisk()
        log = fresh(disk, 600)
        fill(log, 30)
        log.close()
        for name in disk.listdir(PATH):
            if name.endswith(".index"):
                disk.replace_file(f"{PATH}/{name}", b"garbage")
        again = NebulaLog.open(disk, PATH)
        self.assertEqual((again.end(), again.quarantine), (log.end(), None))
        self.assertEqual(again.offset_for_time(17), (17, 17))

    def test_reset_is_atomic(self) -> None:
        """If this failed, a crash while a follower starts over would leave two histories in one log."""
        disk = SimulatedDisk()
        log = fresh(disk, 600)
        fill(log, 30)
        log.reset(StartRecord(Position(5, 100), ((1, 0), (5, 90)), (), (), b"", b""))
        disk.crash(random.Random(3))
        again = NebulaLog.open(disk, PATH)
        self.assertEqual((again.start(), again.end()), (Position(5, 100), Position(5, 100)))

    def test_ballots_survive(self) -> None:
        """If this failed, a voter could vote twice in one term after a crash."""
        disk = SimulatedDisk()
        journal = BallotJournal.open(disk, "/d")
        journal.append([(1, 5, None)])
        journal.file.sync()
        journal.append([(1, 6, None)])
        disk.crash(random.Random(0))
        self.assertIn(BallotJournal.open(disk, "/d").ballots[1][0], (5, 6))
