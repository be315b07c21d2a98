"""The one drain: once per reactor turn it carries out, for every dirty partition, what Raft asks for.

The order is the contract of `RaftNode.ready()` (ARCHITECTURE §5):

1. messages to peers are collected; a leader's appends may leave before our own disk is done;
2. ballots go to the ballot journal, entries to the partitions' segments, by one write each;
3. everything collected for one peer leaves in one burst;
4. one sync round covers all files written this turn; only when it is done do the partitions hear `persisted`, and only
   then do Raft's replies, votes and acknowledgements exist at all.

Links, sync rounds and the end-of-turn hook are given from outside, so the simulator runs this very code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from nebula.model import GroupID, InvariantBroken, NebulaError, Position, Voter
from nebula.storage import DamagedLog

if TYPE_CHECKING:
    from nebula.broker.partition import Partition


class Links(Protocol):
    """How messages reach other nodes."""

    def send(self, to: Voter, group: GroupID, message: Any) -> None: ...
    def flush(self) -> None: ...


class Syncer(Protocol):
    """Group commit: make `files` durable, then call `done` with None or the error."""

    def request(self, files: Iterable[Any], nbytes: int, done: Callable[[BaseException | None], None]) -> None: ...


class Ballots(Protocol):
    """The node's journal of terms and votes."""

    @property
    def file(self) -> Any: ...
    def append(self, ballots: Sequence[tuple[GroupID, int, Voter | None]]) -> None: ...


class Drain:
    """Collects dirty partitions during a turn and carries out their `Ready`s at its end."""

    def __init__(
        self,
        links: Links,
        commits: Syncer,
        ballots: Ballots,
        ballot_commits: Syncer,
        at_turn_end: Callable[[Callable[[], None]], None],
        failed: Callable[[BaseException], None],
        broken: Callable[[Partition, NebulaError], None],
    ) -> None:
        self._links = links
        self._commits = commits
        self._ballots = ballots
        self._ballot_commits = ballot_commits
        self._at_turn_end = at_turn_end
        self._failed = failed
        self._broken = broken
        self._dirty: dict[GroupID, Partition] = {}
        self._scheduled = False
        self._stopped = False
        self.send = links.send
        self._votes: list[tuple[Partition, Any]] = []
        self._writes: list[tuple[Partition, Position, int]] = []
        self.turns = 0

    def mark(self, partition: Partition) -> None:
        """`partition` may have something to do: look at it at the end of this turn."""
        self._dirty[partition.group] = partition
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._at_turn_end(self.run)

    def stop(self) -> None:
        """Carry out nothing from now on (the node is stopping or its disk is dead)."""
        self._stopped = True
        self._dirty.clear()

    def ballot(self, partition: Partition, ballot: Any) -> None:
        """`partition` has a new ballot; it goes to the journal this turn."""
        self._votes.append((partition, ballot))

    def written(self, partition: Partition, end: Position, nbytes: int) -> None:
        """`partition` wrote up to `end`; a sync round covers it this turn."""
        self._writes.append((partition, end, nbytes))

    def guard(self, partition: Partition, call: Callable[..., Any], *args: Any) -> Any:
        """Make a call into `partition`: what it returns, or None if it failed.

        Damage or a broken invariant stops that partition alone, and loudly; a disk that fails ends the node.
        """
        try:
            return call(*args)
        except (InvariantBroken, DamagedLog) as error:
            self.stop_partition(partition, error)
        except OSError as error:
            self._die(error)

    def stop_partition(self, partition: Partition, error: NebulaError) -> None:
        """`partition` is not to be trusted any more: nothing it still wanted is carried out."""
        self._dirty.pop(partition.group, None)
        self._votes = [row for row in self._votes if row[0] is not partition]
        self._writes = [row for row in self._writes if row[0] is not partition]
        self._broken(partition, error)

    def run(self) -> None:
        """One turn's work over all dirty partitions."""
        self._scheduled = False
        if self._stopped:
            return
        self.turns += 1
        dirty, self._dirty = self._dirty, {}
        try:
            for partition in dirty.values():
                self.guard(partition, partition.carry_out, self)
                if self._stopped:
                    return
            self._links.flush()
            self._sync_ballots()
            self._sync_writes()
        except OSError as error:
            self._die(error)

    def _sync_ballots(self) -> None:
        votes, self._votes = self._votes, []
        if not votes:
            return
        self._ballots.append([(p.group, b.term, b.voted_for) for p, b in votes])

        def done(error: BaseException | None) -> None:
            if error is not None:
                return self._die(error)
            for partition, ballot in votes:
                self.guard(partition, partition.ballot_persisted, ballot)

        self._ballot_commits.request([self._ballots.file], 64 * len(votes), done)

    def _sync_writes(self) -> None:
        writes, self._writes = self._writes, []
        if not writes:
            return
        files = [file for partition, _, _ in writes for file in partition.log.dirty_files()]

        def done(error: BaseException | None) -> None:
            if error is not None:
                return self._die(error)
            for partition, end, _ in writes:
                self.guard(partition, partition.persisted, end)

        self._commits.request(files, sum(nbytes for _, _, nbytes in writes), done)

    def _die(self, error: BaseException) -> None:
        """A failed write or fsync is final (RELIABILITY rule 3): nothing is acknowledged from here on."""
        if not self._stopped:
            self.stop()
            self._failed(error)
