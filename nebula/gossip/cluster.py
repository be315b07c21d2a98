"""GossipCluster: the conversation. What comes in changes the table; what is to be said is kept until it is fetched.

Rules:

1. Reads no clock, draws no randomness it was not given, sends nothing: `tick(now)` and `receive(data, address, now)`
   in, `outgoing()` and `events()` out, fetched after each call.
2. `receive` raises nothing, whatever it is given, and does work bounded by the datagram's size; only the full state
   costs more, and is rationed.
3. Nothing is believed of, or remembered about, an address that has not proved itself (`cookies.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from nebula.gossip.broadcasts import Broadcasts
from nebula.gossip.cookies import Cookies
from nebula.gossip.member import (
    MAX_NAME,
    MAX_NUMBER,
    UNSPECIFIED,
    Address,
    Claim,
    Member,
    MemberState,
    Scalar,
    Status,
    check_member,
    check_text,
    encode_meta,
)
from nebula.gossip.messages import MAX_CLAIMS, MAX_DATAGRAM, QUESTION_SIZE, Kind, Message, decode, encode, encode_claim
from nebula.gossip.probes import MAX_PROBES, LocalHealth, Probe, Purpose
from nebula.gossip.table import Entry, Event, Table
from nebula.model import DecodeError, NodeName

MAX_OUTGOING = 4096
"""Datagrams kept for a caller that does not fetch them; UDP may lose any of them anyway."""
GREETED_AT_ONCE = 32
"""Addresses pinged in one go: seeds, members met again after the cluster was named, farewells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipSettings:
    """Times in seconds."""

    probe_interval: float = 0.3
    probe_timeout: float = 0.15
    """Without an answer for this long, others are asked to ping; after thrice this the target is suspect."""
    indirect: int = 3
    suspicion_min: float = 1.0
    suspicion_max: float = 2.0
    """The wait while nobody else suspects the same member, where there is somebody else."""
    worst_health: int = 4
    """Cap of the multiplier: a cluster that lost most of its members must still notice the next death in seconds."""
    gossip_interval: float = 0.1
    fanout: int = 3
    retransmit: int = 3
    join_interval: float = 2.0
    """Between pings to seeds that are no live members, and to a member taken for dead; alone, the probe interval."""
    pull_first: float = 1.0
    """The first pull, which finds whom the crowd of a common start let slip; each later one waits twice as long."""
    pull_interval: float = 10.0
    pulls_per_second: int = 10
    """Full states sent: with 512 members 50 datagrams each."""
    pause: float = 0.5
    """A gap between ticks that means: this process was stopped, nothing can be concluded from silence."""
    dead_kept: float = 600.0
    left_kept: float = 60.0
    max_members: int = 512


class GossipCluster:
    """This node's part in the conversation.

    :param me: at the address that others should use; host "0.0.0.0" means the one its datagrams come from.
    :param cluster: the cluster's name; empty before birth.
    :param seeds: addresses to ask, for as long as no live member is known there.
    :param generation: where `me`'s number begins; higher than at any earlier start. The wall clock in ms does.
    """

    def __init__(
        self, me: Member, cluster: str, seeds: Sequence[Address], rng: Random, now: float,
        generation: int = 1, settings: GossipSettings | None = None,
    ) -> None:  # fmt: skip
        check_member(me)
        encode_meta(me.meta)
        check_text("cluster", cluster, MAX_NAME, may_be_empty=True)
        self.settings = s = settings or GossipSettings()
        self.cluster = cluster
        self.health = LocalHealth(s.worst_health)
        self._heard = cluster
        """The cluster an unnamed node talks to: the first it heard of. Others are ignored from then on."""
        self._me = Claim(me, Status.ALIVE, generation)
        self._seeds = [seed for seed in dict.fromkeys(seeds) if seed != me.address]
        self._seed_names: dict[Address, NodeName] = {}
        self._rng = rng
        self._now = now
        self._cookies = Cookies(rng, 2 * s.max_members)
        self._news = Broadcasts(s.retransmit)
        self._table = Table(s.max_members, s.suspicion_min, s.suspicion_max, self._news.put)
        self._probes: dict[int, Probe] = {}
        self._round: list[NodeName] = []
        self._due = {"probe": now, "join": now, "gossip": now, "pull": now + s.pull_first, "ration": now}
        self._pull_wait = s.pull_first
        self._pulls_left = s.pulls_per_second
        self._outgoing: list[tuple[bytes, Address]] = []
        self._news.put(self._me)

    # ── what the caller sees ────────────────────────────────────────────────────────────────────────────────────────

    def outgoing(self) -> list[tuple[bytes, Address]]:
        """Datagrams to send, once. A host may be a name if a seed's is."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def events(self) -> list[Event]:
        """What changed about others, once: (name, "alive" | "suspect" | "dead" | "left" | "updated")."""
        events = list(self._table.events)
        self._table.events.clear()
        return events

    def members(self) -> dict[NodeName, MemberState]:
        """Everybody known, and this node."""
        me = MemberState(self._me.member, self._me.status, self._me.number)
        return {me.member.name: me, **self._table.states()}

    def update_meta(self, meta: Mapping[str, Scalar]) -> None:
        """Say something else of oneself.

        :raises ValueError: meta is not flat or too large.
        """
        encode_meta(meta)
        if dict(meta) != dict(self._me.member.meta):
            self._say(replace(self._me, member=replace(self._me.member, meta=dict(meta)), number=self._me.number + 1))

    def set_cluster(self, name: str) -> None:
        """The cluster was born, or joined. What was believed is forgotten, for it may be of another cluster; who is of
        this one comes back as "alive" within a round trip, for everybody known is asked at once."""
        check_text("cluster", name, MAX_NAME)
        if name == self.cluster:
            return
        known = [entry.member for entry in self._table.live()]
        self.cluster = self._heard = name
        self._table.clear()
        self._news.clear()
        self._probes.clear()
        self._seed_names.clear()
        self._say(self._me)
        for member in known[:GREETED_AT_ONCE]:
            self._ping(Purpose.JOIN, member.name, member.address)

    def leave(self, now: float) -> None:
        """Say good-bye. Nothing is heard, answered or sent afterwards."""
        if self._left:
            return
        self._now = now
        self._say(Claim(self._me.member, Status.LEFT, self._me.number))
        for entry in self._pick(GREETED_AT_ONCE):
            self._send(Kind.GOSSIP, entry.member.address, claims=[encode_claim(self._me)])

    @property
    def _left(self) -> bool:
        return self._me.status is Status.LEFT

    def _say(self, claim: Claim) -> None:
        self._me = claim
        self._news.put(claim)

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float) -> None:
        """Time passed: call every 0.1 s or so."""
        gap, self._now = now - self._now, now
        if self._left:
            return
        if not 0 <= gap <= self.settings.pause:
            self._shift(gap)
        for name in self._table.expire(now, self.settings.dead_kept, self.settings.left_kept):
            self._news.drop(name)
        for probe in list(self._probes.values()):
            self._age(probe)
        s = self.settings
        if self._is_due("ration", 1.0):
            self._pulls_left = s.pulls_per_second
        if self._is_due("probe", self.health.scale(s.probe_interval)):
            self._probe_next()
        if self._is_due("join", s.join_interval if self._table.live() else s.probe_interval):
            self._join()
        if self._is_due("pull", self._pull_wait):
            self._pull_wait = min(s.pull_interval, 2 * self._pull_wait)
            for entry in self._pick(1):
                self._send(Kind.PULL, entry.member.address, claims=[encode_claim(self._me)])
        if self._news and self._is_due("gossip", s.gossip_interval):
            for entry in self._pick(s.fanout):
                if self._news:
                    self._send(Kind.GOSSIP, entry.member.address)

    def _is_due(self, what: str, interval: float) -> bool:
        due = self._now >= self._due[what]
        if due:
            self._due[what] = self._now + interval
        return due

    def _shift(self, gap: float) -> None:
        """This process stood still, or its clock was set: all deadlines move along, nobody is judged."""
        self._table.shift(gap)
        self._due = {what: at + gap for what, at in self._due.items()}
        for probe in self._probes.values():
            probe.indirect_at += gap
            probe.fails_at += gap
        if gap > 0 and self._probes:
            self.health.worse()

    def _age(self, probe: Probe) -> None:
        if self._now >= probe.fails_at:
            del self._probes[probe.nonce]
            if probe.purpose is Purpose.PROBE:
                self._suspect(probe)
            elif probe.asker is not None:
                address, nonce = probe.asker
                self._send(Kind.NACK, address, nonce=nonce)
        elif probe.purpose is Purpose.PROBE and probe.helpers is None and self._now >= probe.indirect_at:
            helpers = [e for e in self._pick(self.settings.indirect + 1) if e.member.name != probe.target]
            probe.helpers = {entry.member.name for entry in helpers[: self.settings.indirect]}
            for entry in helpers[: self.settings.indirect]:
                self._send(Kind.PING_REQ, entry.member.address, nonce=probe.nonce, target=probe.target)

    def _suspect(self, probe: Probe) -> None:
        self.health.judge_silence(probe)
        entry = self._table.get(probe.target)
        if entry is not None and entry.live and entry.member.address == probe.address:
            me = self._me.member.name
            self._table.apply(Claim(entry.member, Status.SUSPECT, entry.number, me), self._now)

    def _probe_next(self) -> None:
        live = {entry.member.name: entry for entry in self._table.live()}
        if not live:
            self.health.score = 0
            return
        while self._round and self._round[-1] not in live:
            self._round.pop()
        if not self._round:
            self._round = list(live)
            self._rng.shuffle(self._round)
        target = live[self._round.pop()].member
        self._ping(Purpose.PROBE, target.name, target.address)

    def _join(self) -> None:
        """Ask the seeds where no live member is known, and one of the dead: a healed partition is found by this."""
        live = {entry.member.name: entry.member.address for entry in self._table.live()}
        addresses = set(live.values())
        missing = [s for s in self._seeds if s not in addresses and self._seed_names.get(s) not in live]
        for seed in self._rng.sample(missing, min(len(missing), GREETED_AT_ONCE)):
            self._ping(Purpose.JOIN, "", seed)
        dead = [entry.member for entry in self._table if entry.status is Status.DEAD]
        if dead:
            member = self._rng.choice(dead)
            self._ping(Purpose.JOIN, member.name, member.address)

    def _pick(self, count: int) -> list[Entry]:
        """Some live members that we can prove ourselves to."""
        ready = [entry for entry in self._table.live() if self._cookies.theirs(entry.member.address)]
        return self._rng.sample(ready, min(count, len(ready)))

    # ── what is said ────────────────────────────────────────────────────────────────────────────────────────────────

    def _ping(
        self, purpose: Purpose, target: NodeName, address: Address,
        asker: tuple[Address, int] | None = None, repeated: bool = False,
    ) -> None:  # fmt: skip
        if len(self._probes) >= MAX_PROBES:
            return
        timeout = self.settings.probe_timeout
        if purpose is not Purpose.RELAY:
            timeout = self.health.scale(timeout)
        patience = timeout if purpose is Purpose.RELAY else 3 * timeout
        probe = Probe(
            nonce=self._rng.getrandbits(64), purpose=purpose, target=target, address=address, asker=asker,
            indirect_at=self._now + timeout, fails_at=self._now + patience, repeated=repeated,
        )  # fmt: skip
        self._probes[probe.nonce] = probe
        known = bool(self._cookies.theirs(address))
        first = [encode_claim(self._me), *self._about(target)] if known else []
        self._send(Kind.PING, address, nonce=probe.nonce, target=target, claims=first, news=known)

    def _about(self, name: NodeName, number: int = -1) -> list[bytes]:
        """What a member must hear first: that it is taken for something else than it is."""
        entry = self._table.get(name)
        if entry is None or (entry.status is Status.ALIVE and number in (-1, entry.number)):
            return []
        return [encode_claim(entry.claim(self._me.member.name if entry.status is Status.SUSPECT else ""))]

    def _send(
        self, kind: Kind, address: Address, *, nonce: int = 0, target: NodeName = "", echo: int = 0,
        proved: bool = True, claims: Sequence[bytes] = (), news: bool = True, limit: int = MAX_DATAGRAM,
    ) -> None:  # fmt: skip
        """Queue a datagram of at most `limit` bytes, with news if it may; nothing if even its head does not fit."""
        message = Message(
            kind=kind, cluster=self.cluster, sender=self._me.member.name, nonce=nonce, target=target, proved=proved,
            echo=echo or self._cookies.theirs(address), cookie=self._cookies.ours(address),
        )  # fmt: skip
        size = len(encode(message))
        fitting: list[bytes] = []
        for claim in claims:
            if size + len(claim) <= limit:
                size += len(claim)
                fitting.append(claim)
        if news:
            fitting += self._news.take(limit - size, len(self._table) + 1, MAX_CLAIMS - len(fitting))
        data = encode(message, fitting)
        if kind is Kind.PING:
            data = data.ljust(QUESTION_SIZE, b"\0")
        if len(data) <= limit and len(self._outgoing) < MAX_OUTGOING:
            self._outgoing.append((data, address))

    # ── what is heard ───────────────────────────────────────────────────────────────────────────────────────────────

    def receive(self, data: bytes, addr: tuple[str, int], now: float) -> None:
        """A datagram came. Raises nothing."""
        if self._left:
            return
        if 0 <= now - self._now <= self.settings.pause:  # a longer gap is the next tick's to judge
            self._now = now
        try:
            message = decode(data)
        except DecodeError:
            return
        address = addr[0], addr[1]
        if self._is_foreign(message):
            return
        proved = message.echo == self._cookies.ours(address)
        if message.kind is Kind.ACK:
            self._acked(message, address, proved)
        elif message.kind is Kind.PING:
            self._pinged(message, address, proved, len(data))
        elif proved:
            self._cookies.remember(address, message.cookie)
            self._absorb(message, address)
            if message.kind is Kind.PING_REQ:
                self._relay(message, address)
            elif message.kind is Kind.NACK:
                self._nacked(message)
            elif message.kind is Kind.PULL:
                self._pulled(address)

    def _is_foreign(self, message: Message) -> bool:
        """Another cluster's, or our own back again."""
        return message.cluster not in ("", self._heard or message.cluster) or message.sender == self._me.member.name

    def _pinged(self, message: Message, address: Address, proved: bool, size: int) -> None:
        if message.target not in ("", self._me.member.name):
            return
        claims: list[bytes] = []
        if proved:
            self._cookies.remember(address, message.cookie)
            self._absorb(message, address)
            own = [claim.number for claim in message.claims if claim.member.name == message.sender]
            claims = [encode_claim(self._me), *self._about(message.sender, max(own, default=-1))]
        self._send(
            Kind.ACK, address, nonce=message.nonce, echo=message.cookie, proved=proved, claims=claims, news=proved,
            limit=MAX_DATAGRAM if proved else size,
        )  # fmt: skip

    def _acked(self, message: Message, address: Address, proved: bool) -> None:
        probe = self._probes.get(message.nonce)
        if probe is None:
            return
        if probe.helpers and message.sender in probe.helpers and proved:
            del self._probes[probe.nonce]
            self._absorb(message, address)
            return
        if probe.target not in ("", message.sender):
            return
        del self._probes[probe.nonce]
        for known_at in (address, probe.address):  # they differ if we asked a host name, or one of several interfaces
            self._cookies.remember(known_at, message.cookie)
        self._succeeded(probe, message)
        self._absorb(message, address)
        if not message.proved and not probe.repeated:
            self._ping(Purpose.JOIN, message.sender, address, repeated=True)

    def _succeeded(self, probe: Probe, message: Message) -> None:
        if probe.purpose is Purpose.PROBE:
            self.health.better()
        if probe.purpose is Purpose.JOIN and probe.address in self._seeds:
            self._seed_names[probe.address] = message.sender
        if probe.asker is not None:
            address, nonce = probe.asker
            self._send(Kind.ACK, address, nonce=nonce)

    def _relay(self, message: Message, address: Address) -> None:
        entry = self._table.get(message.target)
        if entry is not None:
            self._ping(Purpose.RELAY, message.target, entry.member.address, asker=(address, message.nonce))

    def _nacked(self, message: Message) -> None:
        probe = self._probes.get(message.nonce)
        if probe is not None and probe.helpers and message.sender in probe.helpers:
            probe.nacks.add(message.sender)

    def _pulled(self, address: Address) -> None:
        """Send all we know, in as many datagrams as it takes."""
        if self._pulls_left <= 0:
            return
        self._pulls_left -= 1
        chunk: list[bytes] = []
        room = MAX_DATAGRAM - QUESTION_SIZE
        for encoded in (encode_claim(self._me), *(encode_claim(entry.claim()) for entry in self._table)):
            if len(encoded) > room or len(chunk) == MAX_CLAIMS:
                self._send(Kind.STATE, address, claims=chunk, news=False)
                chunk, room = [], MAX_DATAGRAM - QUESTION_SIZE
            chunk.append(encoded)
            room -= len(encoded)
        self._send(Kind.STATE, address, claims=chunk, news=False)

    def _absorb(self, message: Message, address: Address) -> None:
        """Believe what a proved address says, as far as its cluster allows."""
        self._heard = self._heard or message.cluster
        unborn = bool(self.cluster) and not message.cluster
        for claim in message.claims:
            own = claim.member.name == message.sender
            if claim.member.name == self._me.member.name:
                self._refute(claim)
            elif own or not unborn:
                self._believe(claim, message, address if own else None)

    def _believe(self, claim: Claim, message: Message, source: Address | None) -> None:
        if claim.member.host in UNSPECIFIED:
            if source is None:
                return
            claim = replace(claim, member=replace(claim.member, host=source[0]))
        known = self._table.get(claim.member.name) is not None
        if message.kind is Kind.STATE and claim.status is Status.DEAD and known:
            claim = replace(claim, status=Status.SUSPECT, by=message.sender)
        if self._table.apply(claim, self._now) and source is not None:
            self._send(Kind.PULL, source, claims=[encode_claim(self._me)])

    def _refute(self, claim: Claim) -> None:
        """Somebody holds what is not so, or what a predecessor said: say it anew, with a number above theirs."""
        me = self._me
        said = claim.member
        if me.member.host in UNSPECIFIED:
            said = replace(said, host=me.member.host)
        same = said == me.member
        if claim.weight < me.weight or (claim.weight == me.weight and same) or claim.number >= MAX_NUMBER:
            return
        if claim.status is not Status.ALIVE and claim.number == me.number:
            self.health.worse()
        self._say(replace(me, number=claim.number + 1))
