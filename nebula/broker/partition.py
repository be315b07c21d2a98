"""One replica of one partition: a Raft group, its log, its producers' state, and those who wait for it.

The controller (group 0) is a Partition too; what its committed records mean is `controller.py`'s business.
Clock, disk, links and sync rounds come from outside: the simulator runs this class unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from nebula.broker.drain import Drain
from nebula.broker.waiters import Done, Waiters
from nebula.cluster.producers import ProducerState
from nebula.model import Buffer, GroupID, NotLeader, Offset, Position, Voter
from nebula.raft import RaftNode, Ready
from nebula.records.batch import Header, read_header
from nebula.records.entries import DATA
from nebula.storage import DamagedLog, NebulaLog


class Partition:
    """A replica. `append` and `read` are what the client APIs use; `carry_out` is called by the drain."""

    def __init__(self, group: GroupID, name: str, raft: RaftNode, log: NebulaLog, drain: Drain) -> None:
        self.group = group
        self.name = name
        self.raft = raft
        self.log = log
        self._drain = drain
        self._waiters = Waiters()
        self._watchers: list[Callable[[], None]] = []
        self._rounds: list[tuple[int, Deferred[None]]] = []
        self._led_term = -1
        self.on_commit: Callable[[Position], None] | None = None
        self.on_reset: Callable[[Any], None] | None = None
        self.on_leadership: Callable[[Partition], None] | None = None
        self._seen_leader: tuple[int, Voter | None] = (0, None)
        self.producers = self._rebuild_producers()

    # ── what clients use ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def high_watermark(self) -> Offset:
        """First offset that is not yet committed."""
        return self.raft.commit.offset

    @property
    def leads(self) -> bool:
        return self.raft.role == "leader"

    @property
    def serving(self) -> bool:
        """Leader whose own term marker is committed: may answer reads of committed state (RELIABILITY rule 6)."""
        return self.leads and self.raft.serving

    def append(self, batch: bytearray | memoryview, header: Header) -> Deferred[Offset]:
        """Append one checked batch; fires with its base offset once a majority has it on disk.

        :raises NotLeader: this replica does not lead (also the Deferred's failure when leadership is lost later).
        :raises nebula.cluster.producers.ProducerError: the sequence number or epoch does not fit.
        """
        waiter: Deferred[Offset] = Deferred()

        def done(offset: Offset, error: Exception | None) -> None:
            if error is None:
                waiter.callback(offset)
            else:
                waiter.errback(error)

        self.append_then(batch, header, done)
        return waiter

    def append_then(self, batch: bytearray | memoryview, header: Header, done: Done) -> None:
        """The same with a plain call at the end (see `Waiters`), which may come before this returns."""
        if not self.leads:
            raise NotLeader(f"{self.name} is not led by this node")
        known = self.producers.check(header, self.log.log_start == self.raft.end().offset)
        if known is not None:
            if known.end <= self.raft.commit:
                done(known.base_offset, None)
            else:
                self._waiters.wait(known.end, known.base_offset, done)
            return
        width = header.last_offset_delta + 1
        end = self.raft.propose(batch, width)
        base = end.offset - width
        if header.producer_id >= 0:
            self.producers.append(header._replace(base_offset=base, leader_epoch=end.term), end)
        self._drain.mark(self)
        self._waiters.wait(end, base, done)

    def read(self, offset: Offset, max_bytes: int) -> list[Buffer]:
        """Whole batches as stored, from the one that holds `offset`, all below the high watermark."""
        try:
            return self.log.read_records_at(offset, max_bytes, self.high_watermark)
        except DamagedLog as damage:
            self._drain.stop_partition(self, damage)
            raise NotLeader(f"{self.name} was damaged on this node's disk") from damage

    def confirmed(self) -> Deferred[None]:
        """Fires when a heartbeat round begun now has shown that this node still leads; fails with NotLeader."""
        if not self.serving:
            raise NotLeader(f"{self.name} is not served by this node yet")
        done: Deferred[None] = Deferred()
        self._rounds.append((self.raft.confirm(), done))
        self._drain.mark(self)
        return done

    def watch(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever the high watermark moves or leadership changes."""
        self._watchers.append(wake)

    def unwatch(self, wake: Callable[[], None]) -> None:
        if wake in self._watchers:
            self._watchers.remove(wake)

    # ── what the node feeds in ──────────────────────────────────────────────────────────────────────────────────────

    def step(self, sender: Voter, message: Any) -> None:
        self.raft.step(sender, message)
        self._drain.mark(self)

    def tick(self, now: float) -> None:
        self.raft.tick(now)
        if self.raft.has_ready() or self._rounds:
            self._drain.mark(self)

    def suspect_leader(self) -> None:
        self.raft.suspect_leader()
        self._drain.mark(self)

    def touch(self) -> None:
        """Something was asked of Raft directly (transfer, change): look at it this turn."""
        self._drain.mark(self)

    def persisted(self, end: Position) -> None:
        self.log.synced(end, self.raft.commit)
        self.raft.persisted(end)
        self._drain.mark(self)

    def ballot_persisted(self, ballot: Any) -> None:
        self.raft.ballot_persisted(ballot)
        self._drain.mark(self)

    # ── the drain ───────────────────────────────────────────────────────────────────────────────────────────────────

    def carry_out(self, drain: Drain) -> None:
        """Carry out what Raft asks for, in the order of its contract (see `drain.py`)."""
        ready = self.raft.ready()
        for to, message in ready.messages:
            drain.send(to, self.group, message)
        if ready.ballot is not None:
            drain.ballot(self, ready.ballot)
        if ready.reset is not None:
            self._install(ready.reset)
        if ready.truncate is not None:
            self.log.truncate(ready.truncate)
            self.producers = self._rebuild_producers()
        if ready.entries:
            self._write(ready, drain)
        self._leadership()
        self._advance(ready.commit)

    def _write(self, ready: Ready, drain: Drain) -> None:
        self.log.append(ready.entries)
        if not self.leads:
            for entry in ready.entries:
                if entry.kind == DATA:
                    self.producers.append(read_header(entry.data), entry.end)
        drain.written(self, ready.entries[-1].end, sum(len(e.data) for e in ready.entries))

    def _install(self, start: Any) -> None:
        self.log.reset(start)
        self.producers = ProducerState.decode(start.producers) if start.producers else ProducerState()
        if self.on_reset is not None:
            self.on_reset(start)
        self.raft.installed(start)
        self._drain.mark(self)

    def _leadership(self) -> None:
        """Publishes accepted in an earlier term, or as a leader that is none any more, can promise nothing."""
        raft = self.raft
        if self._led_term >= 0 and not (raft.role == "leader" and raft.term == self._led_term):
            self._led_term = -1
            self._waiters.fail()
            rounds, self._rounds = self._rounds, []
            for _, done in rounds:
                done.errback(NotLeader(f"{self.name} is led elsewhere now"))
        if raft.role == "leader":
            self._led_term = raft.term
        if (raft.term, raft.leader) != self._seen_leader:
            self._seen_leader = (raft.term, raft.leader)
            if self.on_leadership is not None:
                self.on_leadership(self)
            self._wake()

    def _advance(self, commit: Position) -> None:
        if self.on_commit is not None:
            self.on_commit(commit)
        self._waiters.advance(commit)
        while self._rounds and self._rounds[0][0] <= self.raft.confirmed_round:
            self._rounds.pop(0)[1].callback(None)
        if self._watchers:
            self._wake()

    def _wake(self) -> None:
        for wake in list(self._watchers):
            wake()

    # ── producers' state ────────────────────────────────────────────────────────────────────────────────────────────

    def _rebuild_producers(self) -> ProducerState:
        """State as of the log's end: the newest snapshot's, or the start record's, then every batch header behind it."""
        start = self.log.start()
        saved = self.log.snapshots.newest(lambda place: place >= start and self.log.contains(place))
        place, state = saved if saved is not None else (start, self.log.start_producers())
        producers = ProducerState.decode(state) if state else ProducerState()
        for header in self.log.headers_from(place.offset):
            if not header.is_control and header.producer_id >= 0:
                producers.append(header, Position(header.leader_epoch, header.end_offset))
        return producers

    def save(self, at_least: int = 0) -> bool:
        """Leave what makes the next start quick: checkpoint and snapshot, if `at_least` bytes came since the last."""
        if not self.log.checkpoint(at_least):
            return False
        end = self.raft.end()
        if end == self.log.end():  # the producers' state runs ahead of the log only within a turn
            self.log.snapshots.save(end, self.producers.encode())
        return True

    def close(self) -> None:
        """Stop using the log; everything written and synced stays for the next start."""
        self._waiters.fail()
        self.log.close()
