"""The log as Raft and consumers see it, against a list of entries."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from nebula.model import START, Buffer, InvariantBroken, Position, Voter
from nebula.records.batch import read_header, walk
from nebula.records.entries import DATA, MARKER, VOTERS, Entry
from nebula.storage import NebulaLog, UnsafePath, partition_directory
from nebula.testing.disk import SimulatedFile
from tests.storage.world import (
    VOTER,
    StoppableDisk,
    content,
    create,
    data,
    fill,
    joined,
    mark,
    records,
    reopen,
    settle,
    start_at,
    voters,
)


class ReadTests(SynchronousTestCase):
    """Whatever was appended can be read, by position and by offset."""

    def test_empty(self) -> None:
        """A new log would begin elsewhere than at 0@0, and a first record not have offset 0."""
        log = create(StoppableDisk())
        self.assertEqual((log.start(), log.end(), log.configs()), (START, START, [(START, (VOTER,), ())]))
        self.assertTrue(log.contains(START))
        self.assertEqual(log.read(START, 100).chunks, ())
        self.assertEqual(log.read_records_at(0, 100, 0), [])

    def test_all_batches_over_many_segments(self) -> None:
        """Bytes would change, or be lost between two segments."""
        disk = StoppableDisk()
        log = create(disk)
        entries = fill(log)
        self.assertGreater(len(disk.files()), 3)
        self.assertEqual(content(log), joined(entries))
        for size in (1, 61, 150, 1 << 20):
            run = log.read(entries[4].end, size)
            self.assertEqual(bytes(run.chunks[0]), joined(entries)[len(joined(entries[:5])) :][: run.size])

    def test_markers_are_not_served(self) -> None:
        """A consumer would get a batch that covers no offset, and stand still for ever."""
        log = create(StoppableDisk(), 1 << 20)
        log.append(
            [
                mark(1, START),
                data(Position(1, 0)),
                mark(2, Position(1, 1)),
                data(Position(2, 1)),
                mark(3, Position(2, 2)),
            ]
        )
        self.assertEqual([len(records(log)), records(log)], [2, [0, 1]])
        self.assertEqual(
            read_header(log.read_records_at(0, 1 << 20, 2)[0]).size, len(log.read_records_at(0, 1 << 20, 2)[0])
        )
        self.assertEqual(log.read_records_at(2, 1 << 20, 2), [])
        self.assertEqual(log.read_records_at(1, 1 << 20, 1), [])

    def test_read_begins_with_the_batch_that_holds_the_offset(self) -> None:
        """A fetch in the middle of a batch would miss records."""
        log = create(StoppableDisk(), 1 << 20)
        log.append([mark(1, START), data(Position(1, 0), 5), data(Position(1, 5), 5)])
        self.assertEqual(read_header(log.read_records_at(3, 1, 10)[0]).base_offset, 0)
        self.assertEqual(read_header(log.read_records_at(7, 1, 10)[0]).base_offset, 5)
        self.assertEqual(log.read_records_at(7, 1 << 20, 9), [])

    def test_very_buffers_are_written(self) -> None:
        """Record bytes would be copied between the socket and the disk (PERFORMANCE §3.8)."""
        log = create(StoppableDisk(), 1 << 20)
        seen: list[Buffer] = []
        original = SimulatedFile.pwritev

        def spy(file: SimulatedFile, buffers: list[Buffer], at: int) -> int:
            seen.extend(buffers)
            return original(file, buffers, at)

        self.patch(SimulatedFile, "pwritev", spy)
        entries = [mark(1, START), data(Position(1, 0)), data(Position(1, 1))]
        log.append(entries)
        self.assertTrue(all(a is b.data for a, b in zip(seen, entries, strict=True)))

    def test_batch_above_the_segment_size(self) -> None:
        """A large batch would never fit, and the log roll for ever."""
        log = create(StoppableDisk())
        log.append([mark(1, START), data(Position(1, 0), 1, 5000), data(Position(1, 1))])
        self.assertEqual(records(log), [0, 1])

    def test_terms(self) -> None:
        """Conflict resolution and OffsetForLeaderEpoch would answer wrong places."""
        log = create(StoppableDisk())
        log.append([mark(2, START), data(Position(2, 0), 3), mark(5, Position(2, 3)), data(Position(5, 3), 2)])
        self.assertEqual([log.contains(Position(*p)) for p in ((2, 0), (2, 3), (2, 4), (5, 3), (5, 5), (5, 6), (4, 3))],
                         [True, True, False, True, True, False, False])  # fmt: skip
        self.assertEqual([log.last_in_term(t) for t in (1, 2, 4, 5, 9)],
                         [START, Position(2, 3), Position(2, 3), Position(5, 5), Position(5, 5)])  # fmt: skip
        self.assertEqual([log.epoch_end(t) for t in (1, 2, 3, 5, 7)], [(-1, -1), (2, 3), (2, 3), (5, 5), (5, 5)])
        self.assertEqual([log.term_at(o) for o in (0, 2, 3, 4)], [2, 2, 5, 5])

    def test_times(self) -> None:
        """ListOffsets by time would find another record than the first at or after the time."""
        log = create(StoppableDisk())
        log.append([mark(1, START)])
        for number in range(30):
            log.append([data(log.end(), 2, 40, 100 * number)])
        self.assertEqual(log.offset_for_time(0), (0, 0))
        self.assertEqual(log.offset_for_time(1450), (1500, 30))
        self.assertEqual(log.offset_for_time(2900), (2900, 58))
        self.assertIsNone(log.offset_for_time(2901))
        self.assertEqual(log.max_timestamp(), (2900, 58))

    def test_membership(self) -> None:
        """A membership in the log would not act, or outlive its truncation."""
        disk = StoppableDisk()
        log = create(disk)
        log.append([mark(1, START), data(Position(1, 0)), voters(Position(1, 1), "a", "b")])
        wanted = [(START, (VOTER,), ()), (Position(1, 2), (Voter("a", "i"), Voter("b", "i")), ())]
        self.assertEqual(log.configs(), wanted)
        settle(log)
        self.assertEqual(reopen(disk).configs(), wanted)
        log.truncate(Position(1, 1))
        self.assertEqual(log.configs(), wanted[:1])

    def test_headers(self) -> None:
        """Producer state rebuilt at start would miss batches."""
        log = create(StoppableDisk())
        entries = fill(log)
        self.assertEqual(
            [h.end_offset for h in log.headers_from(0) if not h.is_marker], [e.end.offset for e in entries[1:]]
        )

    def test_chain_is_refused_when_broken(self) -> None:
        """A batch that recovery would cut could be acknowledged."""
        log = create(StoppableDisk())
        fill(log, 3)
        self.assertRaises(InvariantBroken, log.append, [data(Position(1, 99))])
        self.assertRaises(InvariantBroken, log.truncate, Position(7, 1))

    def test_descriptors_and_memory(self) -> None:
        """5,000 partitions would need a descriptor for every segment they have."""
        log = create(StoppableDisk())
        fill(log, 60)
        content(log)
        self.assertLessEqual(len(log._sealed._open), log._sealed.LIMIT)
        self.assertEqual(len(log._active.sparse.marks), 1)


class PathTests(SynchronousTestCase):
    """A name from outside stays inside."""

    def test_escape_is_refused(self) -> None:
        """A topic's name could make Nebula write anywhere."""
        for name in ("..", ".", "a/b", "../x", "", "a\0b", "a b", "é", "x" * 256):
            self.assertRaises(UnsafePath, partition_directory, "/d", name)
        for path in ("/d/p/0001-x/../../../etc", "/d/p/..", "/d/p/a\0b", "/d/p/"):
            self.assertRaises(UnsafePath, NebulaLog.open, StoppableDisk(), path)
            self.assertRaises(UnsafePath, NebulaLog.create, StoppableDisk(), path, start_at())
        self.assertEqual(partition_directory("/d", "00000001-a.b_c-0"), "/d/00000001-a.b_c-0")
        NebulaLog.create(StoppableDisk(), "../data/p/t-0", start_at())


class ModelTests(RuleBasedStateMachine):
    """Any sequence of calls leaves what the same calls leave of a list; reopening changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = StoppableDisk()
        self.log = create(self.disk)
        self.entries: list[Entry] = []
        self.start = START
        self.lead()

    def end(self) -> Position:
        return self.entries[-1].end if self.entries else self.start

    @rule()
    def lead(self) -> None:
        entry = mark(self.end().term + 1, self.end())
        self.log.append([entry])
        self.entries.append(entry)

    @precondition(lambda self: self.end().term > 0)
    @rule(counts=st.lists(st.integers(1, 4), min_size=1, max_size=8), size=st.sampled_from([1, 50, 700]))
    def write(self, counts: list[int], size: int) -> None:
        fresh, place = [], self.end()
        for count in counts:
            fresh.append(data(place, count, size, place.offset))
            place = fresh[-1].end
        self.log.append(fresh)
        self.entries += fresh

    @rule()
    def sync(self) -> None:
        settle(self.log)

    @precondition(lambda self: self.entries)
    @rule(choice=st.integers(0, 1 << 20))
    def truncate(self, choice: int) -> None:
        self.entries = self.entries[: choice % (len(self.entries) + 1)]
        self.log.truncate(self.end())

    @precondition(lambda self: self.entries)
    @rule(choice=st.integers(0, 1 << 20))
    def delete(self, choice: int) -> None:
        gone = choice % (len(self.entries) + 1)
        place = self.entries[gone - 1].end if gone else self.start
        terms = tuple((t, o) for t, o in self.log._terms.upto(place))
        self.log.delete_before(start_at(place, terms))
        self.start, self.entries = place, self.entries[gone:]

    @rule(jump=st.integers(1, 9))
    def reset(self, jump: int) -> None:
        self.start, self.entries = Position(self.end().term + 1, max(0, self.end().offset + jump - 5)), []
        self.log.reset(start_at(self.start, ((self.start.term, self.start.offset),)))

    @rule(clean=st.booleans(), verify=st.booleans())
    def reopen(self, clean: bool, verify: bool) -> None:
        if clean:
            settle(self.log)
            self.log.close()
        self.log = reopen(self.disk, verify=verify)

    @invariant()
    def same(self) -> None:
        log = self.log
        assert log.quarantine is None
        assert (log.start(), log.end()) == (self.start, self.end())
        assert content(log) == joined(self.entries)
        batches = [e for e in self.entries if e.kind != MARKER]
        assert records(log) == [read_header(e.data).base_offset for e in batches]
        assert all(log.contains(e.end) for e in self.entries)
        assert not log.contains(Position(self.end().term, self.end().offset + 1))
        for entry in self.entries[:5]:
            wanted = [e.data for e in self.entries if e.end > entry.end]
            assert b"".join(map(bytes, log.read(entry.end, 1).chunks)) == b"".join(map(bytes, wanted[:1]))
        assert {e.kind for e in self.entries} <= {DATA, MARKER, VOTERS}


class StatefulTests(SynchronousTestCase):
    """Hypothesis over `ModelTests`."""

    def test_against_a_list(self) -> None:
        """Some order of append, truncate, delete, reset and reopen would lose or invent entries."""
        case = ModelTests.TestCase("runTest")
        case.settings = settings(max_examples=60, stateful_step_count=25, deadline=None, database=None)
        case.runTest()


class MarkTests(SynchronousTestCase):
    """Reads by the index: from a large log of small batches nobody looks at each of them."""

    def setUp(self) -> None:
        self.log = create(StoppableDisk(), 1 << 20)
        for term in (1, 2, 3, 4):
            self.log.append([mark(term, self.log.end())])
            for _ in range(1500):
                self.log.append([data(self.log.end(), 1, 30)])
        settle(self.log)

    def test_the_same_as_batch_by_batch(self) -> None:
        """Broken: a read by the index skips records, shows a marker, breaks a batch or goes past a limit."""
        rng = random.Random(7)
        for _ in range(300):
            offset, most, below = rng.randrange(6000), rng.choice([1, 5000, 70_000, 200_000, 1 << 20]), 6000
            if rng.random() < 0.5:
                below = rng.randrange(offset, 6000) + 1
            (chunk,) = self.log.read_records_at(offset, most, below)
            headers = [header for _, header in walk(chunk)]
            self.assertEqual([h.base_offset for h in headers], list(range(offset, offset + len(headers))))
            self.assertFalse(any(h.is_marker for h in headers))
            self.assertLessEqual(headers[-1].end_offset, below)
            self.assertTrue(len(chunk) <= most or len(headers) == 1)

    def test_one_read_of_much_is_few_reads_of_the_file(self) -> None:
        """Broken: a megabyte of small batches costs a look at each of ten thousand headers."""
        sizes = []
        pread = SimulatedFile.pread
        self.patch(SimulatedFile, "pread", lambda file, size, at: sizes.append(size) or pread(file, size, at))
        (chunk,) = self.log.read_records_at(100, 130_000, 6000)
        self.assertGreater(len(chunk), 64_000)
        self.assertLessEqual(len(sizes), 4)
        self.assertLess(sum(sizes), len(chunk) + (128 << 10))
