"""The end-of-turn hook on our reactor and on any other, and the tuning of the process."""

from __future__ import annotations

import gc
import os
from typing import Any

from twisted.application.reactors import getReactorTypes
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nebula.broker.epoll import TurnReactor
from nebula.broker.reactor import GC_THRESHOLDS, at_turn_end, tune_process


class Pipe:
    """A readable descriptor that runs `act` when read."""

    def __init__(self, act: Any) -> None:
        self.near, self.far = os.pipe()
        self.act = act
        self.lost: list[Any] = []
        os.write(self.far, b"x")

    def fileno(self) -> int:
        return self.near

    def logPrefix(self) -> str:
        return "pipe"

    def doRead(self) -> Any:
        os.read(self.near, 1)
        return self.act()

    def connectionLost(self, reason: Any) -> None:
        self.lost.append(reason)

    def close(self) -> None:
        os.close(self.near)
        os.close(self.far)


class TurnReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = TurnReactor()
        self.addCleanup(self._close)
        self.order: list[str] = []

    def _close(self) -> None:
        # Pipes are closed already; epoll has dropped them by itself.
        self.reactor._selectables.clear()
        self.reactor._reads.clear()
        self.reactor.removeAll()
        for reader in list(self.reactor._internalReaders):
            reader.connectionLost(None)
        self.reactor._poller.close()

    def pipe(self, act: Any) -> Pipe:
        """A pipe with a byte to read."""
        pipe = Pipe(act)
        self.addCleanup(pipe.close)
        self.reactor.addReader(pipe)
        self.addCleanup(self.reactor.removeReader, pipe)
        return pipe

    def test_after_all_reads(self) -> None:
        """Broken: work is done per message instead of once per turn."""

        def read() -> None:
            self.order.append("read")
            at_turn_end(self.reactor, lambda: self.order.append("end"))

        for _ in range(3):
            self.pipe(read)
        self.reactor.doIteration(5)
        self.assertEqual(self.order, ["read"] * 3 + ["end"] * 3)

    def test_hook_of_timed_call_does_not_wait(self) -> None:
        """Broken: what a timer registers waits until the next byte arrives, maybe for seconds."""
        self.reactor.callLater(0, at_turn_end, self.reactor, lambda: self.order.append("end"))
        self.reactor.runUntilCurrent()
        self.reactor.doIteration(None)
        self.assertEqual(self.order, ["end"])

    def test_hook_registered_by_hook(self) -> None:
        """Broken: the answers that a turn's work made wait for another turn."""
        at_turn_end(self.reactor, lambda: at_turn_end(self.reactor, lambda: self.order.append("second")))
        self.reactor.doIteration(0)
        self.assertEqual(self.order, ["second"])

    def test_endless_hooks_do_not_starve_sockets(self) -> None:
        """Broken: a hook that registers itself again stops the node for good."""

        def again() -> None:
            self.order.append("hook")
            at_turn_end(self.reactor, again)

        again()
        self.reactor.doIteration(0)
        self.assertLess(len(self.order), 20)

    def test_raising_hook_is_logged(self) -> None:
        """Broken: one partition's bug swallows the turn of all others."""
        at_turn_end(self.reactor, lambda: 1 // 0)
        at_turn_end(self.reactor, lambda: self.order.append("end"))
        self.reactor.doIteration(0)
        self.assertEqual(self.order, ["end"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_raising_read_disconnects(self) -> None:
        """Broken: a bug in one protocol ends the reactor, or its connection stays half alive."""
        pipe = self.pipe(lambda: 1 // 0)
        self.reactor.doIteration(5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((len(pipe.lost), pipe in self.reactor.getReaders()), (1, False))


class AnyReactorTests(SynchronousTestCase):
    def test_fallback(self) -> None:
        """Broken: Nebula runs on its own reactor only."""
        clock, calls = Clock(), []
        at_turn_end(clock, lambda: calls.append(1))
        self.assertEqual(calls, [])
        clock.advance(0)
        self.assertEqual(calls, [1])

    def test_plugin(self) -> None:
        """Broken: `twistd --reactor nebula` knows no such reactor."""
        found = [kind for kind in getReactorTypes() if kind.shortName == "nebula"]
        self.assertEqual([kind.moduleName for kind in found], ["nebula.broker.reactor"])

    def test_tune_process(self) -> None:
        """Broken: full collections stop a broker of many partitions for milliseconds."""
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.assertIsInstance(tune_process(), bool)
        self.assertEqual(gc.get_threshold(), GC_THRESHOLDS)
