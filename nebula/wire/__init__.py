"""Kafka's wire protocol, sans I/O: frames, headers, and messages as dicts.

`decode_request` and `encode_response` are the server's side, `encode_request` and `decode_response` the client's. Record
bytes are never copied: a decoded ``records`` is a view of the frame, an encoded one is among the chunks as it was given.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any, NamedTuple

from nebula.model import Buffer, DecodeError
from nebula.wire import errors
from nebula.wire.decoding import Decode, struct_decoder
from nebula.wire.encoding import Encode, struct_encoder
from nebula.wire.schema import Field, Schema, parse
from nebula.wire.schemas import core, groups
from nebula.wire.versions import LOWEST, SERVED

__all__ = [
    "LOWEST",
    "SERVED",
    "Request",
    "UnsupportedVersion",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
    "errors",
]
HEAD = struct.Struct(">hhi")
SHORT = struct.Struct(">h")
INT = struct.Struct(">i")
API_VERSIONS = 18
SCHEMAS = parse(core.TEXT + groups.TEXT)
MAX_ELEMENTS = 200_000
"""Elements of all arrays of one message: more than any client sends, few enough to decode in a fraction of a second."""
MERGED_BELOW = 1024
"""Chunks shorter than this are copied together: cheaper than one more entry of a gather write."""


class UnsupportedVersion(DecodeError):
    """An API or version that is not served; only the header was read."""

    def __init__(self, api_key: int, version: int, correlation_id: int) -> None:
        super().__init__(f"API {api_key} version {version} is not served")
        self.api_key = api_key
        self.version = version
        self.correlation_id = correlation_id


class Request(NamedTuple):
    """A decoded request."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str | None
    body: dict[str, Any]


def _schema(direction: str, api_key: int, version: int) -> Schema:
    """The tables stop at the served versions: beyond them they would silently give the wrong bytes."""
    low, high = SERVED.get(api_key, (1, 0))
    if not LOWEST.get(api_key, low) <= version <= high:
        raise UnsupportedVersion(api_key, version, -1)
    return SCHEMAS[direction, api_key]


class Codec(NamedTuple):
    """One message at one version."""

    decode: Decode
    encode: Encode
    flexible: bool
    plain: bool
    """It has no record bytes: its pieces are all small."""


@cache
def _codec(direction: str, api_key: int, version: int) -> Codec:
    schema = _schema(direction, api_key, version)
    flexible, name = version >= schema.flexible_from, f"{schema.name} {direction}"
    return Codec(
        struct_decoder(schema.fields, version, flexible, name),
        struct_encoder(schema.fields, version, flexible, name),
        flexible,
        not _has_records(schema.fields),
    )


def _has_records(fields: list[Field]) -> bool:
    return any(field.type == "records" or _has_records(field.fields) for field in fields)


def decode_request(frame: memoryview) -> Request:
    """:raises UnsupportedVersion: not served. :raises DecodeError: whatever else is wrong with the bytes."""
    try:
        api_key, version, correlation_id = HEAD.unpack_from(frame)
        low, high = SERVED.get(api_key, (1, 0))
        if not LOWEST.get(api_key, low) <= version <= high:
            raise UnsupportedVersion(api_key, version, correlation_id)
        at = HEAD.size
        size = SHORT.unpack_from(frame, at)[0]
        at += 2
        if not -1 <= size <= len(frame) - at:
            raise DecodeError(f"a client id of {size} bytes, {len(frame) - at} are there")
        client_id = str(frame[at : at + size], "utf-8", "replace") if size >= 0 else None
        at += max(0, size)
        codec = _codec("request", api_key, version)
        if codec.flexible:
            _, at = _skip_tags(frame, at, [0])
        body, _ = codec.decode(frame, at, [MAX_ELEMENTS])
    except (struct.error, IndexError, UnicodeDecodeError) as bad:
        raise DecodeError(f"a request that does not decode: {bad}") from bad
    return Request(api_key, version, correlation_id, client_id, body)


_skip_tags = struct_decoder([], 0, True)


def encode_response(api_key: int, version: int, correlation_id: int, body: dict[str, Any]) -> list[Buffer]:
    """Chunks of the whole frame. ApiVersions keeps header v0 whatever its version (gotcha 1)."""
    codec = _codec("response", api_key, version)
    head = INT.pack(correlation_id)
    if codec.flexible and api_key != API_VERSIONS:
        head += b"\0"
    return _framed(head, codec, body)


def encode_request(
    api_key: int, version: int, correlation_id: int, client_id: str, body: dict[str, Any]
) -> list[Buffer]:
    """Chunks of the whole frame; the client id stays a non-compact string (gotcha 1)."""
    name = client_id.encode()
    head = HEAD.pack(api_key, version, correlation_id) + SHORT.pack(len(name)) + name
    codec = _codec("request", api_key, version)
    if codec.flexible:
        head += b"\0"
    return _framed(head, codec, body)


def _framed(head: bytes, codec: Codec, body: dict[str, Any]) -> list[Buffer]:
    out: list[Buffer] = [head]
    codec.encode(out, body)
    if codec.plain:
        data = b"".join(out)
        return [INT.pack(len(data)) + data]
    merged: list[Buffer] = []
    small: list[Buffer] = []
    for chunk in out:  # small pieces are joined; record bytes stay as they are
        if len(chunk) < MERGED_BELOW:
            small.append(chunk)
        else:
            merged += b"".join(small), chunk
            small = []
    merged.append(b"".join(small))
    merged[0] = INT.pack(sum(map(len, merged))) + bytes(merged[0])
    return merged


def decode_response(api_key: int, version: int, frame: memoryview) -> tuple[int, dict[str, Any]]:
    """(correlation id, body) of a frame without its length. :raises DecodeError: it does not decode."""
    try:
        codec = _codec("response", api_key, version)
        correlation_id, at = INT.unpack_from(frame)[0], INT.size
        if codec.flexible and api_key != API_VERSIONS:
            _, at = _skip_tags(frame, at, [0])
        return correlation_id, codec.decode(frame, at, [MAX_ELEMENTS])[0]
    except (struct.error, IndexError, UnicodeDecodeError) as bad:
        raise DecodeError(f"a response that does not decode: {bad}") from bad
