"""Whole simulated clusters: 300 seeds hold every invariant; each kept mutant is caught by its seed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nebula.model import InvariantBroken
from nebula.testing.simulation import SimulationFailed, World
from tests.simulation.mutants import MUTANTS

SEEDS = 300
CAUGHT_BY = {"acknowledge before persisted": 0, "dropped fsync": 0, "no directory fsync": 0, "marker left out": 12}
"""The other two mutants (vote before the ballot, counting older terms) are caught by tests/raft/test_paper.py."""


class SeedTests(SynchronousTestCase):
    """Safety, and progress after healing."""

    def test_seeds_hold(self) -> None:
        """If this failed, some order of delays, losses, cuts and crashes loses, doubles or reorders a record."""
        acknowledged = 0
        for seed in range(SEEDS):
            world = World(seed, seconds=8.0)
            world.run()
            acknowledged += len(world.acked)
        self.assertGreater(acknowledged, SEEDS * 20, "the clusters hardly acknowledged anything")

    def test_same_seed_same_trace(self) -> None:
        """If this failed, a failing seed could not be replayed."""
        self.assertEqual(World(7, seconds=8.0).run(), World(7, seconds=8.0).run())


class MutantTests(SynchronousTestCase):
    """The simulator sees what it is there to see."""

    def test_each_mutant_is_caught(self) -> None:
        """If this failed, a rule that must not be broken could be, and no seed would notice."""
        for name, seed in CAUGHT_BY.items():
            with MUTANTS[name](), self.assertRaises((SimulationFailed, InvariantBroken)):
                World(seed, seconds=8.0, mutant=name).run()
            World(seed, seconds=8.0).run()
