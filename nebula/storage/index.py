"""The sparse index of one segment: for places, offsets and times alike, where to begin looking.

The file beside a segment is a cache. It is believed only if its checksum is good and the batch it ends with is the one
that is in the segment; otherwise the index is rebuilt from the batches' headers.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from crc32c import crc32c

from nebula.model import Offset, Position, Term

EVERY = 16 << 10
"""Bytes between marks at first: as far from what a reader asks for as a read by the index may end."""
MOST = 1024
"""Marks of one segment (about 150 KiB of memory); beyond it every other one goes."""

_HEAD = struct.Struct(">4sIQqI")
"""Magic, CRC-32C of what follows it, bytes covered, place of the last batch, its CRC."""
_MARK = struct.Struct(">qqqq")
MAGIC = b"NEBi"


class Mark(NamedTuple):
    """A batch begins at `at`, behind `place`; no record before it in the segment is newer than `newest_ms`."""

    place: Position
    at: int
    newest_ms: int


class LastBatch(NamedTuple):
    """What a segment's valid part ends with: by it a file beside the segment shows that it means these bytes."""

    at: int
    crc: int


NO_BATCH = LastBatch(-1, 0)


class SparseIndex:
    """Marks in order; the first is the segment's begin."""

    def __init__(self, base: Position) -> None:
        self.marks = [Mark(base, 0, -1)]
        self._every = EVERY

    def add(self, place: Position, at: int, newest_ms: int) -> None:
        """The next batch begins at `at`, behind `place`."""
        if at - self.marks[-1].at >= self._every:
            self.marks.append(Mark(place, at, newest_ms))
            if len(self.marks) > MOST:
                self.marks, self._every = self.marks[::2], self._every * 2

    def cut(self, at: int) -> None:
        """The segment now ends at `at`."""
        self.marks = self.marks[:1] + [mark for mark in self.marks[1:] if mark.at <= at]

    def head(self, at: int) -> SparseIndex:
        """A copy that ends at `at`."""
        part = SparseIndex(self.marks[0].place)
        part.marks = list(self.marks)
        part.cut(at)
        return part

    def by_place(self, place: Position) -> Mark:
        """Where to begin for the batch behind `place`."""
        return self.marks[max(0, bisect_right(self.marks, place, key=lambda m: m.place) - 1)]

    def before(self, place: Position) -> Mark:
        """The last mark that stands before `place`, or the first of all."""
        return self.marks[max(0, bisect_left(self.marks, place, key=lambda m: m.place) - 1)]

    def by_offset(self, offset: Offset) -> Mark:
        """Where to begin for the batch that holds `offset`."""
        return self.marks[max(0, bisect_right(self.marks, offset, key=lambda m: m.place.offset) - 1)]

    def reach(self, at: int, most: int, below: Offset, term: Term) -> Mark | None:
        """The furthest mark within `most` bytes of `at`, not above offset `below`, with only batches of `term` before it.

        Places are ordered by term first, so a mark that stands behind a batch of `term` has no marker between.
        """
        number = bisect_right(self.marks, at + most, key=lambda m: m.at)
        while number and (mark := self.marks[number - 1]).at > at:
            if mark.place.term == term and mark.place.offset <= below:
                return mark
            number = min(number - 1, bisect_right(self.marks, Position(term, below), key=lambda m: m.place))
        return None

    def by_time(self, timestamp_ms: int) -> Mark:
        """Where to begin for the first record at or after `timestamp_ms`."""
        return self.marks[max(0, bisect_right(self.marks, timestamp_ms - 1, key=lambda m: m.newest_ms) - 1)]

    def encode(self, size: int, last: LastBatch) -> bytes:
        rows = b"".join(_MARK.pack(*mark.place, mark.at, mark.newest_ms) for mark in self.marks)
        body = _HEAD.pack(MAGIC, 0, size, *last)[8:] + rows
        return MAGIC + crc32c(body).to_bytes(4, "big") + body

    @classmethod
    def decode(cls, data: bytes, base: Position, size: int, last: LastBatch) -> SparseIndex | None:
        """The index of `size` bytes that begin at `base` and end with `last`; None if it is not that."""
        if len(data) < _HEAD.size + _MARK.size or (len(data) - _HEAD.size) % _MARK.size:
            return None
        magic, crc, covers, *ends = _HEAD.unpack_from(data)
        if magic != MAGIC or crc32c(data[8:]) != crc or covers != size:
            return None
        index = cls(base)
        index.marks = [Mark(Position(t, o), at, ms) for t, o, at, ms in _MARK.iter_unpack(data[_HEAD.size :])]
        if index.marks[0] != Mark(base, 0, -1) or last != LastBatch(*ends):
            return None
        return index
