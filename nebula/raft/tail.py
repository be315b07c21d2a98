"""The log as Raft sees it: what is written, overlaid with what it has decided and not yet handed to the drain."""

from __future__ import annotations

from typing import Protocol

from nebula.model import Position, Term, Voter
from nebula.records.entries import Entry, Run
from nebula.records.start import StartRecord

Config = tuple[Position, tuple[Voter, ...], tuple[Voter, ...]]


class LogView(Protocol):
    """What Raft must know of a log; `storage.NebulaLog` fits by shape."""

    def start(self) -> Position: ...
    def end(self) -> Position: ...
    def contains(self, place: Position) -> bool:
        """Is `place` in the closed offset range of its term in this log? (The consistency check, §5.3.)"""

    def last_in_term(self, term: Term) -> Position:
        """Where the entries of `term`, or of the nearest earlier term, end: one round trip repairs a follower."""

    def read(self, place: Position, max_bytes: int) -> Run:
        """Whole batches behind `place`; at least one if there is any."""

    def configs(self) -> list[Config]:
        """The start record's membership, then every change in the log, oldest first."""

    def start_record(self) -> StartRecord: ...


class Tail:
    """Pending truncation and entries over a LogView."""

    def __init__(self, log: LogView) -> None:
        self.log = log
        self._base = log.end()
        """Where the written part that is still valid ends."""
        self._cut = False
        self.entries: list[Entry] = []
        self._terms: list[list[int]] = []
        """[term, first offset, end offset] of the pending entries."""
        self.pending_bytes = 0

    @property
    def base(self) -> Position:
        return self._base

    def end(self) -> Position:
        return self.entries[-1].end if self.entries else self._base

    def start(self) -> Position:
        return self.log.start()

    def contains(self, place: Position) -> bool:
        for term, low, high in self._terms:
            if term == place.term and low <= place.offset <= high:
                return True
        return place <= self._base and (place == self._base or self.log.contains(place))

    def last_in_term(self, term: Term) -> Position:
        for have, _low, high in reversed(self._terms):
            if have <= term:
                return Position(have, high)
        return min(self.log.last_in_term(term), self._base)

    def append(self, entry: Entry) -> None:
        before, end = self.end(), entry.end
        if self._terms and self._terms[-1][0] == end.term:
            self._terms[-1][2] = end.offset
        else:
            self._terms.append([end.term, before.offset, end.offset])
        self.entries.append(entry)
        self.pending_bytes += len(entry.data)

    def truncate(self, place: Position) -> None:
        """Give up everything behind `place`, which this log contains."""
        if place <= self._base:
            self._cut = self._cut or place < self._base
            self._base, kept = place, []
        else:
            kept = [entry for entry in self.entries if entry.end <= place]
        self.entries, self._terms, self.pending_bytes = [], [], 0
        for entry in kept:
            self.append(entry)

    def reset(self, place: Position) -> None:
        """The log starts over at `place`."""
        self.entries, self._terms, self.pending_bytes = [], [], 0
        self._base, self._cut = place, False

    def take(self) -> tuple[Position | None, list[Entry]]:
        """What the drain must do to the log now; from here on it counts as written."""
        cut = self._base if self._cut else None
        entries, end = self.entries, self.end()
        self.entries, self._terms, self.pending_bytes = [], [], 0
        self._base, self._cut = end, False
        return cut, entries

    def run(self, place: Position, max_bytes: int) -> Run:
        """Batches behind `place`, from the written part or from what is pending."""
        if place < self._base:
            return self.log.read(place, max_bytes)
        chunks, size, end = [], 0, place
        for entry in self.entries:
            if entry.end <= place:
                continue
            if size and size + len(entry.data) > max_bytes:
                break
            chunks.append(entry.data)
            size += len(entry.data)
            end = entry.end
        return Run(tuple(chunks), end, size)
