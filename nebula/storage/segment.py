"""One segment file: consecutive batches, a sparse index in memory, and how its valid end is found.

The file is named after the Position of its first byte. Its end is where the chain of batches ends, never the file's
size: space may be reserved ahead, and a crash may leave anything behind the last synced batch.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from crc32c import crc32c

from nebula.model import Offset, Position
from nebula.records.batch import CONTROL, crc_ok
from nebula.storage.disk import Disk, File

PREFIX = struct.Struct(">qiib4xhi")
"""base offset, length, term, magic, attributes, last offset delta."""
TIMES = struct.Struct(">qq")
INDEX_EVERY = 64 << 10
"""Bytes between index entries: 16 entries per MiB stay in memory."""
BLOCK = 256 << 10


class Mark(NamedTuple):
    """An index entry: a batch begins at `at`, behind `place`; no record before it is newer than `newest_ms`."""

    place: Position
    at: int
    newest_ms: int


class Found(NamedTuple):
    """One batch as the walk meets it."""

    before: Position
    end: Position
    at: int
    size: int
    attributes: int
    max_timestamp: int


class Segment:
    """A segment, open for reading, and for writing while it is the last one."""

    def __init__(self, disk: Disk, directory: str, base: Position, create: bool = False) -> None:
        self._disk = disk
        self._directory = directory
        self.base = base
        self.end = base
        self.size = 0
        """Valid bytes."""
        self.newest_ms = -1
        self.marks: list[Mark] = [Mark(base, 0, -1)]
        self.terms: list[tuple[int, Offset]] = []
        """(term, first offset) of the markers in this segment."""
        self.config_at: list[tuple[Position, int, int]] = []
        """(end, place, size) of the membership changes in this segment."""
        self.file: File = disk.open(self.path, create)

    @property
    def path(self) -> str:
        return f"{self._directory}/{self.base.term:010d}-{self.base.offset:020d}.log"

    @property
    def index_path(self) -> str:
        return self.path[:-4] + ".index"

    @staticmethod
    def bases(disk: Disk, directory: str) -> list[Position]:
        """Bases of the segments in `directory`, oldest first."""
        names = (n[:-4].split("-") for n in disk.listdir(directory) if n.endswith(".log"))
        return sorted(Position(int(term), int(offset)) for term, offset in names)

    # ── growing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def note(self, end: Position, size: int, max_timestamp: int, is_marker: bool, is_config: bool) -> None:
        """A batch of `size` bytes now lies at the end."""
        if self.size - self.marks[-1].at >= INDEX_EVERY:
            self.marks.append(Mark(self.end, self.size, self.newest_ms))
        if is_marker:
            self.terms.append((end.term, end.offset))
        if is_config:
            self.config_at.append((end, self.size, size))
        self.newest_ms = max(self.newest_ms, max_timestamp)
        self.end, self.size = end, self.size + size

    def cut(self, place: Position) -> None:
        """Forget everything behind `place`, in memory and in the file."""
        at = self.locate(place)
        self.marks = [mark for mark in self.marks if mark.at <= at and mark.place <= place] or self.marks[:1]
        self.terms = [(t, o) for t, o in self.terms if Position(t, o) <= place]
        self.config_at = [c for c in self.config_at if c[0] <= place]
        self.end, self.size = place, at
        self.file.truncate(at)
        self.file.sync()
        if self._disk.exists(self.index_path):
            self._disk.unlink(self.index_path)

    def seal(self) -> None:
        """No more appends: trim reserved space, make it durable, and leave an index beside it."""
        self.file.truncate(self.size)
        self.file.sync()
        body = json.dumps([self.end, self.size, self.newest_ms, self.marks, self.terms, self.config_at]).encode()
        index = self._disk.open(self.index_path, True)
        index.truncate(0)
        index.pwritev([struct.pack(">I", crc32c(body)) + body], 0)
        index.close()

    # ── recovery ────────────────────────────────────────────────────────────────────────────────────────────────────

    def load_index(self) -> bool:
        """Take the index file's word, if it is whole and fits the segment; otherwise the caller scans."""
        if not self._disk.exists(self.index_path):
            return False
        raw = self._disk.read_file(self.index_path)
        if len(raw) < 4 or struct.unpack(">I", raw[:4])[0] != crc32c(raw[4:]):
            return False
        end, size, self.newest_ms, marks, terms, configs = json.loads(raw[4:])
        if size != self.file.size():
            return False
        self.end, self.size = Position(*end), size
        self.marks = [Mark(Position(*place), at, newest) for place, at, newest in marks]
        self.terms = [(t, o) for t, o in terms]
        self.config_at = [(Position(*e), at, n) for e, at, n in configs]
        return True

    def scan(self) -> None:
        """Find the valid end: whole batches with good checksums that continue the (offset, term) chain."""
        for found in self.walk(0, self.base, check=True):
            control = bool(found.attributes & CONTROL)
            marker = found.end.term > found.before.term
            self.note(found.end, found.size, found.max_timestamp, marker, control and not marker)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def walk(self, at: int, place: Position, check: bool = False) -> Iterator[Found]:
        """Batches from `at`, which lies behind `place`, as long as they continue the chain."""
        limit = self.file.size() if check else self.size
        block, start = b"", at
        while at + 61 <= limit:
            if at + 61 > start + len(block):
                block, start = self.file.pread(min(BLOCK, limit - at), at), at
            offset, length, term, magic, attributes, delta = PREFIX.unpack_from(block, at - start)
            size, width = length + 12, delta + 1
            marker = bool(attributes & CONTROL) and width == 0
            fits = magic == 2 and size >= 61 and at + size <= limit and offset == place.offset and width >= 0
            if not fits or term < place.term or (term > place.term) != marker:
                return
            newest = TIMES.unpack_from(block, at - start + 27)[1]
            if check:
                if at + size > start + len(block):
                    block, start = self.file.pread(max(size, min(BLOCK, limit - at)), at), at
                if not crc_ok(block, at - start):
                    return
            end = Position(term, offset + width)
            yield Found(place, end, at, size, attributes, -1 if marker else newest)
            at, place = at + size, end

    def locate(self, place: Position) -> int:
        """Where the batch behind `place` begins. :raises ValueError: `place` is no boundary here."""
        if place == self.end:
            return self.size
        mark = self.marks[max(0, bisect_right(self.marks, place, key=lambda m: m.place) - 1)]
        if mark.place == place:
            return mark.at
        for found in self.walk(mark.at, mark.place):
            if found.end == place:
                return found.at + found.size
            if found.end > place:
                break
        raise ValueError(f"{place} is no boundary between batches of {self.path}")

    def holding(self, offset: Offset) -> Iterator[Found]:
        """Batches from the one that holds `offset` on (markers on the way included)."""
        mark = self.marks[max(0, bisect_left(self.marks, offset, key=lambda m: m.place.offset) - 1)]
        for found in self.walk(mark.at, mark.place):
            if found.end.offset > offset:
                yield found

    def remove(self) -> None:
        """Close and delete the segment's files."""
        self.file.close()
        self._disk.unlink(self.path)
        if self._disk.exists(self.index_path):
            self._disk.unlink(self.index_path)
