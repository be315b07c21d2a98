"""The end of a reactor turn, whatever the reactor; the `nebula` reactor itself; and the process around it.

Work is done once per turn, not once per message (PERFORMANCE §3.1): what was read in a turn becomes one write, one sync
round and one burst of replies. With our own reactor the hook is exact; with any other it is a `callLater(0)`.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt(3), from malloc.h."""

OLD_GLIBC_MMAP_MAX = 32 << 20
"""Older glibc refuses a higher mmap threshold (HEAP_MAX_SIZE / 2)."""

GC_THRESHOLDS = (50_000, 20, 20)
"""A full collection takes 15 ms with 10,000 partitions; the hot path makes no cycles."""


def at_turn_end(reactor: Any, call: Callable[[], None]) -> None:
    """Run `call` once, at the end of the current turn of `reactor`, or as soon as that reactor can."""
    hook = getattr(reactor, "at_turn_end", None)
    if hook is not None:
        hook(call)
    else:
        reactor.callLater(0, call)


def install() -> None:
    """Install our reactor as the global one (`twistd --reactor nebula`). Raises ImportError where there is no epoll."""
    from twisted.internet.main import installReactor

    from nebula.broker.epoll import TurnReactor

    installReactor(TurnReactor())  # type: ignore[no-untyped-call]


def tune_process() -> bool:
    """Set malloc and the collector up for a broker, once, at the end of start-up. True if malloc could be tuned."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return _tune_malloc()


def _tune_malloc() -> bool:
    """Keep large frames on the heap: otherwise each is mapped, faulted in and unmapped again (1.5 to 5 times slower)."""
    try:
        libc = ctypes.CDLL(None)
        if not hasattr(libc, "gnu_get_libc_version"):
            return False  # another libc may give these numbers another meaning
        threshold = libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) or libc.mallopt(M_MMAP_THRESHOLD, OLD_GLIBC_MMAP_MAX)
        others = [libc.mallopt(M_TRIM_THRESHOLD, 1 << 30), libc.mallopt(M_TOP_PAD, 64 << 20)]
        return bool(threshold) and all(others)
    except (OSError, AttributeError):
        return False
