"""What is believed of everybody else.

Rules:

1. A claim holds only if its weight is above the held one's (`member.py`). An address comes only with a higher number.
2. Nobody is learned of as dead or left: such entries would go round for ever after all had forgotten them.
3. At most `most` entries. The dead and the gone make room for the living; otherwise newcomers are not taken.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from nebula.gossip.member import Claim, Member, MemberState, Status
from nebula.model import NodeName

MAX_EVENTS = 4096
"""Kept for a caller that does not ask: several storms of a full table. The oldest go first."""
Event = tuple[NodeName, str]


@dataclass(slots=True)
class Suspicion:
    """How long a suspect has left (Lifeguard §3.3): `longest`, or `shortest` once enough others suspect it too."""

    begun: float
    shortest: float
    longest: float
    wanted: int
    """Confirmations, beyond the first suspicion, that bring the wait down to `shortest`."""
    by: set[NodeName] = field(default_factory=set)
    """Bounded by wanted + 1."""

    def confirm(self, by: NodeName) -> bool:
        """Count a suspicion; False for one already counted, or no longer needed."""
        if not by or by in self.by or len(self.by) > self.wanted:
            return False
        self.by.add(by)
        return True

    def deadline(self) -> float:
        if self.wanted <= 0:
            return self.begun + self.shortest
        share = math.log(max(1, len(self.by))) / math.log(self.wanted + 1)
        return self.begun + max(self.shortest, self.longest - (self.longest - self.shortest) * share)


@dataclass(slots=True)
class Entry:
    """What is believed of one member."""

    member: Member
    status: Status
    number: int
    since: float
    suspicion: Suspicion | None = None

    def claim(self, by: NodeName = "") -> Claim:
        return Claim(self.member, self.status, self.number, by)

    @property
    def live(self) -> bool:
        return self.status in (Status.ALIVE, Status.SUSPECT)


class Table:
    """Everybody else, by name. `news` is given every claim that is to be passed on."""

    def __init__(self, most: int, shortest: float, longest: float, news: Callable[[Claim], None]) -> None:
        self._most = most
        self._shortest = shortest
        self._longest = longest
        self._news = news
        self._entries: dict[NodeName, Entry] = {}
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, name: NodeName) -> Entry | None:
        return self._entries.get(name)

    def live(self) -> list[Entry]:
        return [entry for entry in self._entries.values() if entry.live]

    def states(self) -> dict[NodeName, MemberState]:
        return {name: MemberState(e.member, e.status, e.number) for name, e in self._entries.items()}

    def clear(self) -> None:
        self._entries.clear()

    def apply(self, claim: Claim, now: float) -> bool:
        """Take up a claim, if it holds; True if the member is live now and was not before."""
        entry = self._entries.get(claim.member.name)
        if entry is None:
            return self._learn(claim, now)
        if claim.weight <= entry.claim().weight:
            self._confirm(entry, claim)
            return False
        was = entry.live
        moved = claim.number > entry.number and claim.member != entry.member
        if moved:
            entry.member = claim.member
        if moved and (claim.status is not Status.ALIVE or entry.status is Status.ALIVE):
            self.events.append((entry.member.name, "updated"))
        self._stand(entry, claim, now)
        return entry.live and not was

    def _learn(self, claim: Claim, now: float) -> bool:
        if claim.status in (Status.DEAD, Status.LEFT) or not self._has_room():
            return False
        entry = Entry(claim.member, Status.ALIVE, claim.number, now)
        self._entries[claim.member.name] = entry
        self.events.append((claim.member.name, "alive"))
        self._stand(entry, claim, now)
        return True

    def _has_room(self) -> bool:
        if len(self._entries) < self._most:
            return True
        gone = [entry for entry in self._entries.values() if not entry.live]
        if gone:
            del self._entries[min(gone, key=lambda entry: entry.since).member.name]
        return bool(gone)

    def _stand(self, entry: Entry, claim: Claim, now: float) -> None:
        """Make the entry say what the claim says, tell the caller of a change, and pass it on."""
        if entry.status is not claim.status:
            self.events.append((entry.member.name, claim.status.value))
            entry.since = now
        entry.status, entry.number, entry.suspicion = claim.status, claim.number, None
        if claim.status is Status.SUSPECT:
            others = len(self.live()) - 1
            entry.suspicion = Suspicion(now, self._shortest, self._longest, min(2, others))
            entry.suspicion.confirm(claim.by)
        self._news(entry.claim(claim.by))

    def _confirm(self, entry: Entry, claim: Claim) -> None:
        same = claim.status is entry.status is Status.SUSPECT and claim.number == entry.number
        if same and entry.suspicion is not None and entry.suspicion.confirm(claim.by):
            self._news(entry.claim(claim.by))

    def expire(self, now: float, dead_kept: float, left_kept: float) -> list[NodeName]:
        """Suspects whose time is up are dead; the long dead are forgotten, and returned."""
        for entry in self._entries.values():
            if entry.suspicion is not None and now >= entry.suspicion.deadline():
                self._stand(entry, Claim(entry.member, Status.DEAD, entry.number), now)
        kept = {Status.DEAD: dead_kept, Status.LEFT: left_kept}
        over = [n for n, e in self._entries.items() if not e.live and now - e.since > kept[e.status]]
        for name in over:
            del self._entries[name]
        return over

    def shift(self, by: float) -> None:
        """The process was stopped, or its clock set: time that nobody could use does not count."""
        for entry in self._entries.values():
            entry.since += by
            if entry.suspicion is not None:
                entry.suspicion.begun += by
