"""The codec against kio: random bodies of every message and version, byte for byte."""

from __future__ import annotations

import io
import random
from typing import Any

import kio.index
from kio.serial import entity_reader, entity_writer
from twisted.trial.unittest import SynchronousTestCase

from nebula import wire
from nebula.wire.schema import Field
from nebula.wire.versions import LOWEST

BITS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}


def number(rng: random.Random, field: Field) -> int:
    """A value that kio takes too: it knows error codes by name, and durations as such."""
    if "error_code" in field.name:
        return rng.choice([0, 1, 2, 3])
    return rng.getrandbits(31) if field.name.endswith("_ms") else rng.choice([0, 1, rng.getrandbits(BITS[field.type])])


def value(rng: random.Random, field: Field, version: int) -> Any:
    """A random value of the field, null where it may be."""
    if field.may_be_null(version) and rng.random() < 0.3:
        return None
    if field.type == "[]":
        return [struct_of(rng, field.fields, version) for _ in range(rng.randrange(3))]
    if field.type.endswith("[]"):
        return [value(rng, Field(field.name, field.type[:-2]), version) for _ in range(rng.randrange(3))]
    if field.type in BITS:
        return number(rng, field)
    made = {
        "bool": lambda: rng.random() < 0.5,
        "string": lambda: "ab\N{LATIN SMALL LETTER E WITH ACUTE}" * rng.choice([0, 1, 60]),
        "uuid": lambda: rng.randbytes(16),
        "bytes": lambda: rng.randbytes(rng.choice([0, 3, 2000])),
        "records": lambda: rng.randbytes(rng.choice([0, 3, 2000])),
    }
    return made[field.type]()


def struct_of(rng: random.Random, fields: list[Field], version: int) -> dict[str, Any]:
    """A random struct. Tagged structs are left out: one equal to its default is sent by us and left out by kio.

    Nor are empty tagged values kept: they are not sent.
    """
    made = {f.name: (f.tag, value(rng, f, version)) for f in fields if f.present(version) and f.type != "{}"}
    return {name: item for name, (tag, item) in made.items() if tag is None or item}


class KioTests(SynchronousTestCase):
    """Every message Nebula knows, at every version served."""

    def check(self, direction: str, api_key: int, version: int, body: dict[str, Any]) -> None:
        """Our bytes, read and written again by kio, are our bytes, and we read them as what was written."""
        request = direction == "request"
        out: list[Any] = []
        wire._codec(direction, api_key, version).encode(out, body)
        raw = b"".join(out)
        load = kio.index.load_request_schema if request else kio.index.load_response_schema
        entity, size = entity_reader(load(api_key, version))(raw, 0)
        again = io.BytesIO()
        entity_writer(load(api_key, version))(again, entity)
        name = f"{direction} {api_key} version {version}"
        self.assertEqual((size, again.getvalue()), (len(raw), raw), name)
        back, end = wire._codec(direction, api_key, version).decode(memoryview(raw), 0, [1000])
        self.assertEqual((back, end), (body, len(raw)), name)

    def test_every_message(self) -> None:
        """If this failed, some client would misread an answer of ours or be misread by us."""
        rng = random.Random(7)
        for (direction, api_key), schema in wire.SCHEMAS.items():
            low, high = wire.SERVED[api_key]
            for version in range(LOWEST.get(api_key, low), high + 1):
                for _ in range(20):
                    body = struct_of(rng, schema.fields, version)
                    self.check(direction, api_key, version, body)
