"""Waiting a bounded time for the cluster to settle."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nebula.broker.settling import MAX_WAITS, Settling


class SettlingTests(SynchronousTestCase):
    """A clock, no network."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.settling = Settling(self.clock)
        self.true = False

    def test_fires_on_the_change_that_makes_it_true(self) -> None:
        """Broken: an answer waits its whole time although the leader is known."""
        done = self.settling.wait(lambda: self.true, 5)
        self.settling.changed()
        self.clock.advance(0)
        self.assertNoResult(done)
        self.true = True
        self.settling.changed()
        self.clock.advance(0)
        self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fires_when_time_is_over(self) -> None:
        """Broken: a client that asks about a group without leader never gets an answer."""
        done = self.settling.wait(lambda: False, 5)
        self.clock.advance(4.9)
        self.assertNoResult(done)
        self.clock.advance(0.2)
        self.successResultOf(done)

    def test_too_many_are_not_kept(self) -> None:
        """Broken: clients that ask again and again make every leader change slower without bound."""
        for _ in range(MAX_WAITS):
            self.settling.wait(lambda: False, 5)
        self.successResultOf(self.settling.wait(lambda: False, 5))
