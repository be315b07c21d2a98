"""Group: the state machine of one consumer group. The package's essay tells the story; here are the transitions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from nebula.cluster.groups.member import GroupError, Join, Joined, Member, Synced
from nebula.cluster.groups.records import Committed, group_value
from nebula.wire import errors

EMPTY, PREPARING, COMPLETING, STABLE, DEAD = "Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"
HISTORY = 50
"""Rebalances a group remembers: a bad night of them."""
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Limits; the names are Kafka's broker settings."""

    session_min_ms: int = 6_000
    session_max_ms: int = 1_800_000
    initial_delay_s: float = 3.0
    """group.initial.rebalance.delay.ms: how long a first generation waits for more members."""
    max_size: int = 2_000
    """group.max.size: every JoinGroup answer to a leader names all of them."""


class Rebalance(NamedTuple):
    """Why a generation ended."""

    at: float
    generation: int
    cause: str


class Group:
    """One group. `persist(value, then)` commits its metadata and calls `then(error code)`; `new_id()` makes ids unique."""

    def __init__(
        self,
        name: str,
        settings: GroupSettings,
        persist: Callable[[bytes, Callable[[int], None]], None],
        new_id: Callable[[], str],
    ) -> None:
        self.name = name
        self.state = EMPTY
        self.generation = 0
        self.protocol_type = ""
        self.protocol: str | None = None
        self.leader: str | None = None
        self.members: dict[str, Member] = {}
        self.offsets: dict[tuple[str, int], Committed] = {}
        self.history: deque[Rebalance] = deque(maxlen=HISTORY)
        self.wake_at = NEVER
        """`tick` has nothing to do before this; it may be too early, never too late."""
        self._settings = settings
        self._persist = persist
        self._new_id = new_id
        self._static: dict[str, str] = {}
        self._pending: dict[str, float] = {}
        """Ids that were given out and not yet used, until when."""
        self._initial_until = 0.0
        self._deadline = 0.0

    # ── JoinGroup ───────────────────────────────────────────────────────────────────────────────────────────────────

    def join(self, ask: Join, now: float, reply: Callable[[Joined], None]) -> None:
        """A member wants to take part in the next generation."""
        try:
            if not self._settings.session_min_ms <= ask.session_ms <= self._settings.session_max_ms:
                raise GroupError(errors.INVALID_SESSION_TIMEOUT)
            if ask.member_id:
                self._rejoin(ask, now, reply)
            else:
                self._join_new(ask, now, reply)
        except GroupError as refused:
            reply(Joined(refused.kafka_code, ask.member_id))

    def _join_new(self, ask: Join, now: float, reply: Callable[[Joined], None]) -> None:
        self._check_protocols(ask)
        known = self._static.get(ask.instance_id) if ask.instance_id is not None else None
        member_id = f"{ask.instance_id or ask.client_id}-{self._new_id()}"
        if known is not None:
            self._replace(self.members[known], member_id, ask, now, reply)
            return
        if len(self.members) + len(self._pending) >= self._settings.max_size:
            raise GroupError(errors.GROUP_MAX_SIZE_REACHED)
        if ask.require_id and ask.instance_id is None:
            self._pending[member_id] = now + ask.session_ms / 1000
            self._wake(self._pending[member_id])
            reply(Joined(errors.MEMBER_ID_REQUIRED, member_id))
            return
        self._add(member_id, ask, now, reply)

    def _rejoin(self, ask: Join, now: float, reply: Callable[[Joined], None]) -> None:
        if self._pending.pop(ask.member_id, None) is not None:
            self._check_protocols(ask)
            self._add(ask.member_id, ask, now, reply)
            return
        member = self._member(ask.member_id, ask.instance_id)
        self._check_protocols(ask, member)
        member.heard_at = now
        unchanged = member.protocols == ask.protocols
        if self.state == PREPARING:
            self._update(member, ask, reply)
            self._complete_if_ready(now)
        elif unchanged and (self.state == COMPLETING or (self.state == STABLE and member.member_id != self.leader)):
            reply(self._joined(member))
        else:
            self._update(member, ask, reply)
            self._prepare(f"{member.member_id} joined again{': ' + ask.reason if ask.reason else ''}", now)

    def _add(self, member_id: str, ask: Join, now: float, reply: Callable[[Joined], None]) -> None:
        self.members[member_id] = Member(
            member_id, ask.instance_id, ask.client_id, ask.client_host, ask.session_ms, ask.rebalance_ms,
            ask.protocols, heard_at=now, on_joined=reply,
        )  # fmt: skip
        if ask.instance_id is not None:
            self._static[ask.instance_id] = member_id
        if self.state == EMPTY:
            self.protocol_type = ask.protocol_type
        if self.state == PREPARING:
            if now < self._initial_until:  # somebody new: give the next one time too
                self._initial_until = min(now + self._settings.initial_delay_s, self._deadline)
            self._complete_if_ready(now)
        else:
            self._prepare(f"{member_id} joined", now)

    def _update(self, member: Member, ask: Join, reply: Callable[[Joined], None]) -> None:
        member.answer_join(Joined(errors.REBALANCE_IN_PROGRESS, member.member_id))  # an older try of the same member
        member.session_ms, member.rebalance_ms = ask.session_ms, ask.rebalance_ms
        member.protocols, member.on_joined = ask.protocols, reply

    def _replace(self, old: Member, member_id: str, ask: Join, now: float, reply: Callable[[Joined], None]) -> None:
        """A static member came back under a new id: the old one is fenced (KIP-345)."""
        old.answer_join(Joined(errors.FENCED_INSTANCE_ID, old.member_id))
        old.answer_sync(Synced(errors.FENCED_INSTANCE_ID))
        unchanged = old.protocols == ask.protocols
        self.members = {member_id if key == old.member_id else key: value for key, value in self.members.items()}
        if self.leader == old.member_id:
            self.leader = member_id
        old.member_id, old.heard_at = member_id, now
        self._static[str(ask.instance_id)] = member_id
        self._update(old, ask, lambda _joined: None)
        if not (self.state == STABLE and unchanged):
            old.on_joined = reply
            self._complete_if_ready(now) if self.state == PREPARING else self._prepare(f"{member_id} came back", now)
            return
        old.on_joined = None
        answer = self._joined(old)._replace(skip_assignment=self.leader == member_id)
        self._persist(self.record(now), lambda code: reply(answer if not code else Joined(code, member_id)))

    def _check_protocols(self, ask: Join, asker: Member | None = None) -> None:
        others = [member for member in self.members.values() if member is not asker]
        names = {name for name, _ in ask.protocols}
        if not ask.protocol_type or not names:
            raise GroupError(errors.INCONSISTENT_GROUP_PROTOCOL)
        if not others:
            return
        common = set.intersection(names, *({name for name, _ in member.protocols} for member in others))
        if ask.protocol_type != self.protocol_type or not common:
            raise GroupError(errors.INCONSISTENT_GROUP_PROTOCOL)

    def _member(self, member_id: str, instance_id: str | None) -> Member:
        """:raises GroupError: unknown, or fenced by another process with the same instance id."""
        if instance_id is not None:
            known = self._static.get(instance_id)
            if known is None:
                raise GroupError(errors.UNKNOWN_MEMBER_ID)
            if known != member_id:
                raise GroupError(errors.FENCED_INSTANCE_ID)
        member = self.members.get(member_id)
        if member is None:
            raise GroupError(errors.UNKNOWN_MEMBER_ID)
        return member

    # ── rebalances ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare(self, cause: str, now: float) -> None:
        """The present generation ends: everybody has to join again."""
        self.history.append(Rebalance(now, self.generation, cause))
        first = self.state == EMPTY
        for member in self.members.values():
            member.answer_sync(Synced(errors.REBALANCE_IN_PROGRESS))
        self.state = PREPARING
        self._deadline = now + self._longest_s()
        self._initial_until = min(now + self._settings.initial_delay_s, self._deadline) if first else 0.0
        self._wake(self._deadline)
        self._complete_if_ready(now)

    def _longest_s(self) -> float:
        return max((member.rebalance_ms for member in self.members.values()), default=0) / 1000

    def _complete_if_ready(self, now: float) -> None:
        if self.state != PREPARING:
            return
        if now < self._initial_until:
            self._wake(self._initial_until)
            return
        missing = self._pending or any(member.on_joined is None for member in self.members.values())
        if not missing or now >= self._deadline:
            self._complete(now)

    def _complete(self, now: float) -> None:
        """All who will have joined: a new generation."""
        for member in [m for m in self.members.values() if m.on_joined is None and m.instance_id is None]:
            self._forget(member)
        joined = [member for member in self.members.values() if member.on_joined is not None]
        if self.members and not joined:  # static members only, all away: their sessions decide
            self._deadline = now + max(self._longest_s(), 1.0)
            self._wake(self._deadline)
            return
        self.generation += 1
        if not self.members:
            self.state, self.protocol, self.leader = EMPTY, None, None
            self._persist(self.record(now), lambda _code: None)
            return
        self.protocol = self._vote()
        if self.leader not in self.members or self.members[self.leader].on_joined is None:
            self.leader = joined[0].member_id
        self.state, self._deadline = COMPLETING, now + self._longest_s()
        self._wake(self._deadline)
        for member in joined:
            member.heard_at = now
            self._wake(member.expires_at)
            member.answer_join(self._joined(member))

    def _vote(self) -> str:
        """The protocol that most members like best among those that all know."""
        lists = [[name for name, _ in member.protocols] for member in self.members.values()]
        common = set(lists[0]).intersection(*lists)
        votes = [next(name for name in names if name in common) for names in lists]
        return max(sorted(common), key=votes.count)

    def _joined(self, member: Member) -> Joined:
        leads = member.member_id == self.leader
        everybody = [(m.member_id, m.instance_id, m.metadata(self.protocol)) for m in self.members.values()]
        return Joined(
            0, member.member_id, self.generation, self.protocol_type, self.protocol, self.leader or "",
            tuple(everybody) if leads else (),
        )  # fmt: skip

    # ── SyncGroup, Heartbeat, LeaveGroup ────────────────────────────────────────────────────────────────────────────

    def sync(
        self, member_id: str, instance_id: str | None, generation: int, protocol: tuple[str | None, str | None],
        assignments: dict[str, bytes], now: float, reply: Callable[[Synced], None],
    ) -> None:  # fmt: skip
        """A member asks what to read; the leader's request says it for all. `protocol` is (type, name), if told."""
        try:
            member = self._current(member_id, instance_id, generation)
            if protocol[0] not in (None, self.protocol_type) or protocol[1] not in (None, self.protocol):
                raise GroupError(errors.INCONSISTENT_GROUP_PROTOCOL)
            if self.state == PREPARING:
                raise GroupError(errors.REBALANCE_IN_PROGRESS)
        except GroupError as refused:
            reply(Synced(refused.kafka_code))
            return
        member.heard_at = now
        if self.state == STABLE:
            reply(self._synced(member))
            return
        member.on_synced = reply
        if member_id == self.leader:
            self._assign(assignments, now)

    def _synced(self, member: Member) -> Synced:
        return Synced(0, self.protocol_type, self.protocol, member.assignment)

    def _assign(self, assignments: dict[str, bytes], now: float) -> None:
        generation = self.generation
        for member in self.members.values():
            member.assignment = assignments.get(member.member_id, b"")

        def stored(code: int) -> None:
            if self.state != COMPLETING or self.generation != generation:
                return  # somebody joined meanwhile; all waits were answered then
            if code:
                for member in self.members.values():
                    member.assignment = b""
                    member.answer_sync(Synced(code))
                self._prepare(f"the assignment could not be committed (error {code})", now)
                return
            self.state = STABLE
            for member in self.members.values():
                if member.on_synced is not None:
                    member.heard_at = max(member.heard_at, now)
                    self._wake(member.expires_at)
                    member.answer_sync(self._synced(member))

        self._persist(self.record(now), stored)

    def _current(self, member_id: str, instance_id: str | None, generation: int) -> Member:
        """:raises GroupError: not a member, fenced, or of another generation."""
        member = self._member(member_id, instance_id)
        if generation != self.generation:
            raise GroupError(errors.ILLEGAL_GENERATION)
        return member

    def heartbeat(self, member_id: str, instance_id: str | None, generation: int, now: float) -> int:
        """The error code to answer; 27 tells the member to join again."""
        try:
            member = self._current(member_id, instance_id, generation)
        except GroupError as refused:
            return refused.kafka_code
        member.heard_at = now
        return errors.REBALANCE_IN_PROGRESS if self.state == PREPARING else 0

    def leave(self, member_id: str, instance_id: str | None, now: float, reason: str = "") -> int:
        """The error code to answer. A static member may be named by its instance alone."""
        if instance_id is not None and not member_id:
            member_id = self._static.get(instance_id, "")
        if self._pending.pop(member_id, None) is not None:
            self._complete_if_ready(now)
            return 0
        try:
            member = self._member(member_id, instance_id)
        except GroupError as refused:
            return refused.kafka_code
        self._remove(member, f"{member_id} left{': ' + reason if reason else ''}", now)
        return 0

    def _forget(self, member: Member) -> None:
        del self.members[member.member_id]
        if member.instance_id is not None:
            self._static.pop(member.instance_id, None)
        if self.leader == member.member_id:
            self.leader = None
        member.answer_join(Joined(errors.UNKNOWN_MEMBER_ID, member.member_id))
        member.answer_sync(Synced(errors.UNKNOWN_MEMBER_ID))

    def _remove(self, member: Member, cause: str, now: float) -> None:
        self._forget(member)
        if self.state in (STABLE, COMPLETING):
            self._prepare(cause, now)
        else:
            self._complete_if_ready(now)

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _wake(self, at: float) -> None:
        self.wake_at = min(self.wake_at, at)

    def tick(self, now: float) -> None:
        """Whatever is due: silent members, ids nobody used, waits that are over."""
        if now < self.wake_at:
            return
        self._pending = {member_id: until for member_id, until in self._pending.items() if until > now}
        for member in list(self.members.values()):
            if not member.waiting and member.expires_at <= now and self.members.get(member.member_id) is member:
                self._remove(member, f"{member.member_id} silent for {now - member.heard_at:.1f} s", now)
        if self.state == COMPLETING and now >= self._deadline:
            for member in [m for m in self.members.values() if m.on_synced is None]:
                if self.members.get(member.member_id) is member:
                    self._remove(member, f"{member.member_id} sent no SyncGroup in time", now)
        self._complete_if_ready(now)
        self._set_wake(now)

    def _set_wake(self, now: float) -> None:
        times = [member.expires_at for member in self.members.values() if not member.waiting]
        times += self._pending.values()
        if self.state in (PREPARING, COMPLETING):
            times += [self._deadline, self._initial_until]
        self.wake_at = min((at for at in times if at > now), default=NEVER)

    def abandon(self, code: int) -> None:
        """The coordinator is elsewhere now: answer all who wait."""
        self.state = DEAD
        for member in self.members.values():
            member.answer_join(Joined(code, member.member_id))
            member.answer_sync(Synced(code))

    # ── offsets ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def check_commit(self, member_id: str, instance_id: str | None, generation: int, now: float) -> None:
        """May this member commit offsets? Generation -1 is a simple consumer, fine while there are no members.

        :raises GroupError: with Kafka's code.
        """
        if generation < 0 and not member_id and not self.members:
            return
        member = self._current(member_id, instance_id, generation)
        if self.state == COMPLETING:
            raise GroupError(errors.REBALANCE_IN_PROGRESS)
        member.heard_at = now

    # ── what the log holds ──────────────────────────────────────────────────────────────────────────────────────────

    def record(self, now: float) -> bytes:
        """The group as its record's value; `now` in seconds."""
        rows = [
            {
                "member_id": m.member_id, "group_instance_id": m.instance_id, "client_id": m.client_id,
                "client_host": m.client_host, "rebalance_timeout": m.rebalance_ms, "session_timeout": m.session_ms,
                "subscription": m.metadata(self.protocol), "assignment": m.assignment,
            }
            for m in self.members.values()
        ]  # fmt: skip
        return group_value({
            "protocol_type": self.protocol_type, "generation": self.generation, "protocol": self.protocol,
            "leader": self.leader, "current_state_timestamp": int(now * 1000), "members": rows,
        })  # fmt: skip

    def restore(self, body: dict[str, Any], now: float) -> None:
        """Take up what a record says; every member has a whole session to be heard of."""
        self.protocol_type, self.generation = body["protocol_type"], body["generation"]
        self.protocol, self.leader = body["protocol"], body["leader"]
        self.members, self._static = {}, {}
        for row in body["members"]:
            member = Member(
                row["member_id"], row["group_instance_id"], row["client_id"], row["client_host"],
                row["session_timeout"], row["rebalance_timeout"],
                ((self.protocol or "", bytes(row["subscription"])),), bytes(row["assignment"]), now,
            )  # fmt: skip
            self.members[member.member_id] = member
            if member.instance_id is not None:
                self._static[member.instance_id] = member.member_id
        self.state = STABLE if self.members else EMPTY
        self._set_wake(now)
