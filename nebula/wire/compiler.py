"""Compiles a schema, at one version, into a decoder and an encoder made of closures; each is made at first use.

Decoding is bounded whatever the bytes: counts are checked against the bytes left and a cap on elements per message,
varints have a maximal width, unknown tags are skipped and kept nowhere, and the only error is DecodeError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from nebula.model import Buffer, DecodeError
from nebula.wire.schema import Field

MAX_ELEMENTS = 200_000
"""Elements of all arrays of one message: more than any client sends, few enough to decode in a fraction of a second."""
MAX_TAGS = 64
Budget = list[int]
"""One number: how many array elements this message may still have. Shared by nested arrays, or they would multiply."""
Decode = Callable[[memoryview, int, Budget], tuple[Any, int]]
Encode = Callable[[list[Buffer], Any], None]
NUMBERS = {"int8": ">b", "int16": ">h", "int32": ">i", "int64": ">q", "bool": ">?", "uint16": ">H"}


def read_uvarint(view: memoryview, at: int) -> tuple[int, int]:
    """Unsigned varint of at most five bytes."""
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
    """Unsigned varint."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _take(view: memoryview, at: int, size: int) -> memoryview:
    if size < 0 or at + size > len(view):
        raise DecodeError(f"{size} bytes are named, {len(view) - at} are there")
    return view[at : at + size]


def _length(view: memoryview, at: int, flexible: bool, wide: bool) -> tuple[int, int]:
    """A length or count; -1 is null."""
    if flexible:
        size, at = read_uvarint(view, at)
        return size - 1, at
    if wide:
        return struct.unpack_from(">i", view, at)[0], at + 4
    return struct.unpack_from(">h", view, at)[0], at + 2


def _pack_length(size: int, flexible: bool, wide: bool) -> bytes:
    return uvarint(size + 1) if flexible else struct.pack(">i" if wide else ">h", size)


def decoder(field: Field, version: int, flexible: bool) -> Decode:
    """The decoder of one field's value."""
    if field.type in NUMBERS:
        unpack, size = struct.Struct(NUMBERS[field.type]).unpack_from, struct.calcsize(NUMBERS[field.type])
        return lambda view, at, _budget: (unpack(view, at)[0], at + size)
    if field.type == "uuid":
        return lambda view, at, _budget: (bytes(_take(view, at, 16)), at + 16)
    if field.type in ("string", "records"):
        return _bytes_decoder(field, version, flexible)
    if field.type == "{}":
        return struct_decoder(field.fields, version, flexible)
    if field.type == "[]":
        return _array_decoder(struct_decoder(field.fields, version, flexible), field, version, flexible)
    element = decoder(Field(field.name, field.type[:-2]), version, flexible)
    return _array_decoder(element, field, version, flexible)


def _bytes_decoder(field: Field, version: int, flexible: bool) -> Decode:
    text, nullable = field.type == "string", field.may_be_null(version)

    def decode(view: memoryview, at: int, budget: Budget) -> tuple[Any, int]:
        size, at = _length(view, at, flexible, not text)
        if size < 0:
            if size != -1 or not nullable:
                raise DecodeError(f"{field.name} cannot have length {size}")
            return None, at
        part = _take(view, at, size)
        return (str(part, "utf-8") if text else part), at + size

    return decode


def _array_decoder(element: Decode, field: Field, version: int, flexible: bool) -> Decode:
    nullable = field.may_be_null(version)

    def decode(view: memoryview, at: int, budget: Budget) -> tuple[Any, int]:
        count, at = _length(view, at, flexible, True)
        if count < 0:
            if count != -1 or not nullable:
                raise DecodeError(f"{field.name} cannot have {count} elements")
            return None, at
        budget[0] -= count
        if count > len(view) - at or budget[0] < 0:
            raise DecodeError(f"{count} elements of {field.name} in {len(view) - at} bytes")
        items = []
        for _ in range(count):
            item, at = element(view, at, budget)
            items.append(item)
        return items, at

    return decode


def struct_decoder(fields: list[Field], version: int, flexible: bool) -> Decode:
    """The decoder of a struct: a dict of the fields this version has, without tagged ones that were not sent."""
    here = [f for f in fields if f.present(version)]
    plain = [(f.name, decoder(f, version, flexible)) for f in here if f.tag is None]
    tagged: dict[int | None, tuple[str, Decode]]
    tagged = {f.tag: (f.name, decoder(f, version, flexible)) for f in here if f.tag is not None}

    def decode(view: memoryview, at: int, budget: Budget) -> tuple[Any, int]:
        body: dict[str, Any] = {}
        for name, read in plain:
            body[name], at = read(view, at, budget)
        if flexible:
            at = _decode_tags(view, at, tagged, body, budget)
        return body, at

    return decode


def _decode_tags(
    view: memoryview, at: int, known: dict[int | None, tuple[str, Decode]], body: dict[str, Any], budget: Budget
) -> int:
    count, at = read_uvarint(view, at)
    if count > MAX_TAGS:
        raise DecodeError(f"{count} tagged fields")
    for _ in range(count):
        tag, at = read_uvarint(view, at)
        size, at = read_uvarint(view, at)
        part = _take(view, at, size)
        if tag in known:
            name, read = known[tag]
            body[name], _ = read(part, 0, budget)
        at += size
    return at


def encoder(field: Field, version: int, flexible: bool) -> Encode:
    """The encoder of one field's value; None means the default (or null where it may be)."""
    if field.type in NUMBERS:
        pack, default = struct.Struct(NUMBERS[field.type]).pack, field.default
        return lambda out, value: out.append(pack(default if value is None else value))
    if field.type == "uuid":
        return lambda out, value: out.append(value or bytes(16))
    if field.type in ("string", "records"):
        return _bytes_encoder(field, version, flexible)
    if field.type == "{}":
        return struct_encoder(field.fields, version, flexible)
    inner = struct_encoder(field.fields, version, flexible) if field.type == "[]" else None
    element = inner or encoder(Field(field.name, field.type[:-2]), version, flexible)
    null = _pack_length(-1 if field.may_be_null(version) else 0, flexible, True)

    def encode(out: list[Buffer], value: Any) -> None:
        if value is None:
            out.append(null)
            return
        out.append(_pack_length(len(value), flexible, True))
        for item in value:
            element(out, item)

    return encode


def _bytes_encoder(field: Field, version: int, flexible: bool) -> Encode:
    text = field.type == "string"
    null = _pack_length(-1 if field.may_be_null(version) else 0, flexible, not text)

    def encode(out: list[Buffer], value: Any) -> None:
        if value is None:
            out.append(null)
        elif isinstance(value, list):
            out.append(_pack_length(sum(map(len, value)), flexible, True))
            out.extend(value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out.append(_pack_length(len(raw), flexible, not text))
            out.append(raw)

    return encode


def struct_encoder(fields: list[Field], version: int, flexible: bool) -> Encode:
    """The encoder of a struct given as a dict."""
    here = [f for f in fields if f.present(version)]
    plain = [(f.name, encoder(f, version, flexible)) for f in here if f.tag is None]
    tagged = sorted((f.tag, f.name, encoder(f, version, flexible)) for f in here if f.tag is not None)

    def encode(out: list[Buffer], body: Any) -> None:
        for name, write in plain:
            write(out, body.get(name))
        if flexible:
            _encode_tags(out, [(tag, write, body[name]) for tag, name, write in tagged if body.get(name)])

    return encode


def _encode_tags(out: list[Buffer], sent: list[tuple[int, Encode, Any]]) -> None:
    out.append(uvarint(len(sent)))
    for tag, write, value in sent:
        part: list[Buffer] = []
        write(part, value)
        raw = b"".join(part)
        out.append(uvarint(tag) + uvarint(len(raw)) + raw)
