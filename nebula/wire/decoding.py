"""Writes the source of decoders: straight lines over one memoryview, with every bound checked before it is relied on.

Rules:

1. Counts are checked against the bytes left and against a budget of elements per message, before anything is allocated.
2. A slice past the end would be silently short: each is preceded by a check. Reading a number past its end raises.
3. Unknown tags are skipped, counted against a cap, and kept nowhere.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import groupby
from typing import Any

from nebula.model import DecodeError
from nebula.wire.schema import Field
from nebula.wire.source import Source
from nebula.wire.varints import read_uvarint

NUMBERS = {"int8": "b", "int16": "h", "int32": "i", "int64": "q", "bool": "?", "uint16": "H", "float64": "d"}
MAX_TAGS = 64
Budget = list[int]
"""One number: how many array elements this message may still have. Shared by nested arrays, or they would multiply."""
Decode = Callable[[memoryview, int, Budget], tuple[Any, int]]


def struct_decoder(fields: list[Field], version: int, flexible: bool, name: str = "struct") -> Decode:
    """The decoder of a struct: a dict of the fields this version has, without tagged ones that were not sent."""
    writer = _Decoder(version, flexible)
    writer.struct(fields, "result")
    return writer.finished(name)


class _Decoder:
    """Writes one decoder at one version."""

    def __init__(self, version: int, flexible: bool) -> None:
        self.version = version
        self.flexible = flexible
        self.source = Source("view, at, budget")
        self.source.names.update(read_uvarint=read_uvarint, short=_short, bad_length=_bad_length, too_many=_too_many)
        self.source.line("size = len(view)")

    def finished(self, name: str) -> Decode:
        self.source.line("return result, at")
        made: Decode = self.source.compile(f"decode {name} v{self.version}")
        return made

    def struct(self, fields: list[Field], target: str) -> None:
        """Fields into a new dict named `target`; numbers that lie side by side are unpacked together."""
        here = [f for f in fields if f.present(self.version)]
        values: dict[str, str] = {}
        for numeric, run in groupby((f for f in here if f.tag is None), lambda f: f.type in NUMBERS):
            if numeric:
                self._numbers(list(run), values)
            else:
                for field in run:
                    values[field.name] = self.source.fresh()
                    self.value(field, values[field.name])
        self.source.line(f"{target} = {{{', '.join(f'{name!r}: {value}' for name, value in values.items())}}}")
        if self.flexible:
            self._tags([f for f in here if f.tag is not None], target)

    def _numbers(self, run: list[Field], values: dict[str, str]) -> None:
        shape = struct.Struct(">" + "".join(NUMBERS[f.type] for f in run))
        for field in run:
            values[field.name] = self.source.fresh()
        unpack = self.source.constant(shape.unpack_from)
        self.source.line(f"{', '.join(values[f.name] for f in run)}, = {unpack}(view, at)")
        self.source.line(f"at += {shape.size}")

    def value(self, field: Field, target: str) -> None:
        """One value that is not a plain number of a struct."""
        kind = field.type
        if kind == "uuid":
            self._slice("16", target, "bytes({})")
        elif kind == "string":
            self._sized(field, target, "str({}, 'utf-8')", wide=False)
        elif kind in ("records", "bytes"):
            self._sized(field, target, "{}", wide=True)
        elif kind == "{}":
            self._maybe_struct(field, target)
        elif kind.endswith("[]"):
            self._array(field, target)
        else:
            single: dict[str, str] = {}
            self._numbers([field], single)
            self.source.line(f"{target} = {single[field.name]}")

    def _slice(self, size: str, target: str, make: str) -> None:
        source, end = self.source, self.source.fresh()
        source.line(f"{end} = at + {size}")
        with source.block(f"if {end} > size"):
            source.line(f"short({size}, size - at)")
        source.line(f"{target} = {make.format(f'view[at:{end}]')}")
        source.line(f"at = {end}")

    def _length(self, wide: bool) -> str:
        """The name of a length or count that was read; -1 is null."""
        source, length = self.source, self.source.fresh()
        if self.flexible:
            source.line(f"{length} = view[at]")
            with source.block(f"if {length} < 128"):
                source.line("at += 1")
            with source.block("else"):
                source.line(f"{length}, at = read_uvarint(view, at)")
            source.line(f"{length} -= 1")
        else:
            shape = struct.Struct(">i" if wide else ">h")
            source.line(f"{length}, = {source.constant(shape.unpack_from)}(view, at)")
            source.line(f"at += {shape.size}")
        return length

    def _null(self, field: Field, length: str, target: str) -> None:
        if field.may_be_null(self.version):
            with self.source.block(f"if {length} != -1"):
                self.source.line(f"bad_length({field.name!r}, {length})")
            self.source.line(f"{target} = None")
        else:
            self.source.line(f"bad_length({field.name!r}, {length})")

    def _sized(self, field: Field, target: str, make: str, wide: bool) -> None:
        length = self._length(wide)
        with self.source.block(f"if {length} < 0"):
            self._null(field, length, target)
        with self.source.block("else"):
            self._slice(length, target, make)

    def _maybe_struct(self, field: Field, target: str) -> None:
        """A struct; one that may be null has a byte before it: -1 for null (Kafka's message format)."""
        if not field.may_be_null(self.version):
            self.struct(field.fields, target)
            return
        there: dict[str, str] = {}
        self._numbers([Field(field.name, "int8")], there)
        with self.source.block(f"if {there[field.name]} < 0"):
            self.source.line(f"{target} = None")
        with self.source.block("else"):
            self.struct(field.fields, target)

    def _array(self, field: Field, target: str) -> None:
        source, count = self.source, self._length(True)
        with source.block(f"if {count} < 0"):
            self._null(field, count, target)
        with source.block("else"):
            source.line(f"budget[0] -= {count}")
            with source.block(f"if {count} > size - at or budget[0] < 0"):
                source.line(f"too_many({field.name!r}, {count}, size - at)")
            source.line(f"{target} = []")
            with source.block(f"for _ in range({count})"):
                item = source.fresh()
                inner = Field(field.name, field.type[:-2] or "{}", fields=field.fields)
                self.value(inner, item)
                source.line(f"{target}.append({item})")

    def _tags(self, tagged: list[Field], target: str) -> None:
        """No tags, which is nearly always, costs one comparison."""
        known = {}
        for field in tagged:
            reader = _Decoder(self.version, True)
            reader.value(Field(field.name, field.type, nullable=field.nullable, fields=field.fields), "result")
            known[field.tag] = (field.name, reader.finished(field.name))
        with self.source.block("if view[at]"):
            tags = self.source.constant(known)
            self.source.names["read_tags"] = _read_tags
            self.source.line(f"at = read_tags(view, at, {tags}, {target}, budget)")
        with self.source.block("else"):
            self.source.line("at += 1")


def _read_tags(
    view: memoryview, at: int, known: dict[int, tuple[str, Decode]], body: dict[str, Any], budget: Budget
) -> int:
    count, at = read_uvarint(view, at)
    if count > MAX_TAGS:
        raise DecodeError(f"{count} tagged fields")
    for _ in range(count):
        tag, at = read_uvarint(view, at)
        size, at = read_uvarint(view, at)
        if size > len(view) - at:
            _short(size, len(view) - at)
        if tag in known:
            name, read = known[tag]
            body[name], _ = read(view[at : at + size], 0, budget)
        at += size
    return at


def _short(wanted: int, there: int) -> None:
    raise DecodeError(f"{wanted} bytes are named, {there} are there")


def _bad_length(name: str, length: int) -> None:
    raise DecodeError(f"{name} cannot have length {length}")


def _too_many(name: str, count: int, there: int) -> None:
    raise DecodeError(f"{count} elements of {name} in {there} bytes")
