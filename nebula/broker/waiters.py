"""Who waits for which place in a log to be committed: the Deferreds of publishes, in log order.

Bounded by the log itself: every waiter stands for a batch that Raft accepted, and Raft refuses batches once too many
bytes are uncommitted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from twisted.internet.defer import Deferred

from nebula.model import NotLeader, Offset, Position


class Waiters:
    """Deferreds that fire with an offset once a position is committed, and fail together when leadership is lost."""

    def __init__(self) -> None:
        self._heap: list[tuple[Position, int, Deferred[Offset], Offset]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    def wait(self, end: Position, value: Offset) -> Deferred[Offset]:
        """A Deferred that fires with `value` when `end` is committed."""
        self._count += 1
        waiter: Deferred[Offset] = Deferred()
        heapq.heappush(self._heap, (end, self._count, waiter, value))
        return waiter

    def advance(self, commit: Position) -> None:
        """Fire, in log order, everyone whose place is at or before `commit`."""
        heap = self._heap
        while heap and heap[0][0] <= commit:
            _, _, waiter, value = heapq.heappop(heap)
            waiter.callback(value)

    def fail(self, make_error: Callable[[], Exception] = NotLeader) -> None:
        """Leadership is lost: nobody here can promise anything about the rest (it may yet be committed, or not)."""
        heap, self._heap = self._heap, []
        for _, _, waiter, _ in sorted(heap):
            waiter.errback(make_error())
