"""A log's batches as Raft and storage see them."""

from __future__ import annotations

from typing import NamedTuple

from nebula.model import Buffer, Position

DATA, MARKER, VOTERS = 0, 1, 2


class Entry(NamedTuple):
    """One batch."""

    end: Position
    """The place right after it."""
    data: Buffer
    """Its stored bytes, stamped."""
    kind: int
    """DATA, MARKER (covers no offset) or VOTERS (a membership change; covers one)."""


class Run(NamedTuple):
    """Consecutive whole batches."""

    chunks: tuple[Buffer, ...]
    end: Position
    size: int
