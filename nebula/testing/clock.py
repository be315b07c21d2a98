"""A heap of events: the simulator's only notion of time. `task.Clock` sorts on every call; this does not."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class SimulatedClock:
    """Runs callbacks in order of their time, then of their scheduling."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0

    def later(self, delay: float, call: Callable[[], None]) -> None:
        """Run `call` `delay` simulated seconds from now."""
        self._serial += 1
        heapq.heappush(self._heap, (self.now + delay, self._serial, call))

    def step(self) -> bool:
        """Run the next event; False when there is none."""
        if not self._heap:
            return False
        self.now, _, call = heapq.heappop(self._heap)
        call()
        return True
