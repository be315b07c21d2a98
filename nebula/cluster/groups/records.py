"""The records of ``__consumer_offsets``, in Kafka's own formats, so that its tools can read them.

Keys: version 1 (group, topic, partition) for an offset, version 2 (group) for a group's metadata. No value: deleted.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from nebula.model import Buffer, DecodeError
from nebula.wire.decoding import struct_decoder
from nebula.wire.encoding import struct_encoder
from nebula.wire.schema import parse

TOPIC = "__consumer_offsets"
OFFSET_KEY, GROUP_KEY = 1, 2
OFFSET_VALUE, GROUP_VALUE = 3, 3
"""Versions that are written; older ones of what Kafka wrote are not met here."""
MAX_ELEMENTS = 10_000

_SCHEMAS = parse("""
request 1 OffsetKey 99
  group string
  topic string
  partition int32
request 2 GroupKey 99
  group string
response 1 OffsetValue 99
  offset int64
  leader_epoch int32
  metadata string
  commit_timestamp int64
response 2 GroupValue 99
  protocol_type string
  generation int32
  protocol string 0+ null 0+
  leader string 0+ null 0+
  current_state_timestamp int64
  members []
    member_id string
    group_instance_id string 0+ null 0+
    client_id string
    client_host string
    rebalance_timeout int32
    session_timeout int32
    subscription bytes
    assignment bytes
""")
_ENCODE = {key: struct_encoder(schema.fields, 0, False, schema.name) for key, schema in _SCHEMAS.items()}
_DECODE = {key: struct_decoder(schema.fields, 0, False, schema.name) for key, schema in _SCHEMAS.items()}
_VERSION = struct.Struct(">h")


class Committed(NamedTuple):
    """How far a group has come in one partition."""

    offset: int
    leader_epoch: int
    metadata: str
    time_ms: int


class OffsetKey(NamedTuple):
    """Whose offset, of what."""

    group: str
    topic: str
    partition: int


class GroupKey(NamedTuple):
    """Whose metadata."""

    group: str


def _packed(kind: tuple[str, int], version: int, body: dict[str, Any]) -> bytes:
    out: list[Buffer] = [_VERSION.pack(version)]
    _ENCODE[kind](out, body)
    return b"".join(out)


def _unpacked(kind: tuple[str, int], data: bytes) -> dict[str, Any]:
    try:
        body: dict[str, Any] = _DECODE[kind](memoryview(data), _VERSION.size, [MAX_ELEMENTS])[0]
    except (struct.error, IndexError, UnicodeDecodeError) as bad:
        raise DecodeError(f"a record of {TOPIC} that does not decode: {bad}") from bad
    return body


def offset_key(group: str, topic: str, partition: int) -> bytes:
    return _packed(("request", 1), OFFSET_KEY, {"group": group, "topic": topic, "partition": partition})


def offset_value(committed: Committed) -> bytes:
    body = committed._asdict()
    return _packed(("response", 1), OFFSET_VALUE, {**body, "commit_timestamp": committed.time_ms})


def group_key(group: str) -> bytes:
    return _packed(("request", 2), GROUP_KEY, {"group": group})


def group_value(body: dict[str, Any]) -> bytes:
    return _packed(("response", 2), GROUP_VALUE, body)


def read_key(data: bytes) -> OffsetKey | GroupKey | None:
    """None for a key of a kind that is not known (a newer version's). :raises DecodeError: damaged."""
    if len(data) < _VERSION.size:
        raise DecodeError("a record key without a version")
    version = _VERSION.unpack_from(data)[0]
    if version in (0, OFFSET_KEY):
        return OffsetKey(**_unpacked(("request", 1), data))
    return GroupKey(**_unpacked(("request", 2), data)) if version == GROUP_KEY else None


def read_offset(data: bytes) -> Committed:
    """:raises DecodeError: damaged."""
    body = _unpacked(("response", 1), data)
    return Committed(body["offset"], body["leader_epoch"], body["metadata"], body["commit_timestamp"])


def read_group(data: bytes) -> dict[str, Any]:
    """:raises DecodeError: damaged."""
    return _unpacked(("response", 2), data)


def partition_of(group: str, partitions: int) -> int:
    """Which partition of the topic a group belongs to: Java's String.hashCode, so that Kafka's tools agree."""
    number = 0
    raw = group.encode("utf-16-be", "surrogatepass")
    for at in range(0, len(raw), 2):
        number = (31 * number + (raw[at] << 8 | raw[at + 1])) & 0xFFFFFFFF
    signed = number - (1 << 32) if number & 0x80000000 else number
    return (0 if signed == -(1 << 31) else abs(signed)) % partitions
