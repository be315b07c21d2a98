"""What is said of a member, and the order of claims about it.

Rule: of two claims about one name the one with the higher (number, rank) holds. Every member applies this rule alone,
in whatever order the claims come, and so all come to believe the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from nebula.model import DecodeError, NodeName

Address = tuple[str, int]
Scalar = str | int | float | bool | None

MAX_NAME = 64
"""Bytes of a member's name, disk id or cluster name."""
MAX_HOST = 128
"""Bytes of an address; longer host names belong into DNS, not into every datagram."""
MAX_VERSION = 32
MAX_META = 200
"""Bytes of encoded meta. With the bounds above, a ping about oneself and one claim about its target fit a datagram."""
MAX_NUMBER = 1 << 62
UNSPECIFIED = ("", "0.0.0.0", "::")
"""Hosts that mean "wherever this datagram came from"."""


class Status(StrEnum):
    """What is believed of a member; in the order in which, at the same number, one overrides the other."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


RANKS = {status: rank for rank, status in enumerate(Status)}
STATUSES = tuple(Status)


@dataclass(frozen=True, slots=True)
class Member:
    """What a member says of itself."""

    name: NodeName
    incarnation_id: str
    """Of its disk, not of its process: a node that lost its disk is another one to Raft."""
    host: str
    port: int
    """Gossip's port P; the node's other ports follow from it."""
    version: str = ""
    meta: Mapping[str, Scalar] = field(default_factory=dict, hash=False)
    """Small hints, such as who leads the controller."""

    @property
    def address(self) -> Address:
        return self.host, self.port


class MemberState(NamedTuple):
    """What is believed of a member."""

    member: Member
    status: Status
    number: int
    """SWIM's incarnation number: raised by the member alone."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody's word about a member."""

    member: Member
    status: Status
    number: int
    by: NodeName = ""
    """Who suspects, for a suspicion: independent ones confirm each other."""

    @property
    def weight(self) -> tuple[int, int]:
        return self.number, RANKS[self.status]


def encode_meta(meta: Mapping[str, Scalar]) -> bytes:
    """Meta as bytes.

    :raises ValueError: not flat, or more than MAX_META bytes.
    """
    if not _is_flat(meta):
        raise ValueError("gossip meta must map strings to strings, numbers, booleans or None")
    encoded = json.dumps(dict(meta), separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    if len(encoded) > MAX_META:
        raise ValueError(f"gossip meta of {len(encoded)} bytes; at most {MAX_META} fit")
    return encoded


def decode_meta(encoded: bytes) -> dict[str, Scalar]:
    """The reverse of `encode_meta`, of bytes from outside.

    :raises DecodeError: anything else.
    """
    try:
        meta = json.loads(encoded)
        encode_meta(meta)
    except (ValueError, RecursionError, TypeError) as error:
        raise DecodeError("gossip: meta is not a small flat object") from error
    return dict(meta)


def _is_flat(meta: object) -> bool:
    return isinstance(meta, Mapping) and all(
        isinstance(key, str) and (value is None or isinstance(value, str | int | float)) for key, value in meta.items()
    )


def check_member(member: Member) -> None:
    """Refuse what must not get into a table, wherever it came from.

    :raises ValueError: saying what is wrong.
    """
    check_text("name", member.name, MAX_NAME)
    check_text("incarnation", member.incarnation_id, MAX_NAME, may_be_empty=True)
    check_text("host", member.host, MAX_HOST, may_be_empty=True)
    check_text("version", member.version, MAX_VERSION, may_be_empty=True)
    if not 0 < member.port < 65536:
        raise ValueError(f"gossip port {member.port}")


def check_text(what: str, text: str, most: int, may_be_empty: bool = False) -> None:
    """Text that is logged, shown and resolved: printable, without spaces, bounded.

    :raises ValueError: it is not.
    """
    if not text and may_be_empty:
        return
    if not text or len(text.encode(errors="replace")) > most or not text.isprintable() or " " in text:
        raise ValueError(f"gossip {what} {text[:80]!r} must be printable, without spaces, of 1 to {most} bytes")
