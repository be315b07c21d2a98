"""ClusterState: ids, topics and refusals, the same on every node."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nebula.cluster.commands import (
    AllocateProducerIds,
    Command,
    CreateTopic,
    DeleteTopic,
    RegisterNode,
    SetConfigs,
    decode,
    encode,
)
from nebula.cluster.state import ClusterState
from nebula.model import DecodeError


def register(name: str, incarnation: str = "i1") -> RegisterNode:
    return RegisterNode(name, incarnation, "127.0.0.1", 7001)


def create(name: str, topic_id: str = "", partitions: int = 2, **configs: str) -> CreateTopic:
    return CreateTopic(name, topic_id or name, ((0, ("n1",)),) * partitions, configs)


names = st.sampled_from(["a", "b", "a.b", "a_b", "..", "n1"])
commands = st.one_of(
    st.builds(register, names),
    st.builds(create, names, names, st.integers(0, 3)),
    st.builds(DeleteTopic, names),
    st.builds(AllocateProducerIds, names, st.integers(-1, 5)),
    st.builds(SetConfigs, names, st.dictionaries(st.sampled_from(["retention.ms", "no.such"]), st.text(max_size=3))),
)


class CommandTests(SynchronousTestCase):
    """The JSON form."""

    @given(commands)
    def test_round_trip(self, command: Command) -> None:
        """If this failed, a command would mean something else after it was read from the log."""
        self.assertEqual(decode(encode(command)), command)

    def test_garbage(self) -> None:
        """If this failed, a record that is no command would crash the controller with an error nobody names."""
        for bad in (b"", b"\xff", b"[]", b"{}", b'{"kind":"Nope"}', b'{"kind":"CreateTopic","name":1}', b"3"):
            with self.assertRaises(DecodeError):
                decode(bad)


class StateTests(SynchronousTestCase):
    """apply, and the snapshot."""

    def setUp(self) -> None:
        self.state = ClusterState()
        self.apply(register("n1"))

    def apply(self, command: Command) -> dict[str, object]:
        return self.state.apply(encode(command))

    @given(st.lists(commands, max_size=20), st.integers(0, 20))
    def test_same_log_same_state(self, log: list[Command], cut: int) -> None:
        """If this failed, two nodes (one from a snapshot) would disagree about topics after the same log."""
        whole, restored = ClusterState("c"), ClusterState("c")
        for at, command in enumerate(log):
            if at == cut:
                restored = ClusterState.decode(restored.encode())
            self.assertEqual(whole.apply(encode(command)), restored.apply(encode(command)))
        self.assertEqual(whole.encode(), restored.encode())

    def test_node_ids_are_permanent(self) -> None:
        """If this failed, a node with a new disk would change its broker id under the clients' feet."""
        self.assertEqual(self.apply(register("n2")), {"node_id": 2})
        self.assertEqual(self.apply(register("n1", "i2")), {"node_id": 1})
        self.assertEqual(self.state.nodes["n1"].incarnation, "i2")
        self.assertEqual(self.apply(register("n3")), {"node_id": 3})

    def test_groups_are_never_reused(self) -> None:
        """If this failed, a new topic could open the files of a deleted one."""
        self.assertEqual(self.apply(create("a"))["groups"], [1, 2])
        self.assertEqual(self.apply(DeleteTopic("a")), {"groups": [1, 2]})
        self.assertEqual(self.state.topics.by_id, {})
        self.assertEqual(self.apply(create("a"))["groups"], [3, 4])

    def test_create_is_refused(self) -> None:
        """If this failed, a race of two creators would make two topics of one name, or an unplaceable one."""
        self.apply(create("a.b"))
        before = self.state.encode()
        unknown = CreateTopic("c", "c", ((0, ("n9",)),))
        twice = CreateTopic("c", "c", ((0, ("n1", "n1")),))
        for command, kind in (
            (create("a.b"), "TopicExists"),
            (create("c", "a.b"), "TopicExists"),
            (create("a_b"), "InvalidTopic"),
            (create(".."), "InvalidTopic"),
            (create("c", **{"no.such": "1"}), "InvalidConfig"),
            (create("c", partitions=0), "InvalidPlacement"),
            (unknown, "InvalidPlacement"),
            (twice, "InvalidPlacement"),
        ):
            self.assertEqual(self.apply(command)["kind"], kind, command)
        self.assertEqual(self.state.encode(), before)

    def test_delete_frees_the_name_for_its_twin(self) -> None:
        """If this failed, a deleted a.b would forbid a_b for ever."""
        self.apply(create("a.b"))
        self.apply(DeleteTopic("a.b"))
        self.assertNotIn("error", self.apply(create("a_b")))
        self.assertEqual(self.apply(DeleteTopic("a.b"))["kind"], "UnknownTopic")

    def test_producer_ids(self) -> None:
        """If this failed, two producers would share an id, and records would be dropped as duplicates."""
        self.assertEqual(self.apply(AllocateProducerIds("n1", 10))["first"], 1)
        self.assertEqual(self.apply(AllocateProducerIds("n2", 5))["first"], 11)
        self.assertEqual(self.apply(AllocateProducerIds("n2", 0))["kind"], "InvalidCount")

    def test_set_configs(self) -> None:
        """If this failed, altered configs would be lost, or found by name and not by id."""
        self.apply(create("a"))
        self.assertEqual(self.apply(SetConfigs("a", {"retention.ms": "5"})), {})
        self.assertEqual(self.state.topics.by_id["a"].configs, {"retention.ms": "5"})
        self.assertEqual(self.apply(SetConfigs("a", {"retention.ms": "x"}))["kind"], "InvalidConfig")
        self.assertEqual(self.apply(SetConfigs("b", {}))["kind"], "UnknownTopic")

    def test_bad_snapshot(self) -> None:
        """If this failed, a damaged or newer snapshot would be taken for an empty cluster."""
        for bad in (b"", b"{}", b"[]", b'{"version":2}'):
            with self.assertRaises(DecodeError):
                ClusterState.decode(bad)
