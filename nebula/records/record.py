"""Records inside a batch: build and read. Off the broker's hot path: compaction, times, the controller, tools."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from crc32c import crc32c

from nebula.model import Buffer, InvalidBatch, Offset
from nebula.records.batch import CRC_FROM, HEADER, HEADER_SIZE, LENGTH_FROM, LOG_APPEND_TIME, read_header
from nebula.records.compression import compress, decompress

HeaderPair = tuple[str, bytes | None]
MAX_RECORDS_BYTES = 64 << 20


class Record(NamedTuple):
    """One record."""

    offset: Offset
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[HeaderPair, ...]


def write_varint(out: bytearray, number: int) -> None:
    """Zigzag varint, as protobuf's sint64."""
    number = (number << 1) ^ (number >> 63)
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def read_varint(buf: Buffer, at: int) -> tuple[int, int]:
    """(value, next place). :raises InvalidBatch: cut short or wider than 64 bits."""
    result = shift = 0
    while True:
        if at >= len(buf) or shift > 63:
            raise InvalidBatch("a varint that does not end")
        byte = buf[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (result >> 1) ^ -(result & 1), at
        shift += 7


def _write_bytes(out: bytearray, data: bytes | None) -> None:
    if data is None:
        write_varint(out, -1)
    else:
        write_varint(out, len(data))
        out += data


def _one(delta: int, stamp: int, key: bytes | None, value: bytes | None, headers: Sequence[HeaderPair]) -> bytearray:
    body = bytearray(b"\0")
    write_varint(body, stamp)
    write_varint(body, delta)
    _write_bytes(body, key)
    _write_bytes(body, value)
    write_varint(body, len(headers))
    for name, content in headers:
        _write_bytes(body, name.encode())
        _write_bytes(body, content)
    out = bytearray()
    write_varint(out, len(body))
    return out + body


def build_batch(
    records: Iterable[tuple[bytes | None, bytes | None, Sequence[HeaderPair], int]],
    *,
    codec: int = 0,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    attributes: int = 0,
) -> bytearray:
    """A batch of (key, value, headers, timestamp_ms), ready to be stamped."""
    rows = list(records)
    base = rows[0][3] if rows else 0
    body = bytearray()
    for delta, (key, value, headers, timestamp) in enumerate(rows):
        body += _one(delta, timestamp - base, key, value, headers)
    packed = compress(codec, bytes(body)) if codec else body
    newest = max((row[3] for row in rows), default=0)
    head = HEADER.pack(
        0, HEADER_SIZE - LENGTH_FROM + len(packed), -1, 2, 0, attributes | codec, len(rows) - 1, base, newest,
        producer_id, producer_epoch, base_sequence, len(rows),
    )  # fmt: skip
    batch = bytearray(head) + packed
    batch[17:21] = crc32c(memoryview(batch)[CRC_FROM:]).to_bytes(4, "big")
    return batch


def _read_bytes(buf: Buffer, at: int) -> tuple[bytes | None, int]:
    size, at = read_varint(buf, at)
    if size < 0:
        return None, at
    if at + size > len(buf):
        raise InvalidBatch("a record field longer than its batch")
    return bytes(buf[at : at + size]), at + size


def _read_headers(buf: Buffer, at: int) -> tuple[tuple[HeaderPair, ...], int]:
    count, at = read_varint(buf, at)
    if count < 0 or count > len(buf) - at:
        raise InvalidBatch("absurd header count")
    pairs: list[HeaderPair] = []
    for _ in range(count):
        name, at = _read_bytes(buf, at)
        content, at = _read_bytes(buf, at)
        pairs.append(((name or b"").decode("utf-8", "replace"), content))
    return tuple(pairs), at


def read_records(buf: Buffer, at: int = 0, max_bytes: int = MAX_RECORDS_BYTES) -> list[Record]:
    """The records of the batch at `at`.

    :raises InvalidBatch: whatever is wrong with the bytes; decompressed size above `max_bytes` included.
    """
    header = read_header(buf, at)
    payload = bytes(buf[at + HEADER_SIZE : at + header.size])
    data = decompress(header.codec, payload, max_bytes) if header.codec else payload
    if header.count < 0 or header.count > len(data):
        raise InvalidBatch(f"{header.count} records in {len(data)} bytes")
    records, place = [], 0
    for _ in range(header.count):
        _, place = read_varint(data, place)
        delta, place = read_varint(data, place + 1)
        offset_delta, place = read_varint(data, place)
        key, place = _read_bytes(data, place)
        value, place = _read_bytes(data, place)
        headers, place = _read_headers(data, place)
        time = header.max_timestamp if header.attributes & LOG_APPEND_TIME else header.base_timestamp + delta
        records.append(Record(header.base_offset + offset_delta, time, key, value, headers))
    return records
