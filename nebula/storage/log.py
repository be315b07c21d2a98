"""NebulaLog: a partition's segments as one log; also the Raft log.

Rules:

1. `append` writes and never syncs; `truncate`, `reset` and `delete_before` are durable when they return.
2. What was appended counts as persisted only by `synced`; only that lets the checkpoint move.
3. A segment's name is durable before anything in it can be acknowledged.
4. Damage is never repaired by forgetting: it raises `DamagedLog` and leaves a quarantine file for the next start.

The package's essay says what each kind of crash leaves behind.
"""

from __future__ import annotations

import errno
import json
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from nebula.model import InvalidBatch, InvariantBroken, Offset, Position, Term
from nebula.records.batch import HEADER_SIZE, read_header
from nebula.records.control import read_voters
from nebula.records.entries import DATA, MARKER, VOTERS, Entry, Run
from nebula.records.start import StartRecord
from nebula.storage.checkpoint import Checkpoint, Config, Segment
from nebula.storage.disk import Disk, File
from nebula.storage.index import NO_BATCH, LastBatch, SparseIndex
from nebula.storage.layout import Layout
from nebula.storage.reading import Reading
from nebula.storage.recovery import Recovery
from nebula.storage.segment import (
    DamagedLog,
    Opened,
    Sealed,
    continues,
    prefix,
    remove_files,
    walk,
    whole,
)
from nebula.storage.snapshots import Snapshots
from nebula.storage.start import decode_start, encode_start
from nebula.storage.terms import Terms

SEGMENT_BYTES = 8 << 20
"""A segment rolls when a batch does not fit; one larger batch has a segment of its own."""
CURSORS = 32
"""Places that were just read up to are remembered, so that a reader in sequence does not search; as many readers."""


class NebulaLog(Reading):
    """An open log. Not thread-safe; the partition's drain is its only writer."""

    def __init__(self, disk: Disk, layout: Layout, generation: int, start: StartRecord, segment_bytes: int) -> None:
        self._disk = disk
        self._layout = layout
        self._generation = generation
        self._start = start
        self.segment_bytes = segment_bytes
        self.quarantine: Position | None = None
        """How far the log had reached before bit rot cut it; None when nothing is missing."""
        self._segments: list[Segment] = []
        self._terms = Terms()
        self._configs: list[Config] = []
        self._sealed = Sealed(disk, layout, generation)
        self._active: Opened
        self._dirty: list[File] = []
        self._retired: list[File] = []
        """Sealed files that were handed out to be synced; closed at the next occasion."""
        self._persisted = start.position
        self._commit = start.position
        self._checkpointed = Position(0, 0)
        self._checkpoint_due = False
        self._unchecked = 0
        """Bytes written since the checkpoint last moved."""
        self.snapshots = Snapshots(disk, layout)
        self._cursors: dict[tuple[str, Position | Offset], tuple[Position, int, Position]] = {}
        """What was read up to -> (segment's base, place in the file, place in the log)."""

    # ── opening ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def create(cls, disk: Disk, path: str, start: StartRecord) -> None:
        """Make an empty log that begins at the start record's position; durable when this returns."""
        layout = Layout(path)
        disk.makedirs(path)
        disk.replace_file(layout.start, encode_start(1, start))
        disk.sync_dir(layout.parent)

    @classmethod
    def open(cls, disk: Disk, path: str, *, segment_bytes: int = SEGMENT_BYTES, verify: bool = False) -> NebulaLog:
        """Open and recover; `verify` reads every byte instead of believing the checkpoint.

        :raises DecodeError: the start file is damaged; nothing is deleted because of it.
        """
        layout = Layout(path)
        generation, start = decode_start(disk.read_file(layout.start))
        log = cls(disk, layout, generation, start, segment_bytes)
        log._recover(verify)
        return log

    def _recover(self, verify: bool) -> None:
        found = Recovery(self._disk, self._layout, self._generation, self._start, verify=verify)
        found.run()
        assert found.active is not None
        self._segments, self._active = found.segments, found.active
        self._terms, self._configs = found.terms, found.configs
        self.quarantine, self._checkpointed = found.quarantine, found.checkpointed
        self._persisted = self.end()

    def close(self) -> None:
        """Leave a checkpoint of what is known to be durable, and close. Syncs nothing: that is the group commit's."""
        with suppress(OSError, DamagedLog):  # the disk is dead or damaged: the next start finds out by itself
            self.checkpoint()
        self._sealed.close()
        for file in [self._active.file, *self._dirty, *self._retired]:
            file.close()

    # ── Raft's view ─────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> Position:
        return self._start.position

    def start_record(self) -> StartRecord:
        return self._start

    def start_producers(self) -> bytes:
        """Producer state at the log's start."""
        return self._start.producers

    def end(self) -> Position:
        return self._segments[-1].end

    def configs(self) -> list[Config]:
        return list(self._configs)

    def contains(self, place: Position) -> bool:
        """Is `place` in the closed offset range of its term in this log? (AppendEntries' consistency check.)"""
        if place == self.start():
            return True
        found = self._terms.find(place.term, self.end().offset)
        if found is None or found[0] != place.term:
            return False
        return found[1] <= place.offset <= found[2] and self.start() <= place <= self.end()

    def last_in_term(self, term: Term) -> Position:
        """Where `term`, or the nearest earlier term that is here, ends."""
        found = self._terms.find(term, self.end().offset)
        return max(Position(found[0], found[2]), self.start()) if found is not None else self.start()

    def read(self, place: Position, max_bytes: int) -> Run:
        """Whole batches behind `place`, from one segment; at least one if any follows."""
        if place >= self.end():
            return Run((), place, 0)
        number = max(0, bisect_right(self._segments, place, key=lambda s: s.base) - 1)
        segment, (file, _) = self._segments[number], self._view(number)
        at = self._locate(number, place)
        data = file.pread(min(max(max_bytes, HEADER_SIZE), segment.size - at), at)
        try:
            header = read_header(data)
            if not continues(place, header):
                raise InvalidBatch(f"base offset {header.base_offset}, term {header.leader_epoch}")
            if header.size > len(data):  # one batch above the limit: it goes alone
                data = file.pread(min(header.size, segment.size - at), at)
            size, end = whole(data, place)
        except InvalidBatch as bad:
            self._damaged(f"no batch behind {place}: {bad}")
        if not size:
            self._damaged(f"the batch behind {place} is longer than its segment")
        self._remember("place", end, segment.base, at + size, end)
        return Run((memoryview(data)[:size],) if size < len(data) else (data,), end, size)

    def _view(self, number: int) -> Opened:
        """A segment's file and index."""
        if number == len(self._segments) - 1:
            return self._active
        try:
            return self._sealed.get(self._segments[number])
        except DamagedLog as damage:
            self._damaged(str(damage))

    def _locate(self, number: int, place: Position) -> int:
        """Where the batch behind `place` begins in its segment."""
        segment, (file, index) = self._segments[number], self._view(number)
        known = self._cursors.get(("place", place))
        if known is not None and known[0] == segment.base:
            return known[1]
        mark = index.by_place(place)
        at, end = mark.at, mark.place
        for batch in walk(file, at, end, segment.size):
            if end >= place:
                break
            at, end = batch.at + batch.header.size, batch.end
        if end < place:
            self._damaged(f"the segment at {segment.base} breaks off at {end}")
        if end > place:
            raise InvariantBroken(f"{place} is no boundary between batches of {self._layout.directory}")
        return at

    def _remember(self, what: str, key: Position | Offset, base: Position, at: int, place: Position) -> None:
        if len(self._cursors) >= CURSORS:
            del self._cursors[next(iter(self._cursors))]
        self._cursors[what, key] = base, at, place

    def _damaged(self, what: str) -> NoReturn:
        """Durable bytes are wrong: the next start must read everything, and not stand for election before repair."""
        place = max(self._persisted, self._checkpointed, self.quarantine or self._checkpointed)
        self._disk.replace_file(self._layout.quarantine, json.dumps(place).encode())
        raise DamagedLog(f"{self._layout.directory}: {what}")

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def append(self, entries: Sequence[Entry]) -> None:
        """Write, from the very buffers given; durable only when `dirty_files` have been synced."""
        group: list[Entry] = []
        room = self.segment_bytes - self._segments[-1].size
        for entry in entries:
            if len(entry.data) > room and (group or self._segments[-1].size):
                self._write(group)
                self._roll()
                group, room = [], self.segment_bytes
            group.append(entry)
            room -= len(entry.data)
        self._write(group)

    def _write(self, entries: list[Entry]) -> None:
        if not entries:
            return
        segment, (file, index) = self._segments[-1], self._active
        if not continues(segment.end, read_header(entries[0].data)):
            raise InvariantBroken(f"a batch that does not continue the log at {segment.end}")
        try:
            file.pwritev([entry.data for entry in entries], segment.size)
        except OSError:
            self._take_back(file, segment.size)
            raise
        if not self._dirty or self._dirty[-1] is not file:
            self._dirty.append(file)
        last = segment.size
        for entry in entries:
            index.add(segment.end, segment.size, segment.newest_ms)
            last = segment.size
            if entry.kind == DATA:
                segment.newest_ms = max(segment.newest_ms, int.from_bytes(entry.data[35:43], "big", signed=True))
            else:
                self._note_control(entry)
            segment.end, segment.size = entry.end, last + len(entry.data)
            self._unchecked += len(entry.data)
        segment.last = LastBatch(last, int.from_bytes(entries[-1].data[17:21], "big"))

    def _note_control(self, entry: Entry) -> None:
        if entry.kind == MARKER:
            self._terms.add(entry.end)
        elif entry.kind == VOTERS:
            self._configs.append((entry.end, *read_voters(entry.data)))

    def _take_back(self, file: File, size: int) -> None:
        """A write failed half-way (a full disk, say): leave nothing of it behind the end."""
        with suppress(OSError):  # the chain ends before it all the same, and the next write covers it
            file.truncate(size)

    def _roll(self) -> None:
        """Begin the next file. The partition has filled one, so the new one's space is reserved."""
        full, (file, index) = self._segments[-1], self._active
        file.truncate(full.size)
        self._sealed.store(full, index)
        if file not in self._dirty:
            file.close()
        self._begin(full.end, reserve=True)
        self._checkpoint_due = True

    def _begin(self, base: Position, *, reserve: bool = False) -> None:
        """A new last segment, its name durable."""
        file = self._disk.open(self._layout.segment(self._generation, base), create=True)
        file.truncate(0)
        if reserve:
            file.prepare(self.segment_bytes)
        self._disk.sync_dir(self._layout.directory)  # crash before this: the file and all in it would be gone
        self._segments.append(Segment(base, base, 0, -1, NO_BATCH))
        self._active = Opened(file, SparseIndex(base))

    def dirty_files(self) -> list[File]:
        """Files with writes that no sync round covers yet; the caller asks for their sync at once."""
        for file in self._retired:
            file.close()
        files, self._dirty = self._dirty, []
        self._retired = [file for file in files if file is not self._active.file]
        return files

    def synced(self, end: Position, commit: Position) -> None:
        """A sync round that covers `end` is done, and `commit` is on a quorum."""
        if self.contains(end):  # otherwise it was truncated meanwhile
            self._persisted = max(self._persisted, end)
        self._commit = max(self._commit, commit)
        if self._checkpoint_due:
            self.checkpoint()
        self._release_quarantine()

    def _release_quarantine(self) -> None:
        """What bit rot took is here again, and durable."""
        if self.quarantine is not None and self._persisted >= self.quarantine:
            self.checkpoint()
            self._disk.unlink(self._layout.quarantine)
            self.quarantine = None

    def checkpoint(self, at_least: int = 0) -> bool:
        """Move the checkpoint up to what is committed and persisted here, if `at_least` bytes were written since.

        It costs two fsyncs: for a quiet moment. True if there was something to do.
        """
        if self._unchecked < at_least:
            return False
        self._checkpoint_at(min(self._commit, self._persisted))
        self._checkpoint_due, self._unchecked = False, 0
        return True

    def _checkpoint_at(self, place: Position, *, back: bool = False) -> None:
        if place < self.start() or (place <= self._checkpointed and not back):
            return
        number = max(0, bisect_right(self._segments, place, key=lambda s: s.base) - 1)
        file, index = self._view(number)
        part = prefix(file, index, self._segments[number], place)
        if part.end <= self._checkpointed and not back:
            return
        if number == len(self._segments) - 1:
            self._sealed.store(part, index.head(part.size))
        configs = tuple(config for config in self._configs if config[0] <= part.end)
        rows = (*self._segments[:number], part)
        checkpoint = Checkpoint(self._generation, part.end, self._terms.upto(part.end), configs, rows)
        try:
            self._disk.replace_file(self._layout.checkpoint, checkpoint.encode())
        except OSError as error:
            if error.errno != errno.ENOSPC or back:
                raise
            return  # a full disk delays the checkpoint and nothing else
        self._checkpointed = part.end

    # ── giving up and starting over ─────────────────────────────────────────────────────────────────────────────────

    def truncate(self, place: Position) -> None:
        """Give up everything behind `place`; durable when this returns. Also cuts terms and memberships."""
        if not self.contains(place):
            raise InvariantBroken(f"cannot truncate to {place}: not in this log")
        if place < self._checkpointed:  # else the next start would take the cut for bit rot
            self._checkpoint_at(place, back=True)
        number = max(0, bisect_right(self._segments, place, key=lambda s: s.base) - 1)
        at = self._locate(number, place)
        if number < len(self._segments) - 1:
            self._reopen(number)
        self._cut(place, at)
        self._terms.cut(place)
        self._configs = [config for config in self._configs if config[0] <= place]
        self._persisted = min(self._persisted, place)

    def _reopen(self, number: int) -> None:
        """Make a sealed segment the last one again."""
        opened = self._view(number)
        self._sealed.release(self._segments[number].base)
        for file in self._dirty:  # among them may be a segment that stays
            file.sync()
        self._forget_files()
        for segment in reversed(self._segments[number + 1 :]):  # from the end: a crash in between leaves no hole
            self._sealed.remove(segment.base)
        del self._segments[number + 1 :]
        self._disk.sync_dir(self._layout.directory)
        self._active = opened

    def _forget_files(self) -> None:
        """Close all files that were written."""
        for file in [self._active.file, *self._dirty, *self._retired]:
            file.close()
        self._dirty, self._retired = [], []

    def _cut(self, place: Position, at: int) -> None:
        segment, (file, index) = self._segments[-1], self._active
        part = prefix(file, index, segment, place)
        if (part.end, part.size) != (place, at):
            self._damaged(f"{place} is not where it was in the segment at {segment.base}")
        segment.end, segment.size, segment.newest_ms, segment.last = part.end, part.size, part.newest_ms, part.last
        index.cut(at)
        self._cursors.clear()
        file.truncate(at)
        file.sync()

    def reset(self, start: StartRecord) -> None:
        """Start over from a leader's start record: atomic, whatever a crash interrupts."""
        self._disk.replace_file(self._layout.start, encode_start(self._generation + 1, start))
        dead = self._generation
        self._sealed.close()
        self._forget_files()
        for segment in reversed(self._segments):
            remove_files(self._disk, self._layout, dead, segment.base)
        self._generation += 1
        self._sealed = Sealed(self._disk, self._layout, self._generation)
        self._start, self._segments = start, []
        self._terms, self._configs = Terms(start.terms), [(start.position, start.voters, start.learners)]
        self._persisted = self._commit = start.position
        self._checkpointed = Position(0, 0)
        self._cursors.clear()
        self._begin(start.position)
        self._release_quarantine()

    def delete_before(self, start: StartRecord) -> None:
        """Make `start` durable, then drop the segments that lie wholly before it."""
        if start.position < self.start() or not self.contains(start.position):
            raise InvariantBroken(f"the log cannot begin at {start.position}")
        self._sync_up_to(start.position)
        self._disk.replace_file(self._layout.start, encode_start(self._generation, start))
        self._start = start
        self._terms = self._terms.since(start.position, start.terms)
        later = [config for config in self._configs if config[0] > start.position]
        self._configs = [(start.position, start.voters, start.learners), *later]
        self._checkpoint_at(max(start.position, min(self._commit, self._persisted)))
        while len(self._segments) > 1 and self._segments[0].end <= start.position:
            self._sealed.remove(self._segments.pop(0).base)
        self._cursors.clear()

    def _sync_up_to(self, place: Position) -> None:
        """A follower may hear of a start that it has not synced up to: after a crash the log would end before it."""
        for number, segment in enumerate(self._segments):
            if self._persisted < place and segment.end > self._persisted:
                self._view(number).file.sync()
                self._persisted = segment.end
