"""Whole simulated clusters: 300 seeds hold every invariant; each kept mutant is caught by its seed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nebula.model import InvariantBroken
from nebula.testing.simulation import SimulationFailed, World
from tests.simulation.mutants import MUTANTS

SEEDS = 300
TURMOIL_SEEDS = 100
REGRESSIONS = (501, 1112)
"""Seeds of turmoil that found bugs. Both: a follower restarted in an idle term never learned the commit."""
CAUGHT_BY = {"acknowledge before persisted": 0, "dropped fsync": 0, "no directory fsync": 0, "marker left out": 12}
CAUGHT_IN_TURMOIL_BY = {"vote before ballot": 238, "commit older terms": 185}
"""They show only where elections are contested and nodes die in between."""


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

    def test_turmoil_holds(self) -> None:
        """If this failed, contested elections with deaths in their worst moments give two leaders or lose a commit."""
        for seed in (*range(TURMOIL_SEEDS), *REGRESSIONS):
            World(seed, seconds=4.0, turmoil=True).run()

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

    def test_each_mutant_of_elections_is_caught(self) -> None:
        """If this failed, as above."""
        self.assertEqual({*CAUGHT_BY, *CAUGHT_IN_TURMOIL_BY}, set(MUTANTS))
        for name, seed in CAUGHT_IN_TURMOIL_BY.items():
            with MUTANTS[name](), self.assertRaises((SimulationFailed, InvariantBroken)):
                World(seed, seconds=4.0, mutant=name, turmoil=True).run()
            World(seed, seconds=4.0, turmoil=True).run()
