"""Names, configs and placement."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nebula.cluster.configs import DEFINITIONS, InvalidConfig, effective, validate
from nebula.cluster.placement import place
from nebula.cluster.topics import InvalidTopic, validate_name


class NameTests(SynchronousTestCase):
    """validate_name."""

    def test_legal(self) -> None:
        """If this failed, a name that Kafka takes would be refused."""
        for name in ("a", "A.b_c-9", "...", "_", "a" * 249, "__consumer_offsets"):
            validate_name(name)

    def test_illegal(self) -> None:
        """If this failed, a name could leave the data directory or break it."""
        for name in ("", ".", "..", "a" * 250, "a/b", "a b", "ä", "a\n", "a\0"):
            with self.assertRaises(InvalidTopic):
                validate_name(name)


class ConfigTests(SynchronousTestCase):
    """validate and effective."""

    def test_defaults_are_valid(self) -> None:
        """If this failed, a topic described and created again with the same configs would be refused."""
        validate({name: definition.default for name, definition in DEFINITIONS.items()})

    def test_refused(self) -> None:
        """If this failed, a config would be taken that cannot be kept."""
        for name, text in (
            ("retention.ms", "-2"), ("retention.ms", "1.5"), ("retention.ms", ""), ("segment.bytes", "1"),
            ("segment.bytes", str(2**31)), ("cleanup.policy", "compact"), ("cleanup.policy", "delete,delete"),
            ("unclean.leader.election.enable", "true"), ("write.caching", "yes"), ("compression.type", "rar"),
            ("min.cleanable.dirty.ratio", "nan"), ("min.cleanable.dirty.ratio", "1.1"),
        ):  # fmt: skip
            with self.assertRaises(InvalidConfig) as caught:
                validate({name: text})
            self.assertIn(name, str(caught.exception))

    def test_unknown_name_says_the_nearest(self) -> None:
        """If this failed, a typing error would be answered without the way out."""
        with self.assertRaises(InvalidConfig) as caught:
            validate({"retention.mss": "1"})
        self.assertIn("did you mean retention.ms?", str(caught.exception))

    def test_null_is_refused(self) -> None:
        """If this failed, a null config value from the wire would crash the broker."""
        with self.assertRaises(InvalidConfig):
            validate({"retention.ms": None})

    def test_effective(self) -> None:
        """If this failed, a topic's own config would not win over the default."""
        self.assertEqual(effective({}, "retention.ms"), "604800000")
        self.assertEqual(effective({"retention.ms": "5"}, "retention.ms"), "5")


class PlacementTests(SynchronousTestCase):
    """place."""

    @given(st.integers(1, 7), st.integers(0, 40), st.data())
    def test_even(self, count: int, partitions: int, data: st.DataObject) -> None:
        """If this failed, one node would lead or hold more than its share of a new topic."""
        nodes = [f"n{i}" for i in range(count)]
        rf = data.draw(st.integers(1, count))
        placed = place(nodes, partitions, rf, {})
        leaders = Counter(dict.fromkeys(nodes, 0))
        held = Counter(dict.fromkeys(nodes, 0))
        for replicas in placed:
            self.assertEqual(len(set(replicas)), rf)
            leaders[replicas[0]] += 1
            held.update(replicas)
        self.assertLessEqual(max(leaders.values()) - min(leaders.values()), 1)
        self.assertLessEqual(max(held.values()) - min(held.values()), 2)

    def test_existing_leaders_count(self) -> None:
        """If this failed, many topics of one partition would all be led by the first node."""
        self.assertEqual(place(["a", "b", "c"], 1, 1, {"a": 1, "b": 1}), (("c",),))

    def test_followers_vary(self) -> None:
        """If this failed, the death of a node would move all its leaders to one other node."""
        placed = place(["a", "b", "c", "d"], 24, 3, {})
        self.assertGreater(len({r[1] for r in placed if r[0] == "a"}), 1)

    def test_impossible(self) -> None:
        """If this failed, a topic would get fewer replicas than it was promised."""
        with self.assertRaises(ValueError):
            place(["a"], 1, 2, {})
