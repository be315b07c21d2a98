"""The start record: all that must be known of what lies before a log's start (ARCHITECTURE §2)."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from typing import Any

from crc32c import crc32c

from nebula.model import Buffer, DecodeError, Offset, Position, Term, Voter

_CRC = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class StartRecord:
    """Made durable before anything in front of `position` is deleted; sent to a follower that lies before it."""

    position: Position
    terms: tuple[tuple[Term, Offset], ...]
    """(term, first offset of the term) up to the start, oldest first."""
    voters: tuple[Voter, ...]
    learners: tuple[Voter, ...]
    producers: bytes
    snapshot: bytes

    def encode(self) -> bytes:
        """CRC-32C, then JSON: rarely written, and an operator can read it."""
        body = json.dumps(
            {
                "position": self.position,
                "terms": self.terms,
                "voters": self.voters,
                "learners": self.learners,
                "producers": base64.b64encode(self.producers).decode(),
                "snapshot": base64.b64encode(self.snapshot).decode(),
            }
        ).encode()
        return _CRC.pack(crc32c(body)) + body

    @classmethod
    def decode(cls, data: Buffer) -> StartRecord:
        """:raises DecodeError: damaged."""
        body = bytes(data[4:])
        if len(data) < 4 or _CRC.unpack(bytes(data[:4]))[0] != crc32c(body):
            raise DecodeError("a start record whose checksum does not fit")
        try:
            raw: dict[str, Any] = json.loads(body)
            return cls(
                Position(*raw["position"]),
                tuple((int(t), int(o)) for t, o in raw["terms"]),
                tuple(Voter(*v) for v in raw["voters"]),
                tuple(Voter(*v) for v in raw["learners"]),
                base64.b64decode(raw["producers"]),
                base64.b64decode(raw["snapshot"]),
            )
        except (ValueError, KeyError, TypeError) as bad:
            raise DecodeError(f"a start record that does not decode: {bad}") from bad
