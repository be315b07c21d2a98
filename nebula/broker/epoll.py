"""An EPollReactor with a lean poll and a hook at the end of each turn. Linux only; `nebula.broker.reactor` installs it.

Rules: a hook registered anywhere, a timed call included, runs before the reactor next waits for anything; a hook that
raises is logged and harms no other; hooks that register hooks cannot keep the reactor from its sockets.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from select import EPOLLIN
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.python import log

MAX_PASSES = 8
"""How often hooks registered by hooks still run in the same turn: drain -> responses -> flush takes three."""


class TurnReactor(EPollReactor):
    """EPollReactor whose `at_turn_end` callables run once everything that was readable in this turn has been read."""

    def __init__(self) -> None:
        self._turn_end: list[Callable[[], None]] = []
        super().__init__()  # type: ignore[no-untyped-call]

    def at_turn_end(self, call: Callable[[], None]) -> None:
        """Run `call` once, at the end of this turn; from a timed call, at the end of the poll that follows at once."""
        self._turn_end.append(call)

    def doPoll(self, timeout: float | None) -> None:
        """One turn. Plain reads skip Twisted's log context and dispatch, which cost more than the reads themselves."""
        if self._turn_end:
            timeout = 0
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, max(1, len(self._selectables)))
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
            events = []
        selectables = self._selectables
        for fd, event in events:
            selectable = selectables.get(fd)
            if selectable is None:
                continue  # closed by an event earlier in this turn
            if event == EPOLLIN:
                self._read(selectable)
            else:
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, event)  # type: ignore[no-untyped-call]
        if self._turn_end:
            self._run_turn_end()

    doIteration = doPoll

    def _read(self, selectable: Any) -> None:
        """doRead as Twisted does it: an exception is logged and disconnects."""
        try:
            why = selectable.doRead()
        except BaseException:  # as Twisted does
            why = sys.exc_info()[1]
            log.err()  # type: ignore[no-untyped-call]
        if why:
            self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]

    def _run_turn_end(self) -> None:
        for _ in range(MAX_PASSES):
            calls, self._turn_end = self._turn_end, []
            for call in calls:
                try:
                    call()
                except BaseException:  # as Twisted does for timed calls
                    log.err(None, "a call at the end of a reactor turn failed")  # type: ignore[no-untyped-call]
            if not self._turn_end:
                return
