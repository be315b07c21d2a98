"""What the storage tests share: a simulated disk that can stop at any operation, and a log built from a script."""

from __future__ import annotations

import random
from collections.abc import Callable

from nebula.model import START, Position, Voter
from nebula.records.batch import read_header, stamp
from nebula.records.control import marker, voters_batch
from nebula.records.entries import DATA, MARKER, VOTERS, Entry
from nebula.records.record import build_batch
from nebula.records.start import StartRecord
from nebula.storage import NebulaLog
from nebula.testing.disk import SimulatedDisk

PATH = "/n1/partitions/t-0"
VOTER = Voter("n1", "disk-n1")


class PowerCut(Exception):  # nobody's error: the machine is gone
    """The machine stops here; nothing but the test may catch it."""


class StoppableDisk(SimulatedDisk):
    """Stops at the operation numbered `stop_at`, before it is done."""

    def __init__(self, sync_dirs: bool = True) -> None:
        super().__init__(sync_dirs)
        self.count = 0
        self.stop_at = -1
        self.fail: Callable[[str], None] = lambda kind: None

    def operation(self, kind: str) -> None:
        super().operation(kind)
        self.count += 1
        if self.count == self.stop_at:
            raise PowerCut(kind)
        self.fail(kind)

    def damage(self, path: str, at: int) -> None:
        """Bit rot: flip a bit in what is seen and in what is durable."""
        inode = self._seen[path]
        for image in (inode.seen, inode.durable):
            if at < len(image):
                image[at] ^= 1

    def files(self, suffix: str = ".log") -> list[str]:
        return sorted(path for path in self._seen if path.startswith(PATH) and path.endswith(suffix))


def mark(term: int, place: Position) -> Entry:
    return Entry(Position(term, place.offset), marker(term, place.offset, 0), MARKER)


def data(place: Position, count: int = 1, size: int = 10, time_ms: int = 0, tag: bytes = b"v") -> Entry:
    batch = build_batch([(None, tag * size, (), time_ms)] * count)
    stamp(batch, place.offset, place.term)
    return Entry(Position(place.term, place.offset + count), batch, DATA)


def voters(place: Position, *names: str) -> Entry:
    batch = voters_batch(tuple(Voter(n, "i") for n in names), (), 0)
    stamp(batch, place.offset, place.term)
    return Entry(Position(place.term, place.offset + 1), batch, VOTERS)


def start_at(place: Position = START, terms: tuple[tuple[int, int], ...] = ()) -> StartRecord:
    return StartRecord(place, terms, (VOTER,), (), b"producers", b"")


def create(disk: SimulatedDisk, segment_bytes: int = 600, start: StartRecord | None = None) -> NebulaLog:
    disk.makedirs("/n1/partitions")
    NebulaLog.create(disk, PATH, start or start_at())
    return reopen(disk, segment_bytes)


def reopen(disk: SimulatedDisk, segment_bytes: int = 600, verify: bool = False) -> NebulaLog:
    return NebulaLog.open(disk, PATH, segment_bytes=segment_bytes, verify=verify)


def settle(log: NebulaLog, commit: bool = True) -> None:
    """A sync round over all that was written."""
    for file in log.dirty_files():
        file.sync()
    log.synced(log.end(), log.end() if commit else START)


def fill(log: NebulaLog, count: int = 20, term: int = 1, size: int = 60) -> list[Entry]:
    """A marker, if the term is new, and `count` batches, each durable and committed."""
    entries = []
    for number in range(count + 1):
        place = log.end()
        if number == 0 and place.term == term:
            continue
        entry = mark(term, place) if number == 0 else data(place, 1 + number % 3, size, number, b"%d" % (number % 10))
        log.append([entry])
        settle(log)
        entries.append(entry)
    return entries


def content(log: NebulaLog) -> bytes:
    """All that Raft can read."""
    chunks, place = [], log.start()
    while place < log.end():
        run = log.read(place, 300)
        assert run.end > place and run.size == sum(map(len, run.chunks))
        chunks += [bytes(chunk) for chunk in run.chunks]
        place = run.end
    return b"".join(chunks)


def joined(entries: list[Entry]) -> bytes:
    return b"".join(bytes(entry.data) for entry in entries)


def records(log: NebulaLog) -> list[int]:
    """Offsets of all batches that a consumer is given, one read after the other."""
    found, offset = [], log.log_start
    while chunks := log.read_records_at(offset, 1, log.end().offset):
        assert len(chunks) == 1
        header = read_header(chunks[0])
        assert header.size == len(chunks[0]) and not header.is_marker and header.end_offset > offset
        found.append(header.base_offset)
        offset = header.end_offset
    return found


def crash(disk: SimulatedDisk, seed: int) -> NebulaLog:
    disk.crash(random.Random(seed))
    return reopen(disk)
