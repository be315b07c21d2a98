"""NebulaLog: a partition's segments as one log; also the Raft log.

What each crash leaves behind, and what recovery makes of it:

* in the middle of an append: a torn tail. Everything behind the last whole batch that continues the chain was never
  acknowledged by this node and is cut, durably, before anything new is written;
* in the middle of a roll: the sealed segment was synced before its successor was created, so only the last segment can
  have a torn tail. Damage in any other one is bit rot: the log ends there, `quarantine` says how far it reached, and
  Raft neither campaigns nor votes until a leader has brought the log back to that place;
* in the middle of a reset or a deletion: the start file was replaced first; segments before it are leftovers.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from nebula.model import Buffer, Offset, Position, StorageFailed, Term, Voter
from nebula.records.batch import Header, read_header
from nebula.records.control import read_voters
from nebula.records.entries import MARKER, VOTERS, Entry, Run
from nebula.records.record import read_records
from nebula.records.start import StartRecord
from nebula.storage.disk import Disk, File
from nebula.storage.segment import Segment

Config = tuple[Position, tuple[Voter, ...], tuple[Voter, ...]]
SEGMENT_BYTES = 8 << 20


class NebulaLog:
    """An open log. Not thread-safe; the partition's drain is its only writer."""

    def __init__(self, disk: Disk, path: str, start: StartRecord, segment_bytes: int) -> None:
        self._disk = disk
        self._path = path
        self._start = start
        self.segment_bytes = segment_bytes
        self.quarantine: Position | None = None
        self._segments: list[Segment] = []
        self._terms: list[tuple[Term, Offset]] = list(start.terms)
        self._configs: list[Config] = [(start.position, start.voters, start.learners)]
        self._dirty: dict[int, File] = {}

    # ── opening ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def create(cls, disk: Disk, path: str, start: StartRecord) -> None:
        """Make an empty log that begins at the start record's position; durable when this returns."""
        disk.makedirs(path)
        disk.replace_file(f"{path}/start", start.encode())
        disk.sync_dir(path.rpartition("/")[0])

    @classmethod
    def open(cls, disk: Disk, path: str, *, segment_bytes: int = SEGMENT_BYTES) -> NebulaLog:
        """Open and recover. :raises DecodeError: the start file is damaged (nothing is deleted because of it)."""
        start = StartRecord.decode(disk.read_file(f"{path}/start"))
        log = cls(disk, path, start, segment_bytes)
        log._recover()
        return log

    def _recover(self) -> None:
        if self._disk.exists(f"{self._path}/quarantine"):
            self.quarantine = Position(*json.loads(self._disk.read_file(f"{self._path}/quarantine")))
        bases = [b for b in Segment.bases(self._disk, self._path)]
        kept = [b for i, b in enumerate(bases) if i + 1 == len(bases) or bases[i + 1] > self._start.position]
        kept = kept if kept and (kept[-1] >= self._start.position or self._reaches(kept[-1])) else []
        for base in bases:
            if base not in kept:
                Segment(self._disk, self._path, base).remove()
        for index, base in enumerate(kept):
            if not self._recover_segment(base, last=index + 1 == len(kept)):
                for lost in kept[index + 1 :]:
                    Segment(self._disk, self._path, lost).remove()
                break
        if not self._segments:
            self._segments.append(Segment(self._disk, self._path, self._start.position, create=True))
        self._disk.sync_dir(self._path)
        self._relearn()

    def _reaches(self, base: Position) -> bool:
        segment = Segment(self._disk, self._path, base)
        segment.scan()
        segment.file.close()
        return segment.end >= self._start.position

    def _recover_segment(self, base: Position, last: bool) -> bool:
        """Open one segment; False when the log must end in it although others follow."""
        if self._segments and self._segments[-1].end != base:
            self._suspect(base)
            Segment(self._disk, self._path, base).remove()
            return False
        segment = Segment(self._disk, self._path, base)
        if last or not segment.load_index():
            segment.scan()
        self._segments.append(segment)
        if last:
            # What lies behind the chain's end was never acknowledged; make sure it cannot come back.
            segment.file.truncate(segment.size)
            segment.file.sync()
        return True

    def _suspect(self, place: Position) -> None:
        """Synced bytes before `place` are damaged: say so durably before anything is cut."""
        self.quarantine = max(self.quarantine or place, place)
        self._disk.replace_file(f"{self._path}/quarantine", json.dumps(self.quarantine).encode())

    def _relearn(self) -> None:
        """Terms and memberships from the start record and the segments."""
        self._terms = list(self._start.terms)
        self._configs = [(self._start.position, self._start.voters, self._start.learners)]
        for segment in self._segments:
            self._terms += [t for t in segment.terms if Position(*t) > self._start.position]
            for end, at, size in segment.config_at:
                if end > self._start.position:
                    self._configs.append((end, *read_voters(segment.file.pread(size, at))))

    # ── Raft's view ─────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> Position:
        return self._start.position

    def start_record(self) -> StartRecord:
        return self._start

    def end(self) -> Position:
        return max(self._segments[-1].end, self._start.position)

    def configs(self) -> list[Config]:
        return list(self._configs)

    def _range(self, term: Term) -> tuple[Offset, Offset] | None:
        """Closed range of offsets that are places of `term`."""
        index = bisect_right(self._terms, (term, 1 << 62)) - 1
        if index < 0 or self._terms[index][0] != term:
            return None
        high = self._terms[index + 1][1] if index + 1 < len(self._terms) else self.end().offset
        return self._terms[index][1], high

    def contains(self, place: Position) -> bool:
        """Is `place` a boundary of this log? (AppendEntries' consistency check.)"""
        if place == self.start():
            return True
        found = self._range(place.term)
        return found is not None and found[0] <= place.offset <= found[1] and self.start() <= place <= self.end()

    def last_in_term(self, term: Term) -> Position:
        """Where `term`, or the nearest earlier term that is here, ends."""
        index = bisect_right(self._terms, (term, 1 << 62)) - 1
        if index < 0:
            return self.start()
        have = self._terms[index][0]
        found = self._range(have)
        assert found is not None
        return max(Position(have, found[1]), self.start())

    def read(self, place: Position, max_bytes: int) -> Run:
        """Whole batches behind `place`, from one segment."""
        segment = self._segment_at(place)
        at = segment.locate(place)
        size, end = 0, place
        for found in segment.walk(at, place):
            if size and size + found.size > max_bytes:
                break
            size, end = size + found.size, found.end
        return Run((segment.file.pread(size, at),) if size else (), end, size)

    def _segment_at(self, place: Position) -> Segment:
        """The segment that holds the batch behind `place`."""
        index = bisect_right(self._segments, place, key=lambda s: s.base) - 1
        return self._segments[max(0, index)]

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def append(self, entries: Sequence[Entry]) -> None:
        """Write, from the very buffers given; durable only when `dirty_files` have been synced."""
        group: list[Entry] = []
        size = 0
        for entry in entries:
            room = self.segment_bytes - self._segments[-1].size - size
            if len(entry.data) > room and (self._segments[-1].size or group):
                self._write(group)
                group, size = [], 0
                self._roll()
            group.append(entry)
            size += len(entry.data)
        self._write(group)

    def _write(self, entries: list[Entry]) -> None:
        if not entries:
            return
        segment = self._segments[-1]
        segment.file.pwritev([entry.data for entry in entries], segment.size)
        for entry in entries:
            newest = -1 if entry.kind == MARKER else int.from_bytes(entry.data[35:43], "big", signed=True)
            segment.note(entry.end, len(entry.data), newest, entry.kind == MARKER, entry.kind == VOTERS)
            if entry.kind == MARKER:
                self._terms.append((entry.end.term, entry.end.offset))
            elif entry.kind == VOTERS:
                self._configs.append((entry.end, *read_voters(entry.data)))
        self._dirty[id(segment.file)] = segment.file

    def _roll(self) -> None:
        """Seal, sync, then begin the next file: so only the last segment can ever be torn."""
        full = self._segments[-1]
        full.seal()
        self._dirty.pop(id(full.file), None)
        segment = Segment(self._disk, self._path, full.end, create=True)
        segment.file.prepare(self.segment_bytes)
        segment.file.sync()
        self._disk.sync_dir(self._path)  # crash before this: the file, and all acknowledged in it, would be gone
        self._segments.append(segment)

    def dirty_files(self) -> list[File]:
        """Files with writes that no sync round covers yet; the caller syncs them."""
        files = list(self._dirty.values())
        self._dirty.clear()
        return files

    def synced(self, end: Position, commit: Position) -> None:
        """A sync round that covers `end` is done."""
        if self.quarantine is not None and end >= self.quarantine:
            self.quarantine = None
            self._disk.unlink(f"{self._path}/quarantine")

    def truncate(self, place: Position) -> None:
        """Give up everything behind `place`; durable when this returns. Also cuts terms and memberships."""
        if not self.contains(place):
            raise StorageFailed(f"cannot truncate to {place}: not in this log")
        while len(self._segments) > 1 and self._segments[-1].base >= place:
            self._segments.pop().remove()
            self._disk.sync_dir(self._path)
        self._segments[-1].cut(place)
        self._dirty.clear()
        self._relearn()

    def reset(self, start: StartRecord) -> None:
        """Start over from a leader's start record: atomic, whatever a crash interrupts."""
        self._disk.replace_file(f"{self._path}/start", start.encode())
        for segment in self._segments:
            segment.remove()
        self._start, self._segments, self._dirty = start, [], {}
        self._segments.append(Segment(self._disk, self._path, start.position, create=True))
        self._disk.sync_dir(self._path)
        self._relearn()

    def delete_before(self, start: StartRecord) -> None:
        """Make `start` durable, then drop the segments that lie wholly before it."""
        self._disk.replace_file(f"{self._path}/start", start.encode())
        self._start = start
        while len(self._segments) > 1 and self._segments[0].end <= start.position:
            self._segments.pop(0).remove()
        self._relearn()

    def checkpoint(self) -> None:
        """Nothing to do between rolls: sealed segments have their index, the last one is scanned at the next start."""

    def close(self) -> None:
        """Sync and close; a clean stop leaves nothing to recover."""
        for file in self.dirty_files():
            file.sync()
        for segment in self._segments:
            segment.file.close()

    # ── reading for clients ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def log_start(self) -> Offset:
        return self._start.position.offset

    @property
    def size_bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    def start_producers(self) -> bytes:
        """Producer state at the log's start."""
        return self._start.producers

    def _from(self, offset: Offset) -> int:
        """Index of the first segment that may hold `offset`: the last that begins before it."""
        return max(0, bisect_left(self._segments, offset, key=lambda s: s.base.offset) - 1)

    def read_records_at(self, offset: Offset, max_bytes: int, below: Offset) -> list[Buffer]:
        """Whole batches from the one that holds `offset`, all below `below`; a read stops before a marker."""
        for segment in self._segments[self._from(offset) :]:
            at = size = 0
            for found in segment.holding(offset):
                if found.end.offset > below or found.end.term > found.before.term:
                    if size or found.end.offset > below:
                        break
                    continue
                if size and size + found.size > max_bytes:
                    break
                at, size = (at, size + found.size) if size else (found.at, found.size)
            if size:
                return [segment.file.pread(size, at)]
        return []

    def headers_from(self, offset: Offset) -> Iterator[Header]:
        """Headers of the batches from the one that holds `offset` on."""
        for segment in self._segments[self._from(offset) :]:
            for found in segment.holding(offset):
                yield read_header(segment.file.pread(61, found.at))

    def offset_for_time(self, timestamp_ms: int) -> tuple[int, Offset] | None:
        """(timestamp, offset) of the first record at or after `timestamp_ms` (gotcha 21)."""
        for segment in self._segments:
            if segment.newest_ms < timestamp_ms:
                continue
            index = max(0, bisect_right(segment.marks, timestamp_ms - 1, key=lambda m: m.newest_ms) - 1)
            for found in segment.walk(segment.marks[index].at, segment.marks[index].place):
                if found.max_timestamp >= timestamp_ms and not found.attributes & 0x20:
                    for record in read_records(segment.file.pread(found.size, found.at)):
                        if record.timestamp >= timestamp_ms and record.offset >= self.log_start:
                            return record.timestamp, record.offset
        return None

    def max_timestamp(self) -> tuple[int, Offset] | None:
        """(timestamp, offset) of the newest record by time."""
        newest = max((s.newest_ms for s in self._segments), default=-1)
        return self.offset_for_time(newest) if newest >= 0 else None

    def epoch_end(self, term: Term) -> tuple[Term, Offset]:
        """(the largest term <= `term` that is here, where its records end); (-1, -1) when none (KIP-101)."""
        index = bisect_right(self._terms, (term, 1 << 62)) - 1
        if index < 0:
            return -1, -1
        found = self._range(self._terms[index][0])
        assert found is not None
        return self._terms[index][0], found[1]

    def term_at(self, offset: Offset) -> Term:
        """Term of the record at `offset`: the latest that starts at or before it."""
        index = bisect_right(self._terms, offset, key=lambda t: t[1]) - 1
        return self._terms[index][0] if index >= 0 else self._start.position.term
