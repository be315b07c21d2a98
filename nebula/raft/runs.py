"""A run from a peer, taken apart and checked before any of it counts."""

from __future__ import annotations

from nebula.model import InvalidBatch, Position
from nebula.records.batch import crc_ok, walk
from nebula.records.control import is_voters
from nebula.records.entries import DATA, MARKER, VOTERS, Entry, Run


def entries_of(run: Run, prev: Position) -> list[Entry]:
    """The batches of `run`, which must continue at `prev` (ARCHITECTURE §2).

    :raises InvalidBatch: a bad checksum, a gap, or a term that does not begin with its marker.
    """
    entries, place = [], prev
    for chunk in run.chunks:
        view = memoryview(chunk)
        for at, header in walk(view):
            if not crc_ok(view, at):
                raise InvalidBatch(f"a batch after {place} whose checksum does not fit")
            term, marker = header.leader_epoch, header.is_marker
            if header.base_offset != place.offset or term < place.term or (term > place.term) != marker:
                raise InvalidBatch(f"a batch at {header.base_offset}@{term} cannot follow {place}")
            place = Position(term, header.end_offset)
            data = view[at : at + header.size]
            kind = MARKER if marker else VOTERS if header.is_control and is_voters(data, header) else DATA
            entries.append(Entry(place, data, kind))
    if place != run.end:
        raise InvalidBatch(f"a run that ends at {place}, not {run.end}")
    return entries
