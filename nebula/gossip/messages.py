"""Datagrams, and nothing about what they mean.

A datagram, numbers big-endian, `text` a length byte and UTF-8::

    "NBG" version:u8 kind:u8 cluster:text sender:text echo:u64 cookie:u64 nonce:u64 target:text proved:u8
    count:u8 count × (name:text incarnation:text host:text port:u16 version:text meta:text status:u8 number:u64 by:text)
    padding

`echo` is the cookie the sender last received from this address (0: none), `cookie` the one it wants echoed. `proved`,
in an answer, says whether the question's echo was right. What follows the claims is padding and not looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from nebula.gossip.member import (
    MAX_HOST,
    MAX_META,
    MAX_NAME,
    MAX_NUMBER,
    MAX_VERSION,
    STATUSES,
    Claim,
    Member,
    check_member,
    check_text,
    decode_meta,
    encode_meta,
)
from nebula.model import DecodeError, NodeName

MAGIC = b"NBG\x01"
MAX_DATAGRAM = 1400
"""Below any usual MTU: a fragmented datagram is lost with any of its fragments."""
MAX_CLAIMS = 255
"""What the count byte holds; the size of a datagram allows some 60."""
QUESTION_SIZE = 192
"""Pings are padded to this, longer than any answer without claims, so that a stranger's may be answered."""

_NUMBERS = struct.Struct(">QQQ")
_PORT = struct.Struct(">H")
_STANDING = struct.Struct(">BQ")


class Kind(IntEnum):
    """What a datagram asks or says."""

    PING = 1
    ACK = 2
    PING_REQ = 3
    """Please ping `target` for me; answered by an ACK or a NACK with my nonce."""
    NACK = 4
    """I asked; it did not answer. But I am here, so your own network is not what is broken."""
    PULL = 5
    """Please send all you know."""
    STATE = 6
    GOSSIP = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One datagram."""

    kind: Kind
    cluster: str
    sender: NodeName
    echo: int = 0
    cookie: int = 0
    nonce: int = 0
    target: NodeName = ""
    proved: bool = False
    claims: tuple[Claim, ...] = ()


def encode(message: Message, claims: Sequence[bytes] = ()) -> bytes:
    """A datagram; `claims` are encoded ones and stand in for the message's own."""
    encoded = claims or [encode_claim(claim) for claim in message.claims]
    return b"".join((
        MAGIC, bytes((message.kind,)), _text(message.cluster), _text(message.sender),
        _NUMBERS.pack(message.echo, message.cookie, message.nonce),
        _text(message.target), bytes((message.proved, len(encoded))), *encoded,
    ))  # fmt: skip


def encode_claim(claim: Claim) -> bytes:
    """A claim as it stands in a datagram."""
    m = claim.member
    meta = encode_meta(m.meta)
    return b"".join((
        _text(m.name), _text(m.incarnation_id), _text(m.host), _PORT.pack(m.port), _text(m.version),
        bytes((len(meta),)), meta, _STANDING.pack(STATUSES.index(claim.status), claim.number), _text(claim.by),
    ))  # fmt: skip


def decode(data: bytes) -> Message:
    """The message in a datagram, whoever sent it.

    :raises DecodeError: it is none. Nothing else is raised, and the work is bounded by the datagram's size.
    """
    if len(data) > MAX_DATAGRAM or not data.startswith(MAGIC):
        raise DecodeError("gossip: not a datagram of this version")
    try:
        return _Reader(data).message()
    except (ValueError, IndexError, struct.error) as error:
        raise DecodeError(f"gossip: {error}") from error


def _text(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


class _Reader:
    """A place in a datagram. Reading past the end raises ValueError, IndexError or struct.error."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = len(MAGIC)

    def message(self) -> Message:
        kind = Kind(self._byte())
        cluster, sender = self._text("cluster", MAX_NAME, True), self._text("sender", MAX_NAME, False)
        echo, cookie, nonce = self._unpack(_NUMBERS)
        target = self._text("target", MAX_NAME, True)
        proved = bool(self._byte())
        claims = tuple(self._claim() for _ in range(self._byte()))
        return Message(
            kind=kind, cluster=cluster, sender=sender, echo=echo, cookie=cookie, nonce=nonce, target=target,
            proved=proved, claims=claims,
        )  # fmt: skip

    def _claim(self) -> Claim:
        name, incarnation = self._text("name", MAX_NAME, False), self._text("incarnation", MAX_NAME, True)
        host = self._text("host", MAX_HOST, True)
        (port,) = self._unpack(_PORT)
        version = self._text("version", MAX_VERSION, True)
        meta = decode_meta(self._bytes(MAX_META))
        status, number = self._unpack(_STANDING)
        member = Member(name, incarnation, host, port, version, meta)
        check_member(member)
        if number > MAX_NUMBER:
            raise ValueError(f"number {number}")
        return Claim(member, STATUSES[status], number, self._text("by", MAX_NAME, True))

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, most: int) -> bytes:
        size = self._byte()
        if size > min(most, len(self._data) - self._at):
            raise ValueError(f"a field of {size} bytes")
        self._at += size
        return self._data[self._at - size : self._at]

    def _text(self, what: str, most: int, may_be_empty: bool) -> str:
        text = self._bytes(most).decode()
        check_text(what, text, most, may_be_empty)
        return text

    def _unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        self._at += layout.size
        return layout.unpack_from(self._data, self._at - layout.size)
