"""The terms index: where each term begins. It answers Raft's consistency check and Kafka's OffsetForLeaderEpoch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from nebula.model import Offset, Position, Term

_LAST = 1 << 62
"""Above every offset."""


class Terms:
    """(term, first offset) of each term with a marker here or before the start; both columns never fall.

    A row is also a Position: the place right behind that term's marker.
    """

    def __init__(self, rows: Iterable[tuple[Term, Offset]] = ()) -> None:
        self.rows = [Position(*row) for row in rows]

    def add(self, marker_end: Position) -> None:
        self.rows.append(marker_end)

    def cut(self, place: Position) -> None:
        """Forget terms that begin behind `place`."""
        self.rows = [row for row in self.rows if row <= place]

    def upto(self, place: Position) -> tuple[Position, ...]:
        return tuple(row for row in self.rows if row <= place)

    def since(self, start: Position, before: Iterable[tuple[Term, Offset]]) -> Terms:
        """This index over a new start, whose record knows the terms `before` it."""
        return Terms([*before, *(row for row in self.rows if row > start)])

    def find(self, term: Term, end: Offset) -> tuple[Term, Offset, Offset] | None:
        """(term, first offset, end offset) of the largest term <= `term`; `end` is the log's end offset."""
        index = bisect_right(self.rows, (term, _LAST)) - 1
        if index < 0:
            return None
        row = self.rows[index]
        return row.term, row.offset, self.rows[index + 1].offset if index + 1 < len(self.rows) else end

    def at(self, offset: Offset) -> Term | None:
        """Term of the record at `offset`: the latest that begins at or before it."""
        index = bisect_right(self.rows, offset, key=lambda row: row.offset) - 1
        return self.rows[index].term if index >= 0 else None
