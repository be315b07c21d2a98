"""Six kept mutants: each breaks one rule that must not be broken, and the simulator must notice (RELIABILITY §3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nebula.broker.drain import Drain
from nebula.model import Position
from nebula.raft.leader import Leader
from nebula.raft.node import RaftNode
from nebula.raft.quorum import agreed
from nebula.raft.tail import Tail


@contextmanager
def patched(owner: type, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` for a while."""
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def acknowledge_before_persisted() -> Any:
    """A write counts as durable as soon as it is written."""
    original = Drain.written

    def written(self: Drain, partition: Any, end: Position, nbytes: int) -> None:
        original(self, partition, end, nbytes)
        partition.raft.persisted(end)
        self.mark(partition)

    return patched(Drain, "written", written)


def vote_before_ballot() -> Any:
    """Votes leave, and count, before the ballot is on disk."""
    return patched(RaftNode, "say", lambda self, to, message: self._out.append((to, message)))


def count_older_terms() -> Any:
    """Entries of older terms are committed by counting (figure 8)."""

    def count(self: Leader) -> None:
        raft = self.raft
        place = agreed([raft.persisted_end if v == raft.me else self.peers[v].match for v in raft.voters])
        if place > raft.commit:
            raft.set_commit(place)

    return patched(Leader, "count", count)


def offsets_only() -> Any:
    """The consistency check compares offsets and leaves the term (so the marker) out."""
    return patched(Tail, "contains", lambda self, place: self.start().offset <= place.offset <= self.end().offset)


@contextmanager
def unpatched() -> Iterator[None]:
    """For the mutants that are the simulated disk's or syncer's own."""
    yield


MUTANTS: dict[str, Callable[[], Any]] = {
    "acknowledge before persisted": acknowledge_before_persisted,
    "vote before ballot": vote_before_ballot,
    "dropped fsync": unpatched,
    "no directory fsync": unpatched,
    "commit older terms": count_older_terms,
    "marker left out": offsets_only,
}
