"""What a leader knows of one peer (etcd's tracker: probe until it answers, then stream)."""

from __future__ import annotations

from collections import deque

from nebula.model import Position

WINDOW = 4 << 20
"""Bytes in flight to one follower; a follower further behind is fed from disk at the pace of its answers."""


class Progress:
    """One follower or learner."""

    __slots__ = ("heard", "in_flight", "installing", "match", "moved", "next", "probing", "round", "unacked", "waiting")

    def __init__(self, next_: Position, now: float) -> None:
        self.match = Position(0, 0)
        """Known to be on its disk."""
        self.next = next_
        """Where the next run begins."""
        self.probing = True
        """One message at a time until it agrees on a place."""
        self.waiting = False
        """A probe is out."""
        self.installing = False
        self.unacked: deque[tuple[Position, int]] = deque()
        self.in_flight = 0
        self.heard = now
        """When it last answered anything."""
        self.moved = now
        """When `match` last grew or a probe was sent: an append lost on the way shows by this standing still."""
        self.round = 0

    def room(self) -> int:
        """Bytes that may be sent now."""
        if self.installing or (self.probing and self.waiting):
            return 0
        return WINDOW - self.in_flight

    def sent(self, end: Position, size: int, now: float) -> None:
        if self.probing:
            self.waiting, self.moved = True, now
            return
        if not self.unacked:
            self.moved = now
        self.unacked.append((end, size))
        self.in_flight += size
        self.next = end

    def acknowledged(self, match: Position, now: float) -> None:
        if match > self.match:
            self.match, self.moved = match, now
        while self.unacked and self.unacked[0][0] <= match:
            self.in_flight -= self.unacked.popleft()[1]
        if self.probing:
            self.probing = self.waiting = False
            self.next = self.match
        self.installing = False
        self.next = max(self.next, self.match)

    def probe(self, place: Position) -> None:
        """Start over at `place`."""
        self.next, self.probing, self.waiting, self.installing = max(place, self.match), True, False, False
        self.unacked.clear()
        self.in_flight = 0
