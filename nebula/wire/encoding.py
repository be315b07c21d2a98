"""Writes the source of encoders: from dicts to chunks. Small pieces are packed together; record bytes stay as they are.

None for a number is its default; None for a string, array or struct is null where it may be, and empty otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from nebula.model import Buffer
from nebula.wire.decoding import NUMBERS
from nebula.wire.schema import Field
from nebula.wire.source import Source
from nebula.wire.varints import COMPACT, uvarint

NO_ID = bytes(16)
NULL_STRUCT, PRESENT, NO_TAGS = b"\xff", b"\x01", b"\x00"
Encode = Callable[[list[Buffer], Any], None]


def struct_encoder(fields: list[Field], version: int, flexible: bool, name: str = "struct") -> Encode:
    """The encoder of a struct given as a dict."""
    writer = _Encoder(version, flexible)
    writer.struct(fields, "body")
    made: Encode = writer.source.compile(f"encode {name} v{version}")
    return made


class _Encoder:
    """Writes one encoder at one version."""

    def __init__(self, version: int, flexible: bool) -> None:
        self.version = version
        self.flexible = flexible
        self.source = Source("out, body")
        self.source.names.update(compact=COMPACT, filled=_filled, put_bytes=_put_bytes, put_tags=_put_tags)
        self.source.names["pack_error"] = struct.error
        self.source.line("put = out.append")

    def struct(self, fields: list[Field], body: str) -> None:
        """The fields of the dict named `body`."""
        source, get = self.source, self.source.fresh()
        source.line(f"{get} = {body}.get")
        here = [f for f in fields if f.present(self.version)]
        for numeric, run in groupby((f for f in here if f.tag is None), lambda f: f.type in NUMBERS):
            if numeric:
                self._numbers(list(run), get)
            else:
                for field in run:
                    value = source.fresh()
                    source.line(f"{value} = {get}({field.name!r})")
                    self.value(field, value)
        if self.flexible:
            self._tags([f for f in here if f.tag is not None], body)

    def _numbers(self, run: list[Field], get: str) -> None:
        """Numbers side by side in one piece. Packing None raises, and only then defaults are looked up one by one."""
        source = self.source
        pack = source.constant(struct.Struct(">" + "".join(NUMBERS[f.type] for f in run)).pack)
        values = ", ".join(f"{get}({f.name!r}, {f.default})" for f in run)
        defaults = source.constant(tuple(f.default for f in run))
        with source.block("try"):
            source.line(f"put({pack}({values}))")
        with source.block("except pack_error"):
            source.line(f"put({pack}(*filled(({values},), {defaults})))")

    def value(self, field: Field, value: str) -> None:
        """One value that is not a plain number of a struct."""
        source, kind = self.source, field.type
        if kind == "uuid":
            source.line(f"put({value} or {NO_ID!r})")
        elif kind == "string":
            self._string(field, value)
        elif kind in ("records", "bytes"):
            source.line(f"put_bytes(out, {value}, {self._null(field, wide=True)}, {self.flexible})")
        elif kind == "{}":
            self._maybe_struct(field, value)
        elif kind.endswith("[]"):
            self._array(field, value)
        else:
            pack = source.constant(struct.Struct(">" + NUMBERS[kind]).pack)
            source.line(f"put({pack}({value}))")

    def _null(self, field: Field, wide: bool) -> str:
        """What stands for None: null, or empty where null is not allowed."""
        size = -1 if field.may_be_null(self.version) else 0
        return repr(COMPACT[size] if self.flexible else struct.pack(">i" if wide else ">h", size))

    def _put_length(self, size: str, wide: bool) -> None:
        if self.flexible:
            self.source.line(f"put(compact[{size}])")
        else:
            pack = self.source.constant(struct.Struct(">i" if wide else ">h").pack)
            self.source.line(f"put({pack}({size}))")

    def _string(self, field: Field, value: str) -> None:
        source = self.source
        with source.block(f"if {value} is None"):
            source.line(f"put({self._null(field, wide=False)})")
        with source.block("else"):
            source.line(f"{value} = {value}.encode()")
            self._put_length(f"len({value})", wide=False)
            source.line(f"put({value})")

    def _maybe_struct(self, field: Field, value: str) -> None:
        if not field.may_be_null(self.version):
            self.struct(field.fields, f"({value} or {{}})")
            return
        with self.source.block(f"if {value} is None"):
            self.source.line(f"put({NULL_STRUCT!r})")
        with self.source.block("else"):
            self.source.line(f"put({PRESENT!r})")
            self.struct(field.fields, value)

    def _array(self, field: Field, value: str) -> None:
        source, item = self.source, self.source.fresh()
        with source.block(f"if {value} is None"):
            source.line(f"put({self._null(field, wide=True)})")
        with source.block("else"):
            self._put_length(f"len({value})", wide=True)
            with source.block(f"for {item} in {value}"):
                self.value(Field(field.name, field.type[:-2] or "{}", fields=field.fields), item)

    def _tags(self, tagged: list[Field], body: str) -> None:
        if not tagged:
            self.source.line(f"put({NO_TAGS!r})")
            return
        rows = []
        for field in sorted(tagged, key=lambda f: f.tag or 0):
            writer = _Encoder(self.version, True)
            writer.value(Field(field.name, field.type, nullable=field.nullable, fields=field.fields), "body")
            rows.append((field.tag, field.name, writer.source.compile(f"encode {field.name}")))
        self.source.line(f"put_tags(out, {body}, {self.source.constant(rows)})")


def _filled(values: Sequence[Any], defaults: Sequence[int]) -> list[Any]:
    return [default if value is None else value for value, default in zip(values, defaults, strict=True)]


def _put_bytes(out: list[Buffer], value: Any, null: bytes, flexible: bool) -> None:
    """Bytes, or a list of chunks that are one value together; nothing is copied."""
    if value is None:
        out.append(null)
        return
    size = sum(map(len, value)) if isinstance(value, list) else len(value)
    out.append(COMPACT[size] if flexible else struct.pack(">i", size))
    if isinstance(value, list):
        out.extend(value)
    else:
        out.append(value)


def _put_tags(out: list[Buffer], body: dict[str, Any], known: list[tuple[int, str, Encode]]) -> None:
    """Tagged fields that have a value other than nothing; their default is not sent."""
    sent = [(tag, body[name], write) for tag, name, write in known if body.get(name)]
    out.append(uvarint(len(sent)))
    for tag, value, write in sent:
        part: list[Buffer] = []
        write(part, value)
        raw = b"".join(part)
        out.append(uvarint(tag) + uvarint(len(raw)) + raw)
