"""The chain of batches in one file: walking it, finding its end, and opening it for reading.

A file's valid part ends where its chain ends, never at the file's size: space may be reserved ahead, and a crash may
leave anything behind the last synced batch. A batch continues the chain at `place` when its base offset is
`place.offset`, its term is not below `place.term`, and it is a marker exactly if its term is above it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from nebula.model import InvalidBatch, NebulaError, Position
from nebula.records.batch import HEADER_SIZE, Header, crc_ok, read_header
from nebula.storage.checkpoint import Segment
from nebula.storage.disk import Disk, File, write_cache
from nebula.storage.index import NO_BATCH, LastBatch, SparseIndex
from nebula.storage.layout import Layout

BLOCK = 256 << 10
"""Most bytes read at once when walking; small batches stand many to a block."""
FIRST_BLOCK = 8 << 10
"""Bytes read first, and behind a batch that is larger: who wants one header does not pay for a block."""


class DamagedLog(NebulaError):
    """Bytes that were durable are not what they were. The partition stops; its next start finds how much is left."""

    code = "NEB-1303"


class Batch(NamedTuple):
    """One batch as a walk meets it."""

    before: Position
    end: Position
    at: int
    header: Header


def continues(place: Position, header: Header) -> bool:
    """May a batch with this header stand behind `place`?"""
    if header.base_offset != place.offset or header.leader_epoch < place.term:
        return False
    return header.is_marker == (header.leader_epoch > place.term) and (header.is_marker or header.width > 0)


def walk(file: File, at: int, place: Position, limit: int, *, check: bool = False) -> Iterator[Batch]:
    """Batches from `at`, which lies behind `place`, while they continue the chain; `check` tests CRCs too."""
    block, start, step, size = b"", at, FIRST_BLOCK // 4, 0
    while at + HEADER_SIZE <= limit:
        if at + HEADER_SIZE > start + len(block):
            step = min(BLOCK, step * 4) if size < step or check else FIRST_BLOCK
            block, start = file.pread(min(step, limit - at), at), at
        try:
            header = read_header(block, at - start)
        except InvalidBatch:
            return
        size = header.size
        if at + size > limit or not continues(place, header):
            return
        if check:
            if at + size > start + len(block):
                block, start = file.pread(max(size, min(BLOCK, limit - at)), at), at
            if len(block) < at - start + size or not crc_ok(block, at - start):
                return
        end = Position(header.leader_epoch, header.end_offset)
        yield Batch(place, end, at, header)
        at, place = at + size, end


def whole(data: bytes, place: Position) -> tuple[int, Position]:
    """Bytes of the whole batches in `data`, which begins behind `place`, and where they end."""
    at = 0
    while at + HEADER_SIZE <= len(data):
        header = read_header(data, at)
        if at + header.size > len(data):
            break
        at, place = at + header.size, Position(header.leader_epoch, header.end_offset)
    return at, place


def newest_of(batch: Batch) -> int:
    """Largest timestamp a client may find in it; markers and membership changes have none."""
    return -1 if batch.header.is_control else batch.header.max_timestamp


def note(segment: Segment, index: SparseIndex, end: Position, size: int, newest_ms: int, crc: int) -> None:
    """A batch of `size` bytes now lies at the segment's end."""
    index.add(segment.end, segment.size, segment.newest_ms)
    segment.last = LastBatch(segment.size, crc)
    segment.newest_ms = max(segment.newest_ms, newest_ms)
    segment.end, segment.size = end, segment.size + size


def prefix(file: File, index: SparseIndex, segment: Segment, place: Position) -> Segment:
    """The part of `segment` up to `place`, or up to the last batch boundary before it."""
    mark = index.before(place)
    part = Segment(segment.base, mark.place, mark.at, mark.newest_ms, NO_BATCH)
    for batch in walk(file, mark.at, mark.place, segment.size):
        if batch.end > place:
            break
        part.end, part.size = batch.end, batch.at + batch.header.size
        part.newest_ms = max(part.newest_ms, newest_of(batch))
        part.last = LastBatch(batch.at, batch.header.crc)
    return part


def rebuild(file: File, segment: Segment) -> SparseIndex:
    """The index from the batches' headers. :raises DamagedLog: they do not reach the segment's end."""
    index, newest = SparseIndex(segment.base), -1
    end = segment.base
    for batch in walk(file, 0, segment.base, segment.size):
        index.add(batch.before, batch.at, newest)
        newest, end = max(newest, newest_of(batch)), batch.end
    if end != segment.end:
        raise DamagedLog(f"the segment at {segment.base} breaks off at {end}, not at {segment.end}")
    return index


class Opened(NamedTuple):
    """A segment's file and index."""

    file: File
    sparse: SparseIndex


class Sealed:
    """The few sealed segments that are open: descriptors and indexes do not grow with the log."""

    LIMIT = 2
    """Per log: one reader that catches up and one that begins; 5,000 partitions: 15,000 descriptors at most."""

    def __init__(self, disk: Disk, layout: Layout, generation: int) -> None:
        self._disk = disk
        self._layout = layout
        self._generation = generation
        self._open: OrderedDict[Position, Opened] = OrderedDict()

    def get(self, segment: Segment) -> Opened:
        """Open, or found open. :raises DamagedLog: the file is gone or its chain is broken."""
        found = self._open.get(segment.base)
        if found is None:
            found = self._open[segment.base] = self.load(segment)
            if len(self._open) > self.LIMIT:
                self._open.popitem(last=False)[1].file.close()
        self._open.move_to_end(segment.base)
        return found

    def load(self, segment: Segment) -> Opened:
        """The segment's file, and its index from its file or rebuilt. The caller closes it."""
        try:
            file = self._disk.open(self._layout.segment(self._generation, segment.base))
        except FileNotFoundError as gone:
            raise DamagedLog(f"the segment at {segment.base} is gone") from gone
        try:
            index = self.stored(segment)
            if index is None:
                index = rebuild(file, segment)
                self.store(segment, index)
        except BaseException:
            file.close()
            raise
        return Opened(file, index)

    def stored(self, segment: Segment) -> SparseIndex | None:
        """What the index file says, if it is about these very bytes."""
        path = self._layout.index(self._generation, segment.base)
        try:
            data = self._disk.read_file(path)
        except FileNotFoundError:
            return None
        return SparseIndex.decode(data, segment.base, segment.size, segment.last)

    def store(self, segment: Segment, index: SparseIndex) -> None:
        """Write the index beside its segment; not synced, for it is only a cache."""
        path = self._layout.index(self._generation, segment.base)
        write_cache(self._disk, path, index.encode(segment.size, segment.last))

    def close(self, base: Position | None = None) -> None:
        """Close one segment, or all."""
        for place in [base] if base is not None else list(self._open):
            found = self._open.pop(place, None)
            if found is not None:
                found.file.close()

    def release(self, base: Position) -> None:
        """Forget an open segment without closing it: its caller goes on with it."""
        self._open.pop(base, None)

    def remove(self, base: Position) -> None:
        """Close and delete a segment's files; its name goes first, so an index never stands alone for long."""
        self.close(base)
        remove_files(self._disk, self._layout, self._generation, base)


def remove_files(disk: Disk, layout: Layout, generation: int, base: Position) -> None:
    """Delete a segment and its index."""
    for path in (layout.segment(generation, base), layout.index(generation, base)):
        if disk.exists(path):
            disk.unlink(path)
