"""Pings that are out, and what their fate says about our own health."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from nebula.gossip.member import Address
from nebula.model import NodeName

MAX_PROBES = 512
"""Pings out at once: a ping per seed, per probe and per member that asked for one. Beyond, new ones are not sent."""


class Purpose(Enum):
    """What a ping is for, and so what its silence means."""

    PROBE = auto()
    """Silence makes the target a suspect."""
    JOIN = auto()
    """To a seed, or to one taken for dead; silence means nothing."""
    RELAY = auto()
    """For somebody else, who is told of an answer and of silence."""


@dataclass(slots=True, kw_only=True)
class Probe:
    """One ping that is out."""

    nonce: int
    purpose: Purpose
    target: NodeName
    """Empty for a seed whose name is not known."""
    address: Address
    indirect_at: float
    fails_at: float
    asker: tuple[Address, int] | None = None
    """Of a relay: who asked, and under which nonce."""
    repeated: bool = False
    """A ping whose echo was wrong is sent once more with the cookie its answer brought; once, lest two ping-pong."""
    helpers: set[NodeName] | None = None
    """Asked to ping for us; None until they are."""
    nacks: set[NodeName] = field(default_factory=set)


class LocalHealth:
    """Lifeguard's multiplier: how much slower than the others we seem to be."""

    def __init__(self, worst: int) -> None:
        self._worst = worst
        self.score = 0

    def worse(self, by: int = 1) -> None:
        self.score = min(self._worst, self.score + by)

    def better(self) -> None:
        self.score = max(0, self.score - 1)

    def scale(self, seconds: float) -> float:
        return seconds * (1 + self.score)

    def judge_silence(self, probe: Probe) -> None:
        """A probe failed. Helpers that said nack could be reached, so the path that is broken is not ours."""
        if probe.helpers:
            self.worse(len(probe.helpers - probe.nacks))
        else:
            self.worse()
