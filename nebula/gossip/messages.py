"""Members, what is believed of them, and datagrams."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nebula.model import DecodeError, NodeName

VERSION = 1
MAX_DATAGRAM = 1400
ALIVE, SUSPECT, DEAD, LEFT = "alive", "suspect", "dead", "left"
RANK = {ALIVE: 0, SUSPECT: 1, DEAD: 2, LEFT: 3}


@dataclass(frozen=True, slots=True)
class Member:
    """Who a node is and where it listens."""

    name: NodeName
    incarnation_id: str
    host: str
    port: int
    version: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemberState:
    """What is believed of a member. A higher number always wins; at the same number the worse news does."""

    member: Member
    status: str
    number: int
    """SWIM's incarnation number: only the member itself raises it."""

    def beats(self, other: MemberState | None) -> bool:
        if other is None:
            return True
        return (self.number, RANK[self.status]) > (other.number, RANK[other.status])

    def as_row(self) -> list[Any]:
        m = self.member
        return [m.name, m.incarnation_id, m.host, m.port, m.version, dict(m.meta), self.status, self.number]

    @classmethod
    def from_row(cls, row: Any) -> MemberState:
        """:raises DecodeError: not a member's row."""
        try:
            name, incarnation, host, port, version, meta, status, number = row
            texts = all(isinstance(t, str) and len(t) <= 255 for t in (name, incarnation, host, version))
            if not (texts and status in RANK and isinstance(meta, dict) and len(meta) <= 8):
                raise ValueError(row)
            if not (0 < int(port) < 65536 and 0 <= int(number) < 1 << 62 and name and host):
                raise ValueError(row)
            return cls(Member(name, incarnation, host, int(port), version, meta), status, int(number))
        except (ValueError, TypeError) as bad:
            raise DecodeError("not a member") from bad


def encode(cluster: str, kind: str, body: Mapping[str, Any], updates: list[list[Any]]) -> bytes:
    """A datagram with as many of `updates` as fit; those that do are removed from the list."""
    taken: list[list[Any]] = []
    message = {"v": VERSION, "c": cluster, "k": kind, **body, "u": taken}
    data = json.dumps(message, separators=(",", ":")).encode()
    while updates:
        taken.append(updates[0])
        longer = json.dumps(message, separators=(",", ":")).encode()
        if len(longer) > MAX_DATAGRAM:
            taken.pop()
            break
        data = longer
        updates.pop(0)
    return data


def decode(data: bytes) -> dict[str, Any]:
    """:raises DecodeError: not a datagram of this version."""
    if len(data) > MAX_DATAGRAM:
        raise DecodeError("a datagram longer than any of ours")
    try:
        message = json.loads(data)
        if message["v"] != VERSION or not isinstance(message["c"], str) or not isinstance(message["u"], list):
            raise DecodeError("another version")
        return dict(message)
    except (ValueError, KeyError, TypeError, RecursionError) as bad:
        raise DecodeError("not a gossip datagram") from bad
