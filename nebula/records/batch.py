"""The record batch, format v2: header view, CRC-32C, stamp and walk. Records are never parsed here.

`base_offset` (byte 0) and `leader_epoch` (byte 12) lie outside the CRC, so the leader stamps them in place and the
producer's checksum stays good from its own memory to every disk and every consumer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from crc32c import crc32c

from nebula.model import Buffer, InvalidBatch, Offset, Term

HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_SIZE = HEADER.size
_PREFIX = struct.Struct(">qiibI")
_OFFSET = struct.Struct(">q")
_EPOCH = struct.Struct(">i")
CRC_FROM = 21
MAGIC_AT = 16
LENGTH_FROM = 12
"""`length` counts the bytes behind itself."""
MAX_LENGTH = 1 << 30

CODEC_MASK, LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 0x07, 0x08, 0x10, 0x20


class Header(NamedTuple):
    """The 61 bytes before the records; field names are Kafka's."""

    base_offset: Offset
    length: int
    leader_epoch: Term
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int  # type: ignore[assignment]  # Kafka's name; a tuple's own count() is not missed

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + LENGTH_FROM

    @property
    def end_offset(self) -> Offset:
        """First offset behind the batch."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def width(self) -> int:
        """Offsets it covers; 0 for a term marker."""
        return self.last_offset_delta + 1

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def is_marker(self) -> bool:
        """A term marker: a control batch that covers no offset (ARCHITECTURE §2)."""
        return bool(self.attributes & CONTROL) and self.last_offset_delta == -1


def read_header(buf: Buffer, at: int = 0) -> Header:
    """The header at `at`. :raises InvalidBatch: too few bytes, another magic, or an absurd length."""
    if len(buf) - at < HEADER_SIZE:
        raise InvalidBatch(f"{len(buf) - at} bytes are less than a batch header")
    header = Header._make(HEADER.unpack_from(buf, at))
    if header.magic != 2:
        raise InvalidBatch(f"magic {header.magic}, not 2")
    if not HEADER_SIZE - LENGTH_FROM <= header.length <= MAX_LENGTH or header.last_offset_delta < -1:
        raise InvalidBatch(f"absurd batch length {header.length} or width {header.last_offset_delta + 1}")
    return header


def stamp(buf: bytearray | memoryview, offset: Offset, term: Term) -> None:
    """Write base offset and term in place, and nothing else."""
    _OFFSET.pack_into(buf, 0, offset)
    _EPOCH.pack_into(buf, 12, term)


def crc_ok(buf: Buffer, at: int = 0) -> bool:
    """Is the batch at `at` whole and its checksum right?"""
    _, length, _, magic, crc = _PREFIX.unpack_from(buf, at)
    end = at + LENGTH_FROM + length
    return bool(magic == 2 and length >= 49 and end <= len(buf) and crc32c(memoryview(buf)[at + CRC_FROM : end]) == crc)


def walk(buf: Buffer) -> Iterator[tuple[int, Header]]:
    """Place and header of each batch. :raises InvalidBatch: the bytes do not end with a whole batch."""
    at, size = 0, len(buf)
    while at < size:
        header = read_header(buf, at)
        if at + header.size > size:
            raise InvalidBatch(f"a batch of {header.size} bytes in {size - at}")
        yield at, header
        at += header.size


class RefusedBatch(InvalidBatch):
    """A producer's batch that must not enter a log. `reason`: corrupt, no_batch, too_large, invalid_record,
    unsupported_codec."""

    code = "NEB-1003"

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def check_produced(buf: Buffer, *, max_bytes: int) -> Header:
    """All that is checked of a producer's batch (KAFKA gotcha 23).

    :raises RefusedBatch: with the reason.
    """
    if len(buf) < HEADER_SIZE or buf[MAGIC_AT] != 2:
        raise RefusedBatch("no_batch", "the records are no batch of magic 2")
    try:
        header = read_header(buf)
    except InvalidBatch as bad:
        raise RefusedBatch("corrupt", str(bad)) from bad
    if header.size > max_bytes:
        raise RefusedBatch("too_large", f"a batch of {header.size} bytes; max.message.bytes is {max_bytes}")
    if header.size != len(buf):
        reason = "no_batch" if 0 < header.size < len(buf) else "corrupt"
        raise RefusedBatch(reason, "exactly one whole batch per partition")
    if not crc_ok(buf):
        raise RefusedBatch("corrupt", "the batch's CRC-32C does not fit its bytes")
    if header.base_offset != 0 or header.count < 1 or header.last_offset_delta != header.count - 1:
        raise RefusedBatch("invalid_record", "base offset, record count and last offset do not fit together")
    if header.is_control:
        raise RefusedBatch("invalid_record", "clients cannot write control batches")
    if header.codec > 4:
        raise RefusedBatch("unsupported_codec", f"unknown compression codec {header.codec}")
    return header
