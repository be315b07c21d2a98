"""What Raft nodes say to each other. Every message carries its sender's term; all are immutable values."""

from __future__ import annotations

from dataclasses import dataclass

from nebula.model import Position, Term, Voter
from nebula.records.entries import Run
from nebula.records.start import StartRecord


@dataclass(frozen=True, slots=True)
class Ballot:
    """What must be on disk before a promise leaves: the term and who got this node's vote in it."""

    term: Term
    voted_for: Voter | None


@dataclass(frozen=True, slots=True)
class PreVote:
    """Would you vote for me in `term`? Changes nothing at anybody (dissertation §9.6)."""

    term: Term
    last: Position


@dataclass(frozen=True, slots=True)
class PreVoteReply:
    term: Term
    granted: bool


@dataclass(frozen=True, slots=True)
class Vote:
    """RequestVote (§5.2)."""

    term: Term
    last: Position


@dataclass(frozen=True, slots=True)
class VoteReply:
    term: Term
    granted: bool


@dataclass(frozen=True, slots=True)
class Append:
    """AppendEntries (§5.3): `run` continues at `prev`."""

    term: Term
    prev: Position
    run: Run
    commit: Position
    round: int


@dataclass(frozen=True, slots=True)
class AppendReply:
    """The sender has everything up to `match` on its disk."""

    term: Term
    match: Position
    round: int


@dataclass(frozen=True, slots=True)
class AppendReject:
    """The sender's log lacks `prev`; the two logs may agree up to `last_common`."""

    term: Term
    last_common: Position
    round: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    term: Term
    commit: Position
    round: int


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    term: Term
    match: Position
    round: int


@dataclass(frozen=True, slots=True)
class Install:
    """The receiver's log ends before the leader's begins: start over from this record (§7)."""

    term: Term
    start: StartRecord


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """Campaign at once: leadership is handed to you (dissertation §3.10)."""

    term: Term


Message = (
    PreVote | PreVoteReply | Vote | VoteReply | Append | AppendReply | AppendReject | Heartbeat | HeartbeatReply
    | Install | TimeoutNow
)  # fmt: skip
