"""Waiting, for a short and bounded time, until something about the cluster holds: a topic is here, leaders are known.

Clients ask for metadata the moment a leader dies or a topic was created. Answered at once they would hear nothing useful,
and ask again only after a back-off that is longer than the election (librdkafka: 0.1 to 1 s).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from nebula.broker.reactor import at_turn_end

MAX_WAITS = 1000
"""More are answered at once: each is looked at whenever a leader changes."""


class Settling:
    """Checks that wait to become true."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waits: dict[Deferred[None], Callable[[], bool]] = {}
        self._looking = False

    def wait(self, check: Callable[[], bool], seconds: float) -> Deferred[None]:
        """Fires when `check` is true after a change, or when `seconds` are over; it never fails."""
        done: Deferred[None] = Deferred()
        if len(self._waits) >= MAX_WAITS or check():
            done.callback(None)
            return done
        self._waits[done] = check
        timer = self._reactor.callLater(seconds, self._end, done)

        def over(outcome: None) -> None:
            if timer.active():
                timer.cancel()
            return outcome

        return done.addBoth(over)

    def changed(self) -> None:
        """Something changed: look once, at the end of the turn."""
        if self._waits and not self._looking:
            self._looking = True
            at_turn_end(self._reactor, self._look)

    def _look(self) -> None:
        self._looking = False
        for done in [done for done, check in self._waits.items() if check()]:
            self._end(done)

    def _end(self, done: Deferred[None]) -> None:
        if self._waits.pop(done, None) is not None:
            done.callback(None)
