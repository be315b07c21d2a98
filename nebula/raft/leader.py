"""The leader's own state and work: feeding peers, counting, confirming, handing over. Exists only while leading."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from nebula.model import Position, Voter
from nebula.raft import messages as m
from nebula.raft.progress import Progress
from nebula.raft.quorum import agreed, majority

if TYPE_CHECKING:
    from nebula.raft.node import RaftNode


class Leader:
    """Leader of one term."""

    def __init__(self, raft: RaftNode, now: float) -> None:
        self.raft = raft
        self.peers: dict[Voter, Progress] = {}
        self.round = 0
        self.beat_at = now
        self.check_at = now + raft.settings.election_timeout
        self.target: Voter | None = None
        self.give_up_at = 0.0
        self.marker_end: Position | None = None
        self.beat_now = True
        self.uncommitted = 0
        """Bytes proposed in this term that no majority has yet: what back-pressure goes by."""
        self._proposed: deque[tuple[Position, int]] = deque()
        self.config_changed()

    def config_changed(self) -> None:
        """Membership changed: follow exactly its members."""
        raft = self.raft
        wanted = (set(raft.voters) | set(raft.learners)) - {raft.me}
        self.peers = {v: p for v, p in self.peers.items() if v in wanted}
        for voter in sorted(wanted - set(self.peers)):
            self.peers[voter] = Progress(raft.end(), raft.now)

    def placed(self, end: Position, size: int) -> None:
        """A batch of `size` bytes was proposed up to `end`."""
        self.uncommitted += size
        self._proposed.append((end, size))

    def committed(self, place: Position) -> None:
        """Everything up to `place` has a majority."""
        proposed = self._proposed
        while proposed and proposed[0][0] <= place:
            self.uncommitted -= proposed.popleft()[1]

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float) -> None:
        raft = self.raft
        for progress in self.peers.values():
            stuck = now - progress.moved
            if progress.probing and progress.waiting and stuck > 3 * raft.settings.heartbeat:
                progress.waiting = progress.installing = False
            elif progress.unacked and stuck > raft.settings.election_timeout:
                progress.probe(progress.match if progress.match > raft.tail.start() else raft.tail.start())
        if now >= self.beat_at:
            self.beat_at = now + raft.settings.heartbeat
            self.beat_now = True
        if now >= self.check_at:
            self._check_quorum(now)
        if self.target is not None and now > self.give_up_at:
            self.target = None

    def _check_quorum(self, now: float) -> None:
        """A leader that hears no majority steps down (dissertation §6.2)."""
        raft, timeout = self.raft, self.raft.settings.election_timeout
        self.check_at = now + timeout
        heard = sum(1 for v in raft.voters if v == raft.me or now - self.peers[v].heard <= timeout)
        if heard < majority(len(raft.voters)):
            raft.become_follower(raft.term, None)

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def replied(self, sender: Voter, message: m.AppendReply | m.HeartbeatReply) -> None:
        progress = self.peers.get(sender)
        if progress is None:
            return
        progress.heard = self.raft.now
        progress.round = max(progress.round, message.round)
        if isinstance(message, m.AppendReply) or message.match > progress.match:
            progress.acknowledged(message.match, self.raft.now)
            self.count()
        self._hand_over()

    def rejected(self, sender: Voter, message: m.AppendReject) -> None:
        progress = self.peers.get(sender)
        if progress is None:
            return
        progress.heard = self.raft.now
        progress.round = max(progress.round, message.round)
        place, tail = message.last_common, self.raft.tail
        if not tail.contains(place):
            place = tail.last_in_term(place.term) if place.term < self.raft.term else tail.start()
        if place < tail.start() and message.last_common >= tail.start():
            place = tail.start()
        progress.probe(place)

    def count(self) -> None:
        """Commit what a majority has on disk, if it is of this term (§5.4.2)."""
        raft = self.raft
        if not raft.voters:
            return
        matches = [raft.persisted_end if v == raft.me else self.peers[v].match for v in raft.voters]
        place = agreed(matches)
        if place.term == raft.term and place > raft.commit:
            raft.set_commit(place)
            if raft.announce_commits:
                self.beat_now = True

    @property
    def confirmed(self) -> int:
        """Newest heartbeat round that a majority has answered."""
        raft = self.raft
        if not raft.voters:
            return 0
        return int(agreed([self.round if v == raft.me else self.peers[v].round for v in raft.voters]))

    # ── handing over ────────────────────────────────────────────────────────────────────────────────────────────────

    def transfer(self, target: Voter) -> None:
        if target in self.raft.voters and target != self.raft.me:
            self.target, self.give_up_at = target, self.raft.now + self.raft.settings.election_timeout
            self._hand_over()

    def _hand_over(self) -> None:
        if self.target is not None and self.target in self.peers:
            if self.peers[self.target].match >= self.raft.end():
                self.raft.say(self.target, m.TimeoutNow(self.raft.term))

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self) -> None:
        """Heartbeats that are due, and as many appends as the windows allow."""
        if self.beat_now:
            self.beat_now = False
            for voter, progress in self.peers.items():
                commit = min(self.raft.commit, progress.match)
                self.raft.say(voter, m.Heartbeat(self.raft.term, commit, self.round))
        for voter, progress in self.peers.items():
            self._feed(voter, progress)

    def _feed(self, voter: Voter, progress: Progress) -> None:
        raft, end = self.raft, self.raft.end()
        while progress.next < end or (progress.probing and not progress.waiting):
            room = progress.room()
            if room <= 0:
                return
            if progress.next < raft.tail.start():
                progress.installing, progress.waiting, progress.moved = True, True, raft.now
                raft.say(voter, m.Install(raft.term, raft.tail.log.start_record()))
                return
            run = raft.tail.run(progress.next, min(room, raft.settings.run_bytes))
            raft.say(voter, m.Append(raft.term, progress.next, run, raft.commit, self.round))
            progress.sent(run.end, run.size, raft.now)
