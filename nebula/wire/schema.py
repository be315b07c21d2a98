"""Reads the schema text into fields."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX = 1 << 15
Range = tuple[int, int]


@dataclass(slots=True)
class Field:
    """One field of a message or struct."""

    name: str
    type: str
    versions: Range = (0, MAX)
    nullable: Range = (1, 0)
    tag: int | None = None
    default: int = 0
    fields: list[Field] = field(default_factory=list)

    def present(self, version: int) -> bool:
        return self.versions[0] <= version <= self.versions[1]

    def may_be_null(self, version: int) -> bool:
        return self.nullable[0] <= version <= self.nullable[1]


@dataclass(slots=True)
class Schema:
    """One message: an API's request or response."""

    key: int
    name: str
    flexible_from: int
    fields: list[Field] = field(default_factory=list)


def _range(word: str) -> Range:
    if word.endswith("+"):
        return int(word[:-1]), MAX
    low, _, high = word.partition("-")
    return int(low), int(high or low)


def _field(words: list[str]) -> Field:
    made = Field(words[0], words[1])
    rest = words[2:]
    while rest:
        word = rest.pop(0)
        if word == "null":
            made.nullable = _range(rest.pop(0))
        elif word == "tag":
            made.tag = int(rest.pop(0))
            rest.pop(0)
        elif word == "=":
            made.default = int(rest.pop(0))
        else:
            made.versions = _range(word)
    return made


def parse(text: str) -> dict[tuple[str, int], Schema]:
    """(direction, API key) → schema."""
    schemas: dict[tuple[str, int], Schema] = {}
    stack: list[list[Field]] = []
    for line in filter(str.strip, text.splitlines()):
        words = line.split()
        depth = (len(line) - len(line.lstrip())) // 2
        if depth == 0:
            schema = Schema(int(words[1]), words[2], int(words[3]))
            schemas[words[0], schema.key] = schema
            stack = [schema.fields]
        else:
            made = _field(words)
            del stack[depth:]
            stack[-1].append(made)
            stack.append(made.fields)
    return schemas
