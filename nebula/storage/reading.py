"""What clients read of a log: records by offset and by time, and where terms end. NebulaLog is built upon it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NoReturn

from nebula.model import Buffer, Offset, Position, Term
from nebula.records.batch import Header
from nebula.records.record import read_records
from nebula.records.start import StartRecord
from nebula.storage.checkpoint import Segment
from nebula.storage.segment import Batch, Opened, newest_of, walk
from nebula.storage.terms import Terms


class Reading:
    """The reading half of a log; its state is kept by `NebulaLog`."""

    _start: StartRecord
    _segments: list[Segment]
    _terms: Terms
    _cursors: dict[tuple[str, Position | Offset], tuple[Position, int, Position]]

    def start(self) -> Position:
        """Where the log begins."""
        raise NotImplementedError

    def end(self) -> Position:
        """Where it ends."""
        raise NotImplementedError

    def _view(self, number: int) -> Opened:
        raise NotImplementedError

    def _remember(self, what: str, key: Position | Offset, base: Position, at: int, place: Position) -> None:
        raise NotImplementedError

    def _damaged(self, what: str) -> NoReturn:
        raise NotImplementedError

    @property
    def log_start(self) -> Offset:
        return self._start.position.offset

    @property
    def size_bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    def _batches_from(self, offset: Offset) -> Iterator[tuple[int, Batch]]:
        """(segment's number, batch) from the batch that holds `offset` on, markers included."""
        known = self._cursors.get(("offset", offset))
        first = max(0, bisect_right(self._segments, offset, key=lambda s: s.base.offset) - 1)
        for number in range(first, len(self._segments)):
            segment, (file, index) = self._segments[number], self._view(number)
            mark = index.by_offset(offset) if number == first else index.marks[0]
            at, end = mark.at, mark.place
            if known is not None and known[0] == segment.base and known[1] >= at:
                at, end = known[1:]
            for batch in walk(file, at, end, segment.size):
                end = batch.end
                if end.offset > offset:
                    yield number, batch
            if end < segment.end:
                self._damaged(f"the segment at {segment.base} breaks off at {end}")

    def read_records_at(self, offset: Offset, max_bytes: int, below: Offset) -> list[Buffer]:
        """Whole batches from the one that holds `offset`, all below `below`; a read stops before a marker."""
        number = at = size = 0
        place = self.start()
        for found, batch in self._batches_from(offset) if offset < below else ():
            width = batch.header.size
            if batch.end.offset > below or (size and (found != number or size + width > max_bytes)):
                break
            if batch.header.is_marker:
                if size:
                    break
                continue
            if not size:
                number, at = found, batch.at
                mark = self._view(number).sparse.reach(at, max_bytes, below, batch.end.term)
                if mark is not None and mark.at > at + width:  # no need to look at every batch up to there
                    size, place = mark.at - at, mark.place
                    break
            size, place = size + width, batch.end
        if not size:
            return []
        self._remember("offset", place.offset, self._segments[number].base, at + size, place)
        return [self._view(number).file.pread(size, at)]

    def headers_from(self, offset: Offset) -> Iterator[Header]:
        """Headers of the batches from the one that holds `offset` on."""
        return (batch.header for _, batch in self._batches_from(offset))

    def offset_for_time(self, timestamp_ms: int) -> tuple[int, Offset] | None:
        """(timestamp, offset) of the first record at or after `timestamp_ms` (gotcha 21)."""
        for number, segment in enumerate(self._segments):
            if segment.newest_ms < timestamp_ms:
                continue
            file, index = self._view(number)
            mark = index.by_time(timestamp_ms)
            for batch in walk(file, mark.at, mark.place, segment.size):
                if newest_of(batch) >= timestamp_ms and batch.end > self.start():
                    for record in read_records(file.pread(batch.header.size, batch.at)):
                        if record.timestamp >= timestamp_ms and record.offset >= self.log_start:
                            return record.timestamp, record.offset
        return None

    def max_timestamp(self) -> tuple[int, Offset] | None:
        """(timestamp, offset) of the newest record by time."""
        newest = max((segment.newest_ms for segment in self._segments[1:]), default=-1)
        segment, file = self._segments[0], self._view(0).file
        for batch in walk(file, 0, segment.base, segment.size):  # part of the first one may lie before the start
            if batch.end > self.start():
                newest = max(newest, newest_of(batch))
        return self.offset_for_time(newest) if newest >= 0 else None

    def epoch_end(self, term: Term) -> tuple[Term, Offset]:
        """(the largest term <= `term` that is here, where its records end); (-1, -1) when none (KIP-101)."""
        found = self._terms.find(term, self.end().offset)
        return (found[0], found[2]) if found is not None else (-1, -1)

    def term_at(self, offset: Offset) -> Term:
        """Term of the record at `offset`: the latest that starts at or before it."""
        term = self._terms.at(offset)
        return term if term is not None else self._start.position.term
