"""The start file: the start record, and the generation that tells this log's segments from those before a reset.

A reset is one replacement of this file: segments of an older generation are dead from that moment, whenever they are
removed. A damaged start file stops the partition; nothing is ever deleted because of it (RELIABILITY scenario 18).
"""

from __future__ import annotations

import struct

from crc32c import crc32c

from nebula.model import DecodeError
from nebula.records.start import StartRecord

_HEAD = struct.Struct(">4sII")
"""Magic, CRC-32C of what follows it, generation."""
MAGIC = b"NEBs"


def encode_start(generation: int, start: StartRecord) -> bytes:
    body = generation.to_bytes(4, "big") + start.encode()
    return MAGIC + crc32c(body).to_bytes(4, "big") + body


def decode_start(data: bytes) -> tuple[int, StartRecord]:
    """:raises DecodeError: damaged."""
    if len(data) < _HEAD.size:
        raise DecodeError("a start file cut short")
    magic, crc, generation = _HEAD.unpack_from(data)
    if magic != MAGIC or crc32c(data[8:]) != crc:
        raise DecodeError("a start file whose checksum does not fit")
    return generation, StartRecord.decode(data[_HEAD.size :])
