"""Kafka's unsigned varints (KIP-482)."""

from __future__ import annotations

from nebula.model import Buffer, DecodeError


def read_uvarint(view: Buffer, at: int) -> tuple[int, int]:
    """Value and place behind it; at most five bytes. :raises DecodeError: wider. :raises IndexError: cut off."""
    result = shift = 0
    while shift < 35:
        byte = view[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
    raise DecodeError("a varint wider than 32 bits")


def uvarint(number: int) -> bytes:
    """Encoded."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class CompactLengths(dict[int, bytes]):
    """Encoded compact lengths by length; the short ones, which are nearly all, are made once."""

    def __missing__(self, size: int) -> bytes:
        return uvarint(size + 1)


COMPACT = CompactLengths({size: uvarint(size + 1) for size in range(-1, 256)})
