"""RaftNode: the sans-I/O core of one group.

Rules that must not be broken: raft/ reads no clock, draws no randomness it was not given, calls nothing. Inputs are
`step`, `tick`, `propose`, `change`, `transfer`, `persisted`, `ballot_persisted`, `installed`; every effect is in the
`Ready` that the drain asks for once per turn. No promise leaves before it is on disk.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nebula.model import GroupID, InvalidBatch, InvariantBroken, NebulaError, NotLeader, Position, Term, Voter
from nebula.raft import messages as m
from nebula.raft.leader import Leader
from nebula.raft.messages import Ballot, Message
from nebula.raft.quorum import majority
from nebula.raft.runs import entries_of
from nebula.raft.tail import Config, LogView, Tail
from nebula.records import control
from nebula.records.batch import stamp
from nebula.records.entries import DATA, MARKER, VOTERS, Entry
from nebula.records.start import StartRecord

MAX_UNCOMMITTED = 64 << 20
"""Bytes a leader accepts beyond the commit; a group that lost its majority must not grow (RELIABILITY 38)."""


class Overloaded(NebulaError):
    """Too much waits for its commit already; the client backs off and tries again."""

    code = "NEB-2108"


class ChangeRefused(NebulaError):
    """A membership change that may not begin now; ask again later."""

    code = "NEB-2109"


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftSettings:
    """Times in seconds, sizes in bytes."""

    election_timeout: float = 1.0
    heartbeat: float = 0.1
    run_bytes: int = 1 << 20
    """Bytes of one Append: what a peer needs for an efficient write, and no more than a fraction of the window."""


@dataclass(slots=True)
class Ready:
    """What the drain carries out, in this order: send, ballot, reset, truncate, append; then sync and call back."""

    messages: list[tuple[Voter, Message]]
    """May leave at once: none of them promises what is not on disk."""
    ballot: Ballot | None
    reset: StartRecord | None
    truncate: Position | None
    entries: list[Entry]
    commit: Position


class RaftNode:
    """One member of one group."""

    def __init__(
        self, me: Voter, group: GroupID, log: LogView, ballot: Ballot, rng: random.Random, now: float,
        settings: RaftSettings, quarantine: Position | None = None,
    ) -> None:  # fmt: skip
        self.me = me
        self.group = group
        self.settings = settings
        self.quarantine = quarantine
        """Bit rot was found below this place: no campaign and no vote until a leader has brought the log back to it."""
        self.tail = Tail(log)
        self.ballot = ballot
        self.commit = log.start()
        self.persisted_end = log.end()
        self.now = now
        self.role = "follower"
        self.leader: Voter | None = None
        self.lead: Leader | None = None
        self._durable = ballot
        self._rng = rng
        self._configs: list[Config] = log.configs()
        self._out: list[tuple[Voter, Message]] = []
        self._held: list[tuple[Voter, Message]] = []
        self._reset: StartRecord | None = None
        self._verified = log.start()
        self._owe: int | None = None
        self._votes: set[Voter] = set()
        self._heard_at = -1e9
        self._suspected_at = -1e9
        self.announce_commits = False
        """Tell followers of a commit at once, not with the next append or heartbeat: for a group they serve reads of."""
        self._deadline = 0.0
        self._restart_timer()

    # ── what the shell reads ────────────────────────────────────────────────────────────────────────────────────────

    @property
    def term(self) -> Term:
        return self.ballot.term

    @property
    def voters(self) -> tuple[Voter, ...]:
        return self._configs[-1][1]

    @property
    def learners(self) -> tuple[Voter, ...]:
        return self._configs[-1][2]

    @property
    def serving(self) -> bool:
        """Leader whose own marker is committed (RELIABILITY rule 6)."""
        return self.role == "leader" and self.commit.term == self.term

    @property
    def confirmed_round(self) -> int:
        return self.lead.confirmed if self.lead is not None else 0

    def end(self) -> Position:
        return self.tail.end()

    def progress(self, voter: Voter) -> Position:
        """How far `voter` is known to have the log on disk; the start when unknown."""
        if voter == self.me:
            return self.persisted_end
        known = self.lead.peers.get(voter) if self.lead is not None else None
        return known.match if known is not None else Position(0, 0)

    # ── inputs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def propose(self, buf: bytearray | memoryview, width: int, kind: int = DATA) -> Position:
        """Place a batch: stamp it and return where it ends.

        :raises NotLeader: not the leader, or handing over. :raises Overloaded: too much is uncommitted.
        """
        if self.lead is None or self.lead.target is not None:
            raise NotLeader("this node does not lead the group")
        if self.lead.uncommitted > MAX_UNCOMMITTED:
            raise Overloaded(f"{self.lead.uncommitted} bytes wait for a majority")
        before = self.tail.end()
        stamp(buf, before.offset, self.term)
        end = Position(self.term, before.offset + width)
        self.lead.placed(end, len(buf))
        self._add(Entry(end, buf, kind))
        return end

    def change(self, voters: tuple[Voter, ...], learners: tuple[Voter, ...]) -> Position:
        """Single-server membership change (dissertation §4.1, with the 2015 correction: own marker first).

        :raises NotLeader, ChangeRefused: not now, or more than one voter at a time.
        """
        if not self.serving:
            raise NotLeader("only a leader whose marker is committed changes the members")
        if self._configs[-1][0] > self.commit:
            raise ChangeRefused("a membership change is under way")
        if len(set(voters) ^ set(self.voters)) > 1 or not voters:
            raise ChangeRefused("one voter at a time")
        return self.propose(control.voters_batch(voters, learners, 0), 1, VOTERS)

    def transfer(self, target: Voter) -> None:
        """Hand leadership to `target` once it has everything; given up after an election timeout."""
        if self.lead is not None:
            self.lead.transfer(target)

    def confirm(self) -> int:
        """Begin a heartbeat round; reads may be answered when `confirmed_round` has reached it."""
        assert self.lead is not None
        self.lead.round += 1
        self.lead.beat_now = True
        return self.lead.round

    def suspect_leader(self) -> None:
        """Evidence (not proof) that the leader's process is gone: pre-vote early, and grant pre-votes for a while."""
        if self.role != "leader":
            self._suspected_at = self.now
            self._deadline = min(self._deadline, self.now + self._rng.uniform(0.0, 0.5) * self.settings.heartbeat)

    def campaign(self) -> None:
        """Pre-vote now (a fresh group's first leader)."""
        self._deadline = self.now

    def tick(self, now: float) -> None:
        """`now` is monotonic seconds. A gap longer than the election timeout unseats a leader before it says anything."""
        gap, self.now = now - self.now, now
        if self.lead is not None:
            if gap > self.settings.election_timeout and len(self.voters) > 1:
                self.become_follower(self.term, None)
            else:
                self.lead.tick(now)
        elif now >= self._deadline:
            self._restart_timer()
            self._pre_vote()

    def persisted(self, end: Position) -> None:
        """Everything up to `end` is on disk; ignored when it was overwritten since (the ABA of RELIABILITY 25)."""
        if end <= self.persisted_end or not self.tail.contains(end):
            return
        self.persisted_end = end
        if self.quarantine is not None and end >= self.quarantine:
            self.quarantine = None
        if self.lead is not None:
            self.lead.count()
        elif self._owe is None:
            self._owe = 0

    def ballot_persisted(self, ballot: Ballot) -> None:
        """`ballot` is on disk: what was held for it may leave, and a candidate's own vote counts."""
        self._durable = ballot
        if ballot != self.ballot:
            return
        self._out.extend(self._held)
        self._held.clear()
        if self.role == "candidate":
            self._count_vote(self.me)

    def installed(self, start: StartRecord) -> None:
        """The log has started over from `start`."""
        self._configs = self.tail.log.configs()
        self.persisted_end = self._verified = start.position
        self.commit = max(self.commit, start.position)
        self._owe = 0

    def applied(self, position: Position) -> None:
        """The state machine is at `position`; nothing waits for it yet."""

    def lost(self, peer: Voter) -> None:
        """The connection to `peer` broke: what was in flight may be gone."""
        if self.lead is not None and peer in self.lead.peers:
            self.lead.peers[peer].probe(self.lead.peers[peer].match)

    def has_ready(self) -> bool:
        lead = self.lead
        return bool(
            self._out or self._held or self.tail.entries or self._owe is not None or self._durable != self.ballot
            or self._reset or (lead is not None and (lead.beat_now or any(p.probing for p in lead.peers.values())))
        )  # fmt: skip

    def ready(self) -> Ready:
        """Collect this turn's effects (see `Ready` for the order they are carried out in)."""
        if self.lead is not None:
            self.lead.send()
        else:
            self._answer_leader()
        ballot = self.ballot if self.ballot != self._durable and self.ballot != self._asked else None
        if ballot is not None:
            self._asked = ballot
        reset, self._reset = self._reset, None
        cut, entries = (None, []) if reset is not None else self.tail.take()
        out, self._out = self._out, []
        return Ready(out, ballot, reset, cut, entries, self.commit)

    _asked: Ballot | None = None

    def step(self, sender: Voter, message: Message) -> None:
        """A peer's message. Stale terms are answered or ignored; a newer term is taken up first (§5.1)."""
        if message.term > self.term and not isinstance(message, (m.PreVote, m.PreVoteReply)):
            led_by = sender if isinstance(message, (m.Append, m.Heartbeat, m.Install)) else None
            self.become_follower(message.term, led_by)
        STEPS[type(message)](self, sender, message)

    # ── roles ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def become_follower(self, term: Term, leader: Voter | None) -> None:
        if term > self.term:
            self.ballot = Ballot(term, None)
            self._held.clear()
        if self.lead is not None or self.leader != leader:
            self._verified = self.tail.start()
            self._owe = None
        self.lead = None
        self.role = "follower" if self.me in self.voters or not self.voters else "learner"
        self.leader = leader
        self._restart_timer()

    def _restart_timer(self) -> None:
        self._deadline = self.now + self.settings.election_timeout * self._rng.uniform(1.0, 2.0)

    def _may_stand(self) -> bool:
        return self.me in self.voters and (self.quarantine is None or self.end() >= self.quarantine)

    def _pre_vote(self) -> None:
        if not self._may_stand():
            return
        self.role, self.leader = "precandidate", None
        self._votes = {self.me}
        if len(self.voters) == 1:
            return self._stand()
        for voter in self.voters:
            if voter != self.me:
                self._out.append((voter, m.PreVote(self.term + 1, self.end())))

    def _stand(self) -> None:
        """Become candidate; the votes are asked for, and the own one counted, once the ballot is on disk."""
        self.ballot = Ballot(self.term + 1, self.me)
        self._held.clear()
        self.role, self.leader, self._votes = "candidate", None, set()
        self._restart_timer()
        for voter in self.voters:
            if voter != self.me:
                self.say(voter, m.Vote(self.term, self.end()))

    def _count_vote(self, voter: Voter) -> None:
        self._votes.add(voter)
        if len(self._votes & set(self.voters)) >= majority(len(self.voters)):
            self._lead()

    def _lead(self) -> None:
        self.role, self.leader = "leader", self.me
        self.lead = Leader(self, self.now)
        place = self.end()
        # Zero-width, first entry of its term: what makes older entries committable when no data comes (§5.4.2).
        data = control.marker(self.term, place.offset, int(self.now * 1000))
        self._add(Entry(Position(self.term, place.offset), data, MARKER))

    def _add(self, entry: Entry) -> None:
        self.tail.append(entry)
        if entry.kind == VOTERS:
            self._configs.append((entry.end, *control.read_voters(entry.data)))
            if self.lead is not None:
                self.lead.config_changed()

    def set_commit(self, place: Position) -> None:
        if place < self.commit:
            raise InvariantBroken(f"group {self.group}: commit would move back from {self.commit} to {place}")
        self.commit = place
        if self.lead is not None:
            self.lead.committed(place)
        if self.lead is not None and self.me not in self.voters and self._configs[-1][0] <= place:
            self.become_follower(self.term, None)

    def say(self, to: Voter, message: Message) -> None:
        """Send, once the current ballot is on disk."""
        (self._out if self._durable == self.ballot else self._held).append((to, message))

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_pre_vote(self, sender: Voter, message: m.PreVote) -> None:
        quiet = self.now - self._heard_at >= self.settings.election_timeout
        evidence = self.now - self._suspected_at < self.settings.election_timeout
        granted = (
            message.term > self.term
            and message.last >= self.end()
            and self.lead is None
            and (quiet or evidence)
            and (self.quarantine is None)
        )
        self.say(sender, m.PreVoteReply(message.term if granted else self.term, granted))

    def _on_pre_vote_reply(self, sender: Voter, message: m.PreVoteReply) -> None:
        if not message.granted and message.term > self.term:
            return self.become_follower(message.term, None)
        if self.role == "precandidate" and message.granted and message.term == self.term + 1:
            self._votes.add(sender)
            if len(self._votes & set(self.voters)) >= majority(len(self.voters)):
                self._stand()

    def _on_vote(self, sender: Voter, message: m.Vote) -> None:
        granted = (
            message.term == self.term
            and self.ballot.voted_for in (None, sender)
            and self.lead is None
            and message.last >= self.end()
            and self.quarantine is None
        )
        if granted:
            self.ballot = Ballot(self.term, sender)
            self._restart_timer()
        self.say(sender, m.VoteReply(self.term, granted))

    def _on_vote_reply(self, sender: Voter, message: m.VoteReply) -> None:
        if self.role == "candidate" and message.granted and message.term == self.term:
            self._count_vote(sender)

    def _heard_leader(self, sender: Voter) -> None:
        if self.lead is not None:
            raise InvariantBroken(f"group {self.group}: two leaders in term {self.term}: {self.me} and {sender}")
        if self.leader != sender or self.role not in ("follower", "learner"):
            self.become_follower(self.term, sender)
        self._heard_at = self.now
        self._restart_timer()

    def _on_append(self, sender: Voter, message: m.Append) -> None:
        if message.term < self.term:
            return self.say(sender, m.AppendReject(self.term, self.commit, message.round))
        self._heard_leader(sender)
        if self._reset is not None:
            return
        prev = message.prev
        if not self.tail.contains(prev):
            common = self.commit if prev < self.commit else self.tail.last_in_term(prev.term)
            return self.say(sender, m.AppendReject(self.term, common, message.round))
        try:
            entries = entries_of(message.run, prev)
        except InvalidBatch:
            return self.say(sender, m.AppendReject(self.term, self.commit, message.round))
        self._take(prev, entries)
        self._verified = max(self._verified, message.run.end)
        self._follow_commit(message.commit)
        self._owe = max(self._owe or 0, message.round)

    def _take(self, place: Position, entries: list[Entry]) -> None:
        """Append what is new; cut first what an older leader left behind and this one contradicts (§5.3)."""
        for entry in entries:
            if place != self.tail.end() and not self.tail.contains(entry.end):
                self._truncate(place)
            if place == self.tail.end():
                self._add(entry)
            place = entry.end

    def _truncate(self, place: Position) -> None:
        if place < self.commit:
            raise InvariantBroken(f"group {self.group}: told to cut to {place}, committed is {self.commit}")
        self.tail.truncate(place)
        self._configs = [c for c in self._configs if c[0] <= place] or self._configs[:1]
        self.persisted_end = min(self.persisted_end, place)
        self._verified = min(self._verified, place)

    def _follow_commit(self, commit: Position) -> None:
        place = min(commit, self._verified)
        if place > self.commit:
            self.set_commit(place)

    def _on_heartbeat(self, sender: Voter, message: m.Heartbeat) -> None:
        if message.term < self.term:
            return self.say(sender, m.AppendReject(self.term, self.commit, message.round))
        self._heard_leader(sender)
        if self.tail.contains(message.commit):
            # It holds the entry that ends there, so all before it too (log matching, §5.3): a follower that was restarted
            # need not be sent anything again to know.
            self._verified = max(self._verified, message.commit)
        self._follow_commit(message.commit)
        self.say(sender, m.HeartbeatReply(self.term, min(self.persisted_end, self._verified), message.round))

    def _on_install(self, sender: Voter, message: m.Install) -> None:
        if message.term < self.term:
            return
        self._heard_leader(sender)
        if message.start.position <= self.commit or self._reset is not None:
            self._owe = 0
            return
        self._reset = message.start
        self.tail.reset(message.start.position)

    def _on_reply(self, sender: Voter, message: Any) -> None:
        if self.lead is not None and message.term == self.term:
            self.lead.replied(sender, message)

    def _on_reject(self, sender: Voter, message: m.AppendReject) -> None:
        if self.lead is not None and message.term == self.term:
            self.lead.rejected(sender, message)

    def _on_timeout_now(self, sender: Voter, message: m.TimeoutNow) -> None:
        if message.term == self.term and self.lead is None and self._may_stand():
            self._stand()

    def _answer_leader(self) -> None:
        if self._owe is not None and self.leader is not None:
            match = min(self.persisted_end, self._verified)
            self.say(self.leader, m.AppendReply(self.term, match, self._owe))
        self._owe = None


STEPS: dict[type, Callable[[RaftNode, Voter, Any], None]] = {
    m.PreVote: RaftNode._on_pre_vote,
    m.PreVoteReply: RaftNode._on_pre_vote_reply,
    m.Vote: RaftNode._on_vote,
    m.VoteReply: RaftNode._on_vote_reply,
    m.Append: RaftNode._on_append,
    m.AppendReply: RaftNode._on_reply,
    m.AppendReject: RaftNode._on_reject,
    m.Heartbeat: RaftNode._on_heartbeat,
    m.HeartbeatReply: RaftNode._on_reply,
    m.Install: RaftNode._on_install,
    m.TimeoutNow: RaftNode._on_timeout_now,
}
