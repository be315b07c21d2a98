"""The checkpoint: a durable place up to which recovery believes the log without reading it.

Its position is never above what was committed and what was synced here. So whatever fails before it is bit rot, and
never a torn tail (RELIABILITY rule 4).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from crc32c import crc32c

from nebula.model import DecodeError, Position, Voter
from nebula.storage.index import LastBatch

Config = tuple[Position, tuple[Voter, ...], tuple[Voter, ...]]
"""A membership, and the place right behind the batch that brought it (the start, for the start record's)."""


@dataclass(slots=True)
class Segment:
    """A segment's row: all that stays in memory of a sealed one."""

    base: Position
    end: Position
    size: int
    """Valid bytes; the file may be longer."""
    newest_ms: int
    """Largest timestamp of its data batches, -1 without any."""
    last: LastBatch


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Terms, configs and segments as they are up to `position`; the last segment's row ends there too."""

    generation: int
    position: Position
    terms: tuple[Position, ...]
    configs: tuple[Config, ...]
    segments: tuple[Segment, ...]

    def encode(self) -> bytes:
        """CRC-32C, then JSON: written once per segment, and an operator can read it."""
        rows = [(s.base, s.end, s.size, s.newest_ms, s.last) for s in self.segments]
        body = json.dumps([self.generation, self.position, self.terms, self.configs, rows]).encode()
        return crc32c(body).to_bytes(4, "big") + body

    @classmethod
    def decode(cls, data: bytes) -> Checkpoint:
        """:raises DecodeError: damaged."""
        body = data[4:]
        if len(data) < 4 or int.from_bytes(data[:4], "big") != crc32c(body):
            raise DecodeError("a checkpoint whose checksum does not fit")
        try:
            raw: list[Any] = json.loads(body)
            generation, position, terms, configs, rows = raw
            return cls(
                generation,
                Position(*position),
                tuple(Position(*row) for row in terms),
                tuple((Position(*p), _voters(v), _voters(n)) for p, v, n in configs),
                tuple(Segment(Position(*b), Position(*e), z, ms, LastBatch(*last)) for b, e, z, ms, last in rows),
            )
        except (ValueError, TypeError) as bad:
            raise DecodeError(f"a checkpoint that does not decode: {bad}") from bad


def _voters(rows: list[list[str]]) -> tuple[Voter, ...]:
    return tuple(Voter(*row) for row in rows)
