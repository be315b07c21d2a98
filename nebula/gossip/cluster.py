"""GossipCluster: the SWIM state machine. Inputs: `tick`, `receive`, `leave`; outputs: `outgoing`, `events`."""

from __future__ import annotations

import math
import random
from typing import Any

from nebula.gossip.messages import ALIVE, DEAD, LEFT, SUSPECT, Member, MemberState, decode, encode
from nebula.model import DecodeError, NodeName

PROBE_EVERY = 0.3
PROBE_TIMEOUT = 0.15
SUSPECT_FOR = 1.0
"""Seconds; each is multiplied by the local health score, so that a slow node blames itself first (Lifeguard)."""
HELPERS = 3
MAX_MEMBERS = 1000
"""A forged flood of names must not grow the table."""
MAX_HEALTH = 8
Address = tuple[str, int]


class Probe:
    """One probe under way."""

    def __init__(self, name: NodeName, serial: int, now: float, health: int) -> None:
        self.name = name
        self.serial = serial
        self.indirect_at = now + PROBE_TIMEOUT * health
        self.fail_at = now + 2 * PROBE_TIMEOUT * health
        self.asked = False


class GossipCluster:
    """One node's view of the membership."""

    def __init__(
        self, me: Member, cluster: str, seeds: list[Address], rng: random.Random, now: float, generation: int = 1
    ) -> None:
        self.me = me
        self.cluster = cluster
        self._seeds = seeds
        self._rng = rng
        self._states: dict[NodeName, MemberState] = {me.name: MemberState(me, ALIVE, generation)}
        self._suspected: dict[NodeName, float] = {}
        self._news: dict[NodeName, int] = {}
        """How often each member's state may still be passed on."""
        self._out: list[tuple[bytes, Address]] = []
        self._events: list[tuple[NodeName, str]] = []
        self._round: list[NodeName] = []
        self._probe: Probe | None = None
        self._relays: dict[int, tuple[Address, int, float]] = {}
        self._serial = 0
        self._next_probe = now
        self._next_join = now
        self.health = 1
        self._gone = False

    # ── outputs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def outgoing(self) -> list[tuple[bytes, Address]]:
        out, self._out = self._out, []
        return out

    def events(self) -> list[tuple[NodeName, str]]:
        events, self._events = self._events, []
        return events

    def members(self) -> dict[NodeName, MemberState]:
        return dict(self._states)

    def set_cluster(self, cluster: str) -> None:
        """The cluster got its name: from now on datagrams of others are ignored."""
        self.cluster = cluster

    def update_meta(self, meta: dict[str, Any]) -> None:
        """Say something new about this node (hints only)."""
        mine = self._states[self.me.name]
        self.me = Member(self.me.name, self.me.incarnation_id, self.me.host, self.me.port, self.me.version, meta)
        self._set(MemberState(self.me, ALIVE, mine.number + 1))

    # ── inputs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float) -> None:
        if self._gone:
            return
        for name, since in list(self._suspected.items()):
            if now - since >= SUSPECT_FOR * self.health:
                self._set(MemberState(self._states[name].member, DEAD, self._states[name].number))
        self._watch_probe(now)
        if now >= self._next_probe and self._probe is None:
            self._next_probe = now + PROBE_EVERY
            self._begin_probe(now)
        if now >= self._next_join:
            self._join(now)
        self._relays = {s: r for s, r in self._relays.items() if r[2] > now}

    def leave(self, now: float) -> None:
        """Tell some members that this node goes on purpose; send nothing afterwards."""
        mine = self._states[self.me.name]
        self._set(MemberState(self.me, LEFT, mine.number + 1))
        for name in self._others()[:HELPERS]:
            self._send("news", {}, self._address(name))
        self._gone = True

    def receive(self, data: bytes, address: Address, now: float) -> None:
        """A datagram from anywhere. Raises nothing, whatever it holds."""
        try:
            message = decode(data)
            if self._gone or (self.cluster and message["c"] and message["c"] != self.cluster):
                return
            for row in message["u"][:64]:
                self._learn(MemberState.from_row(row), now)
            self._answer(message, address, now)
        except (DecodeError, KeyError, TypeError, ValueError):
            return

    def _answer(self, message: dict[str, Any], address: Address, now: float) -> None:
        kind, serial = message["k"], int(message.get("s", 0))
        if kind == "ping":
            self._send("ack", {"s": serial}, address)
        elif kind == "ack":
            self._acknowledged(serial)
        elif kind == "ask" and len(self._relays) < MAX_MEMBERS and message.get("n") in self._states:
            self._serial += 1
            self._relays[self._serial] = (address, serial, now + 2.0)
            self._send("ping", {"s": self._serial}, self._address(str(message["n"])))
        elif kind == "join" and any(self._address(n) == address for n in self._states):
            # Only to an address that its datagram names: never more, to anyone else, than was asked with.
            self._spread_all(address)

    def _acknowledged(self, serial: int) -> None:
        if serial in self._relays:
            address, theirs, _ = self._relays.pop(serial)
            self._send("ack", {"s": theirs}, address)
        elif self._probe is not None and self._probe.serial == serial:
            self._probe = None
            self.health = max(1, self.health - 1)

    # ── probing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _others(self) -> list[NodeName]:
        names = [n for n, s in self._states.items() if n != self.me.name and s.status in (ALIVE, SUSPECT)]
        self._rng.shuffle(names)
        return names

    def _begin_probe(self, now: float) -> None:
        alive = set(self._others())
        self._round = [n for n in self._round if n in alive] or self._others()
        if self._round:
            name = self._round.pop()
            self._serial += 1
            self._probe = Probe(name, self._serial, now, self.health)
            self._send("ping", {"s": self._serial}, self._address(name))

    def _watch_probe(self, now: float) -> None:
        probe = self._probe
        if probe is None:
            return
        if now >= probe.indirect_at and not probe.asked:
            probe.asked = True
            for name in [n for n in self._others() if n != probe.name][:HELPERS]:
                self._send("ask", {"s": probe.serial, "n": probe.name}, self._address(name))
        if now >= probe.fail_at:
            self._probe = None
            self.health = min(MAX_HEALTH, self.health + 1)
            state = self._states[probe.name]
            if state.status == ALIVE:
                self._set(MemberState(state.member, SUSPECT, state.number))
                self._suspected[probe.name] = now

    def _join(self, now: float) -> None:
        """Until the seeds are members, and now and then afterwards: whoever was dead may be back at the old place."""
        here = {self._address(n) for n in self._others()}
        missing = [seed for seed in self._seeds if seed not in here]
        dead = [self._address(n) for n, s in self._states.items() if s.status == DEAD and n != self.me.name]
        self._next_join = now + (0.5 if missing else 2.0)
        for address in {*missing, *dead}:
            self._send("join", {}, address, include_me=True)

    # ── what is known ───────────────────────────────────────────────────────────────────────────────────────────────

    def _learn(self, state: MemberState, now: float) -> None:
        name = state.member.name
        if name == self.me.name:
            self._defend(state)
            return
        known = self._states.get(name)
        if not state.beats(known) or (known is None and len(self._states) >= MAX_MEMBERS):
            return
        if state.status == SUSPECT:
            self._suspected[name] = now
        self._set(state)

    def _defend(self, state: MemberState) -> None:
        """Somebody says we are suspect or dead, or remembers an earlier run of ours: outbid it."""
        mine = self._states[self.me.name]
        if state.beats(mine) and not self._gone:
            self._set(MemberState(self.me, ALIVE, state.number + 1))

    def _set(self, state: MemberState) -> None:
        name = state.member.name
        before = self._states.get(name)
        self._states[name] = state
        if state.status != SUSPECT:
            self._suspected.pop(name, None)
        self._news[name] = 3 * max(1, math.ceil(math.log2(len(self._states) + 1)))
        if before is None or before.status != state.status:
            self._events.append((name, state.status))
        elif before.member != state.member:
            self._events.append((name, "updated"))

    def _address(self, name: NodeName) -> Address:
        member = self._states[name].member
        return member.host, member.port

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, kind: str, body: dict[str, Any], address: Address, include_me: bool = False) -> None:
        names = sorted(self._news, key=lambda n: -self._news[n])[:16]
        if include_me and self.me.name not in names:
            names.insert(0, self.me.name)
        rows = [self._states[n].as_row() for n in names]
        self._out.append((encode(self.cluster, kind, body, rows), address))
        for name in names[: len(names) - len(rows)]:
            if name in self._news:
                self._news[name] -= 1
                if self._news[name] <= 0:
                    del self._news[name]

    def _spread_all(self, address: Address) -> None:
        """Full-state exchange, in bounded datagrams."""
        rows = [state.as_row() for state in self._states.values()]
        while rows:
            before = len(rows)
            self._out.append((encode(self.cluster, "news", {}, rows), address))
            if len(rows) == before:
                return
