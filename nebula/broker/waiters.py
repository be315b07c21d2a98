"""Who waits for which place in a log to be committed: the Deferreds of publishes, in log order.

Bounded by the log itself: every waiter stands for a batch that Raft accepted, and Raft refuses batches once too many
bytes are uncommitted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from nebula.model import NotLeader, Offset, Position

Done = Callable[[Offset, Exception | None], None]
"""Called once: with the offset, or with the error and whatever offset was meant."""


class Waiters:
    """Calls that are made with an offset once a position is committed, and fail together when leadership is lost.

    Plain calls and no Deferreds: there may be one per batch, and a Deferred costs more than the batch's bookkeeping.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[Position, int, Done, Offset]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    def wait(self, end: Position, value: Offset, done: Done) -> None:
        """Call `done(value, None)` when `end` is committed."""
        self._count += 1
        heapq.heappush(self._heap, (end, self._count, done, value))

    def advance(self, commit: Position) -> None:
        """Call, in log order, everyone whose place is at or before `commit`."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= commit:
            _, _, done, value = pop(heap)
            done(value, None)

    def fail(self, make_error: Callable[[], Exception] = NotLeader) -> None:
        """Leadership is lost: nobody here can promise anything about the rest (it may yet be committed, or not)."""
        heap, self._heap = self._heap, []
        for _, _, done, value in sorted(heap):
            done(value, make_error())
