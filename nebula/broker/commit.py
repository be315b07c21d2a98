"""Group commit: many requests to make files durable, few fdatasync rounds.

Rules:

1. At most one round is in flight. What is requested meanwhile is one next round, however many requests that is.
2. `done` is called on the reactor's thread, in the order of the requests, and may run before `request` returns.
3. After one failed fdatasync nothing is synced again and every request fails (RELIABILITY rule 3): the kernel may have
   dropped the dirty pages, and a second fdatasync that "succeeds" proves nothing.
4. A file may be closed as soon as it was requested: the round syncs a duplicate of its descriptor.

Small rounds on a quick disk are synced in place, which is cheaper than waking a thread; all others go to one thread of
this object, so that a slow disk never stops the reactor.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from nebula.model import StorageFailed

Done = Callable[[BaseException | None], None]

INLINE_FILES = 2
"""More files are more fdatasyncs one after the other, and the reactor would wait for all of them."""

QUICK_S = 0.003
"""Rounds are synced in place while the recent average is below this; a reactor turn under load takes as long."""

AVERAGE_WEIGHT = 0.125
"""Weight of the newest small round in the moving average: one hiccup of 20 ms is noticed, and forgotten in ten rounds."""


class Syncable(Protocol):
    """What of `nebula.storage.disk.File` is needed here."""

    def fileno(self) -> int: ...
    def sync(self) -> None: ...


class _Round:
    """Requests that are made durable together."""

    __slots__ = ("done", "error", "files", "nbytes", "seconds")

    def __init__(self) -> None:
        self.files: dict[Syncable, int] = {}
        """Each file once, with our duplicate of its descriptor, or -1 for one that has none."""
        self.nbytes = 0
        self.done: list[Done] = []
        self.error: BaseException | None = None
        self.seconds = 0.0

    @property
    def small(self) -> bool:
        return len(self.files) <= INLINE_FILES

    def add(self, files: Iterable[Syncable], nbytes: int, done: Done) -> None:
        for file in files:
            if file not in self.files:
                fd = file.fileno()
                self.files[file] = os.dup(fd) if fd >= 0 else -1
        self.nbytes += nbytes
        self.done.append(done)

    def run(self, sync: Callable[[int], object]) -> None:
        """Sync every file, up to the first that fails. On whichever thread; never raises."""
        began = time.perf_counter()
        try:
            for file, fd in self.files.items():
                if fd >= 0:
                    sync(fd)
                else:
                    file.sync()
        except BaseException as error:  # told to every request; the thread must live on
            self.error = error
        self.seconds = time.perf_counter() - began
        self.close()

    def close(self) -> None:
        for file, fd in self.files.items():
            if fd >= 0:
                os.close(fd)
                self.files[file] = -1


@implementer(IReadDescriptor)
class GroupCommit:
    """Makes files durable in rounds. Its thread is started by the first round that needs it and ended by `stop`."""

    log = Logger()

    def __init__(
        self, reactor: Any, sync: Callable[[int], object] = os.fdatasync, inline_bytes: int = 128 * 1024
    ) -> None:
        self._reactor = reactor
        self._sync = sync
        self._inline_bytes = inline_bytes
        self._average_s = 0.0
        self._waiting = _Round()
        self._busy = False
        self._failed: BaseException | None = None
        self._stopped = False
        self._work: SimpleQueue[_Round | None] = SimpleQueue()
        self._finished: SimpleQueue[_Round] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._event = -1
        self.rounds = 0
        """Rounds synced so far, for metrics and tests."""

    @property
    def failed(self) -> BaseException | None:
        """The error that ended this log directory, if one did."""
        return self._failed

    def request(self, files: Iterable[Syncable], nbytes: int, done: Done) -> None:
        """Call `done(None)` once all that `files` hold now is on disk, or `done(error)` if that will never be known.

        `nbytes` is about what was written to them. No files means: when all requested before this is on disk.
        """
        if self._failed is not None or self._stopped:
            self._call(done, self._refusal())
            return
        try:
            self._waiting.add(files, nbytes, done)
        except OSError as error:  # no descriptor to sync by: whether the bytes are on disk is not knowable any more
            self._failed = error
            self._call(done, error)
            return
        if not self._busy:
            self._run_rounds()

    def stop(self) -> None:
        """Sync what was requested, answer it, and end the thread. Blocks for as long as the disk takes."""
        self._stopped = True
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None
            self._reactor.removeReader(self)
            self._collect(go_on=False)
            os.close(self._event)
            self._event = -1
        if self._waiting.done and not self._busy:
            last, self._waiting = self._waiting, _Round()
            self._run_inline(last)

    def _refusal(self) -> BaseException:
        return self._failed or StorageFailed("the node is stopping: nothing is synced any more")

    def _run_rounds(self) -> None:
        """Start the waiting round, and go on while rounds end in place. A loop, for `done` may request again."""
        while self._waiting.done and not self._busy:
            current, self._waiting = self._waiting, _Round()
            self._busy = True
            if self._failed is not None or self._is_inline(current):
                self._run_inline(current)
            else:
                self._start_thread()
                self._work.put(current)

    def _is_inline(self, current: _Round) -> bool:
        if not current.files:
            return True
        return current.small and current.nbytes < self._inline_bytes and self._average_s < QUICK_S

    def _run_inline(self, current: _Round) -> None:
        self._busy = True
        if self._failed is None:
            current.run(self._sync)
        self._finish(current)
        self._busy = False

    def _finish(self, current: _Round) -> None:
        """Answer every request of a round. `_busy` is still set, so that what they request is the next round."""
        current.close()
        self.rounds += 1
        if self._failed is None and current.error is not None:
            self._failed = current.error
        if current.files and current.small and current.nbytes < self._inline_bytes:
            self._average_s += (current.seconds - self._average_s) * AVERAGE_WEIGHT
        for done in current.done:
            self._call(done, self._failed)

    def _call(self, done: Done, error: BaseException | None) -> None:
        try:
            done(error)
        except Exception:  # one caller's bug must not lose the others' answers
            self.log.failure("a call after a sync round failed")

    # The commit thread and its way back: a queue, and an eventfd the reactor reads (44-64 us; deferToThread 67-77 us).

    def _start_thread(self) -> None:
        if self._thread is not None:
            return
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._reactor.addReader(self)
        self._thread = threading.Thread(target=self._work_off, name="nebula-commit", daemon=True)
        self._thread.start()

    def _work_off(self) -> None:
        while (current := self._work.get()) is not None:
            current.run(self._sync)
            self._finished.put(current)
            os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        """The eventfd; -1 while there is no thread."""
        return self._event

    def logPrefix(self) -> str:
        """Twisted's name for this reader."""
        return "commit"

    def doRead(self) -> None:
        """The thread has finished a round."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return
        self._collect(go_on=True)

    def connectionLost(self, reason: Any) -> None:
        """The reactor drops its readers at its end; `stop` does the rest."""

    def _collect(self, go_on: bool) -> None:
        while not self._finished.empty():
            self._finish(self._finished.get())
            self._busy = False
        if go_on:
            self._run_rounds()
