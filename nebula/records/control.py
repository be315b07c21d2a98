"""Nebula's own batches: the term marker, which covers no offset, and the membership change, which covers one."""

from __future__ import annotations

import json

from crc32c import crc32c

from nebula.model import Buffer, InvalidBatch, Offset, Term, Voter
from nebula.records.batch import CONTROL, CRC_FROM, HEADER, HEADER_SIZE, LENGTH_FROM, Header
from nebula.records.record import build_batch, read_records

VOTERS_KEY = b"\x00\x00\x4e\x01"
"""Control record key: version 0, type 0x4E01; Kafka's clients skip control types they do not know."""


def marker(term: Term, offset: Offset, timestamp_ms: int) -> bytearray:
    """A new leader's first entry: moves the term and not the offset."""
    fields = (offset, HEADER_SIZE - LENGTH_FROM, term, 2, 0, CONTROL, -1, timestamp_ms, timestamp_ms, -1, -1, -1, 0)
    buf = bytearray(HEADER.pack(*fields))
    buf[17:21] = crc32c(memoryview(buf)[CRC_FROM:]).to_bytes(4, "big")
    return buf


def voters_batch(voters: tuple[Voter, ...], learners: tuple[Voter, ...], timestamp_ms: int) -> bytearray:
    """A membership change; the leader stamps it like any batch."""
    value = json.dumps({"voters": voters, "learners": learners}).encode()
    return build_batch([(VOTERS_KEY, value, (), timestamp_ms)], attributes=CONTROL)


def is_voters(buf: Buffer, header: Header) -> bool:
    """Is this control batch a membership change?"""
    return header.is_control and header.count == 1 and read_records(buf)[0].key == VOTERS_KEY


def read_voters(buf: Buffer) -> tuple[tuple[Voter, ...], tuple[Voter, ...]]:
    """Voters and learners of a membership change. :raises InvalidBatch: it is none."""
    try:
        raw = json.loads(read_records(buf)[0].value or b"")
        return tuple(Voter(*v) for v in raw["voters"]), tuple(Voter(*v) for v in raw["learners"])
    except (ValueError, KeyError, TypeError, IndexError) as bad:
        raise InvalidBatch(f"not a membership change: {bad}") from bad
