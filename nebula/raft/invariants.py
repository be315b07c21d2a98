"""What must hold of one replica's Raft state, now and from one event to the next.

Checked after every event of the simulator; cheap enough for that. What concerns several replicas at once (one leader a
term, leader completeness) is the simulator's, which sees them all: `nebula.testing.invariants`.
"""

from __future__ import annotations

from typing import NamedTuple

from nebula.model import InvariantBroken, Position, Voter
from nebula.raft.node import RaftNode


class Seen(NamedTuple):
    """What is compared with the state after the next event."""

    term: int
    voted_for: Voter | None
    commit: Position
    persisted: Position

    @classmethod
    def of(cls, raft: RaftNode) -> Seen:
        """The state now."""
        return cls(raft.ballot.term, raft.ballot.voted_for, raft.commit, raft.persisted_end)


def check_state(raft: RaftNode) -> None:
    """:raises InvariantBroken: the state contradicts itself."""
    end = raft.end()
    if not raft.tail.start() <= raft.commit <= end:
        raise InvariantBroken(f"commit {raft.commit} outside of the log {raft.tail.start()} to {end}")
    if raft.persisted_end > end:
        raise InvariantBroken(f"persisted up to {raft.persisted_end}, the log ends at {end}")
    if raft.role == "leader":
        if raft.lead is None or raft.ballot.voted_for != raft.me:
            raise InvariantBroken("leads without its own vote")
        for voter, progress in raft.lead.peers.items():
            if progress.match > end:
                raise InvariantBroken(f"{voter.node} is said to match {progress.match}, the log ends at {end}")


def check_step(before: Seen, raft: RaftNode) -> None:
    """:raises InvariantBroken: something went back that only goes on (§5.2, §5.3): term, vote in a term, commit."""
    now = Seen.of(raft)
    if now.term < before.term:
        raise InvariantBroken(f"term went back from {before.term} to {now.term}")
    if now.term == before.term and before.voted_for is not None and now.voted_for != before.voted_for:
        raise InvariantBroken(f"two votes in term {now.term}: {before.voted_for} and {now.voted_for}")
    if now.commit < before.commit:
        raise InvariantBroken(f"commit went back from {before.commit} to {now.commit}")
