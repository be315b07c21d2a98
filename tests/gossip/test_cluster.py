"""Members find each other, notice deaths and returns, and are not fooled by loss, pauses and partitions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nebula.gossip import GossipSettings
from tests.gossip.world import World, alive, all_alive, all_say, statuses


class Meeting(SynchronousTestCase):
    """Joining."""

    def test_three_meet(self) -> None:
        """Nodes that know one seed never learn of each other, or take long: the cluster is born late."""
        world = World()
        nodes = [world.start(f"n{i}", i, [1]) for i in (1, 2, 3)]
        self.assertLess(world.run_until(all_alive(nodes, 3), 2.0), 1.5)
        self.assertEqual(sorted(world.told["n1"]), [("n2", "alive"), ("n3", "alive")])

    def test_any_seed_will_do(self) -> None:
        """A newcomer whose first seeds are down cannot join."""
        world = World()
        nodes = world.cluster(3)
        nodes.append(world.start("n9", 9, [77, 78, 3]))
        world.run_until(all_alive(nodes, 4), 3.0)

    def test_newcomer_learns_of_all(self) -> None:
        """The full state of a large cluster does not get into bounded datagrams, or is cut short."""
        world = World()
        nodes = [world.start(f"n{i}", i, [1]) for i in range(1, 61)]
        world.run_until(all_alive(nodes, 60), 20.0)
        newcomer = world.start("late", 99, [7])
        world.run_until(all_alive([newcomer], 61), 1.5)

    def test_unspecified_host(self) -> None:
        """A node that listens on all interfaces is announced to others as 0.0.0.0, where they find themselves."""
        world = World()
        nodes = world.cluster(2)
        nodes.append(world.start("n3", 3, [1], host="0.0.0.0"))
        world.run(5.0)
        for node in nodes[:2]:
            self.assertEqual(node.members()["n3"].member.address, ("10.0.0.1", 3))
        self.assertEqual(alive(nodes[2]), {"n1", "n2", "n3"})
        self.assertLess(nodes[2].members()["n3"].number, world.now * 1000 + 10, "refutes its own address for ever")

    def test_joins_through_loss(self) -> None:
        """One lost datagram of the handshake, or of the news, is never made good."""
        for seed in range(5):
            world = World(seed, loss=0.3)
            nodes = [world.start(f"n{i}", i, [1]) for i in range(1, 6)]
            world.run_until(lambda nodes=nodes: all(len(n.members()) == 5 for n in nodes), 20.0)  # type: ignore[misc]

    def test_table_is_bounded(self) -> None:
        """A storm of new names grows the table without end."""
        world = World()
        first = world.start("n1", 1, settings=GossipSettings(max_members=10))
        for i in range(2, 30):
            world.start(f"n{i}", i, [1])
        world.run(10.0)
        self.assertEqual(len(first.members()), 11)


class Death(SynchronousTestCase):
    """Noticing that somebody is gone."""

    def test_death_is_noticed(self) -> None:
        """A crashed member stays alive for its peers, or falls only after long."""
        for size in (2, 3, 5, 12):
            world = World(size)
            nodes = world.cluster(size)
            world.kill(size)
            gone = f"n{size}"
            self.assertLess(world.run_until(all_say(nodes[:-1], gone, "dead"), 9.0), 6.0)
            self.assertEqual(world.told["n1"][-2:], [(gone, "suspect"), (gone, "dead")])
            self.assertEqual(len(alive(nodes[0])), size - 1, "somebody else was taken for dead, too")

    def test_quiet_cluster_stays_quiet(self) -> None:
        """Members are suspected although nothing is wrong."""
        world = World()
        world.cluster(7)
        before = {name: list(told) for name, told in world.told.items()}
        world.run(60.0)
        self.assertEqual(world.told, before)

    def test_loss_kills_nobody(self) -> None:
        """A tenth of all datagrams lost makes healthy members dead: refutation and indirect probes do not work."""
        for seed in range(4):
            world = World(seed, loss=0.1)
            world.cluster(5)
            world.run(60.0)
            dead = [event for told in world.told.values() for event in told if event[1] == "dead"]
            self.assertEqual(dead, [])

    def test_broken_path_is_probed_around(self) -> None:
        """Two members that cannot reach each other, and everybody else can, suspect each other."""
        world = World()
        world.cluster(4)
        world.cut = lambda source, target: {source[1], target[1]} == {3, 4}
        before = {name: list(told) for name, told in world.told.items()}
        world.run(30.0)
        self.assertEqual(world.told, before)

    def test_paused_process_blames_nobody(self) -> None:
        """After SIGSTOP or a long stall a node takes everybody for dead, and says so to all (a slow member, 53)."""
        world = World()
        nodes = world.cluster(4)
        world.frozen.add(("10.0.0.1", 4))
        world.run(20.0)
        self.assertEqual(statuses(nodes[0])["n4"], "dead")
        told = len(world.told["n4"])
        world.frozen.clear()
        world.run_until(all_alive(nodes, 4), 5.0)
        self.assertEqual([event for event in world.told["n4"][told:] if event[1] != "updated"], [])

    def test_short_pause_is_refuted(self) -> None:
        """A member suspected for a pause shorter than the suspicion is dead nevertheless."""
        world = World()
        nodes = world.cluster(5)
        world.frozen.add(("10.0.0.1", 5))
        world.run_until(all_say(nodes[:1], "n5", "suspect"), 5.0)
        world.frozen.clear()
        world.run(10.0)
        self.assertEqual([event for told in world.told.values() for event in told if event[1] == "dead"], [])
        self.assertTrue(all_alive(nodes, 5)())

    def test_partition_heals(self) -> None:
        """Two halves that took each other for dead never find together again."""
        world = World()
        nodes = world.cluster(6)
        world.cut = lambda source, target: (source[1] <= 3) != (target[1] <= 3)
        world.run(15.0)
        self.assertEqual(alive(nodes[0]), {"n1", "n2", "n3"})
        self.assertEqual(alive(nodes[5]), {"n4", "n5", "n6"})
        world.cut = lambda source, target: False
        world.run_until(all_alive(nodes, 6), 8.0)

    def test_the_dead_are_forgotten(self) -> None:
        """Dead entries go round for ever: one tells the other what it had forgotten."""
        world = World()
        nodes = world.cluster(4)
        world.kill(4)
        world.run(640.0)
        self.assertTrue(all("n4" not in n.members() for n in nodes[:3]))

    def test_clock_set_back(self) -> None:
        """A clock that jumps stops all probing until it has caught up, or expires everything at once."""
        world = World()
        nodes = world.cluster(3)
        for jump in (-500.0, 500.0):
            world.now += jump
            world.run(1.0)
            self.assertTrue(all_alive(nodes, 3)())
        world.kill(3)
        world.run_until(all_say(nodes[:1], "n3", "dead"), 8.0)


class Return(SynchronousTestCase):
    """The same name again, leaving, and what members say of themselves."""

    def test_restart_at_a_new_address(self) -> None:
        """A node restarted elsewhere is looked for at its old address."""
        world = World()
        nodes = world.cluster(3)
        world.kill(3)
        again = world.start("n3", 33, [1, 2], incarnation="other-disk")
        world.run_until(lambda: all(n.members()["n3"].member.port == 33 for n in nodes[:2]), 2.0)
        world.run(10.0)
        self.assertEqual(alive(nodes[0]), {"n1", "n2", "n3"})
        self.assertEqual(nodes[0].members()["n3"].member.incarnation_id, "other-disk")
        self.assertEqual(alive(again), {"n1", "n2", "n3"})
        self.assertIn(("n3", "updated"), world.told["n1"])

    def test_restart_at_the_old_address(self) -> None:
        """A quick restart makes the node dead for those who hold the old process's cookie."""
        world = World()
        nodes = world.cluster(3)
        world.kill(3)
        again = world.start("n3", 3, [1])
        world.run_until(all_alive([again], 3), 2.0)
        world.run(10.0)
        self.assertNotIn(("n3", "dead"), world.told["n1"])
        self.assertTrue(all_alive(nodes[:2], 3)())

    def test_return_from_the_dead(self) -> None:
        """Who was taken for dead stays so."""
        world = World()
        nodes = world.cluster(3)
        world.kill(3)
        world.run(10.0)
        world.start("n3", 34, [2])
        self.assertLess(world.run_until(all_say(nodes[:2], "n3", "alive"), 3.0), 2.0)

    def test_restart_with_a_clock_gone_back(self) -> None:
        """A node whose wall clock went back cannot return: its number is below what is believed."""
        world = World()
        nodes = world.cluster(3)
        world.kill(3)
        world.start("n3", 35, [1], generation=5)
        world.run_until(lambda: all(n.members()["n3"].member.port == 35 for n in nodes[:2]), 4.0)
        self.assertEqual(alive(nodes[1]), {"n1", "n2", "n3"})

    def test_leave(self) -> None:
        """An orderly stop is told like a crash, and later; or the node is dragged back."""
        world = World()
        nodes = world.cluster(5)
        world.leave(nodes[4])
        world.run_until(all_say(nodes[:4], "n5", "left"), 1.0)
        world.run(10.0)
        self.assertEqual(statuses(nodes[0])["n5"], "left")
        self.assertNotIn(("n5", "dead"), world.told["n1"])
        self.assertEqual(nodes[4].outgoing(), [])

    def test_return_after_leave(self) -> None:
        """A node that said good-bye cannot come back."""
        world = World()
        nodes = world.cluster(3)
        world.leave(nodes[2])
        world.kill(3)
        world.run(3.0)
        world.start("n3", 3, [1, 2])
        world.run_until(all_say(nodes[:2], "n3", "alive"), 2.0)

    def test_meta(self) -> None:
        """Hints about the controller do not arrive, or stay old."""
        world = World()
        nodes = world.cluster(5)
        nodes[1].update_meta({"controller": "n2", "term": 7})
        world.run_until(lambda: all(n.members()["n2"].member.meta.get("term") == 7 for n in nodes), 3.0)
        self.assertIn(("n2", "updated"), world.told["n5"])
        self.assertRaises(ValueError, nodes[0].update_meta, {"x": "y" * 300})
        self.assertRaises(ValueError, nodes[0].update_meta, {"x": ["nested"]})


class Clusters(SynchronousTestCase):
    """Names of clusters keep their members apart."""

    def test_two_clusters_do_not_merge(self) -> None:
        """A seed of another cluster merges the two (scenario 55)."""
        world = World()
        ours = [world.start(f"a{i}", i, [1, 11], cluster="A") for i in (1, 2)]
        theirs = [world.start(f"b{i}", 10 + i, [1, 11], cluster="B") for i in (1, 2)]
        world.run(10.0)
        self.assertTrue(all(set(n.members()) == {"a1", "a2"} for n in ours))
        self.assertTrue(all(set(n.members()) == {"b1", "b2"} for n in theirs))

    def test_unborn_node_joins_no_two(self) -> None:
        """A node without a cluster, with seeds in two, carries the members of one into the other."""
        world = World()
        ours = [world.start(f"a{i}", i, [1], cluster="A") for i in (1, 2)]
        theirs = [world.start(f"b{i}", 10 + i, [11], cluster="B") for i in (1, 2)]
        empty = [world.start(f"e{i}", 20 + i, [1, 11, 21, 22], cluster="") for i in (1, 2)]
        world.run(10.0)
        for node in empty:
            node.set_cluster("A")
        world.run(20.0)
        self.assertTrue(all(not any(name.startswith("b") for name in n.members()) for n in ours))
        self.assertTrue(all(not any(name.startswith("a") for name in n.members()) for n in theirs))
        self.assertTrue(all(alive(n) == {"a1", "a2", "e1", "e2"} for n in (*ours, *empty)))

    def test_birth(self) -> None:
        """Unborn nodes do not meet, or lose each other when the cluster is named to one after the other."""
        world = World()
        nodes = [world.start(f"n{i}", i, [1, 2, 3], cluster="") for i in (1, 2, 3)]
        world.run_until(all_alive(nodes, 3), 2.0)
        for node in nodes:
            node.set_cluster("born")
            world.run(1.0)
        world.run_until(all_alive(nodes, 3), 2.0)
        self.assertEqual([e for told in world.told.values() for e in told if e[1] in ("suspect", "dead")], [])


class Determinism(SynchronousTestCase):
    """The same seed, the same history."""

    def test_same_seed_same_history(self) -> None:
        """Gossip draws randomness or time from elsewhere: a failing simulation cannot be repeated."""
        histories = []
        for _ in range(2):
            world = World(seed=5, loss=0.25)
            world.cluster(6)
            world.kill(6)
            world.run(10.0)
            histories.append(world.told)
        self.assertEqual(histories[0], histories[1])
