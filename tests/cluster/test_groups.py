"""The state machine of a consumer group: every transition and refusal, with time as a number."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nebula.cluster.groups import Committed, Group, GroupError, GroupSettings, Join, Joined, Synced
from nebula.cluster.groups import records as formats
from nebula.model import DecodeError
from nebula.wire import errors


class Story(SynchronousTestCase):
    """A group, the log it writes to, and what its members were answered."""

    def setUp(self) -> None:
        self.now = 100.0
        self.stored: list[bytes] = []
        self.waiting: list[Any] = []
        self.at_once = True
        self.count = 0
        self.group = self.make(0.0)

    def make(self, delay: float, **limits: int) -> Group:
        return Group("g", GroupSettings(initial_delay_s=delay, **limits), self.persist, self.new_id)

    def persist(self, value: bytes, then: Any) -> None:
        self.stored.append(value)
        if self.at_once:
            then(0)
        else:
            self.waiting.append(then)

    def new_id(self) -> str:
        self.count += 1
        return str(self.count)

    def join(self, member_id: str = "", instance: str | None = None, **more: Any) -> list[Joined]:
        answers: list[Joined] = []
        ask = Join(
            member_id, instance, "c", "/h", more.get("session", 10_000), more.get("rebalance", 60_000),
            more.get("kind", "consumer"), tuple((name, b"m") for name in more.get("protocols", ["range"])),
            more.get("require_id", False),
        )  # fmt: skip
        self.group.join(ask, self.now, answers.append)
        return answers

    def sync(self, joined: Joined, assignments: dict[str, bytes] | None = None, **more: Any) -> list[Synced]:
        answers: list[Synced] = []
        self.group.sync(
            joined.member_id, more.get("instance"), more.get("generation", joined.generation),
            more.get("protocol", (None, None)), assignments or {}, self.now, answers.append,
        )  # fmt: skip
        return answers

    def beat(self, joined: Joined, generation: int | None = None) -> int:
        return self.group.heartbeat(joined.member_id, None, generation or joined.generation, self.now)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.group.tick(self.now)

    def stable(self, number: int) -> list[Joined]:
        """A stable group of so many members, the first its leader."""
        (first,) = self.join()
        self.sync(first, {first.member_id: b"all"})
        members = [first]
        for _ in range(number - 1):
            answers = [self.join()] + [self.join(member.member_id) for member in members]
            members = [*(a[0] for a in answers[1:]), answers[0][0]]
            everything = {m.member_id: m.member_id.encode() for m in members}
            for member in reversed(members):
                self.sync(member, everything if member.member_id == member.leader else None)
        self.assertEqual(self.group.state, "Stable")
        return members


class LifeTests(Story):
    """From the first join to the last leave."""

    def test_one_member(self) -> None:
        """Broken: a single consumer never gets its partitions."""
        (joined,) = self.join()
        self.assertEqual((joined.error, joined.generation, joined.protocol), (0, 1, "range"))
        self.assertEqual((joined.leader, joined.members), (joined.member_id, ((joined.member_id, None, b"m"),)))
        self.assertEqual(self.sync(joined, {joined.member_id: b"mine"}), [Synced(0, "consumer", "range", b"mine")])
        self.assertEqual((self.group.state, self.beat(joined)), ("Stable", 0))

    def test_the_second_waits_for_the_first(self) -> None:
        """Broken: two members read the same partitions at once."""
        (first,) = self.stable(1)
        second = self.join()
        self.assertEqual((second, self.beat(first)), ([], errors.REBALANCE_IN_PROGRESS))
        (again,) = self.join(first.member_id)
        self.assertEqual((again.generation, second[0].generation), (2, 2))
        self.assertEqual((len(again.members), second[0].members), (2, ()))
        early = self.sync(second[0])
        self.assertEqual(early, [])
        self.sync(again, {second[0].member_id: b"half"})
        self.assertEqual(early[0].assignment, b"half")

    def test_an_assignment_is_told_only_when_committed(self) -> None:
        """Broken: a coordinator dies, and the next one gives the same partitions to somebody else."""
        (joined,) = self.join()
        self.at_once = False
        answer = self.sync(joined, {joined.member_id: b"mine"})
        self.assertEqual((answer, self.group.state), ([], "CompletingRebalance"))
        self.waiting.pop()(0)
        self.assertEqual(answer[0].assignment, b"mine")

    def test_an_assignment_that_cannot_be_committed(self) -> None:
        """Broken: members wait for ever, or believe an assignment that is in no log."""
        (joined,) = self.join()
        self.at_once = False
        answer = self.sync(joined, {joined.member_id: b"mine"})
        self.waiting.pop()(errors.NOT_COORDINATOR)
        self.assertEqual(answer, [Synced(errors.NOT_COORDINATOR)])
        self.assertEqual(self.group.state, "PreparingRebalance")

    def test_leaving(self) -> None:
        """Broken: partitions of a member that left stay unread until its session ends."""
        first, second = self.stable(2)
        self.assertEqual(self.group.leave(second.member_id, None, self.now), 0)
        self.assertEqual(self.beat(first), errors.REBALANCE_IN_PROGRESS)
        (again,) = self.join(first.member_id)
        self.assertEqual(len(again.members), 1)
        self.assertEqual(self.group.leave(again.member_id, None, self.now), 0)
        self.assertEqual((self.group.state, self.group.protocol), ("Empty", None))
        self.assertEqual(self.group.leave("nobody", None, self.now), errors.UNKNOWN_MEMBER_ID)

    def test_silence_and_its_cause(self) -> None:
        """Broken: a dead member keeps its partitions, or nobody can say why there was a rebalance."""
        first, second = self.stable(2)
        self.later(6)
        self.beat(first)
        self.later(6)
        self.assertNotIn(second.member_id, self.group.members)
        self.assertEqual(self.group.history[-1].cause, f"{second.member_id} silent for 12.0 s")

    def test_who_does_not_join_again_is_out(self) -> None:
        """Broken: one hanging member stops the whole group for good."""
        first, second = self.stable(2)
        third = self.join()
        self.join(first.member_id)
        for _ in range(13):
            self.later(5)
            self.beat(second)
        self.assertEqual(third[0].error, 0)
        self.assertEqual(set(self.group.members), {first.member_id, third[0].member_id})

    def test_a_leader_that_assigns_nothing(self) -> None:
        """Broken: members wait in SyncGroup for ever."""
        members = self.stable(2)
        waits = [self.join(member.member_id) for member in sorted(members, key=lambda m: m.member_id != m.leader)]
        self.assertEqual(self.group.state, "CompletingRebalance")
        (follower,) = [joined for (joined,) in waits if joined.member_id != joined.leader]
        answer = self.sync(follower)
        self.later(61)
        self.assertEqual(answer, [Synced(errors.REBALANCE_IN_PROGRESS)])
        self.assertNotIn(follower.leader, self.group.members)

    def test_the_first_generation_waits_for_more(self) -> None:
        """Broken: a hundred consumers started together cost a hundred rebalances."""
        self.group = self.make(3.0)
        first = self.join()
        self.later(2)
        second = self.join()
        self.later(2)
        self.assertEqual((first, second), ([], []))
        self.later(1.1)
        self.assertEqual((first[0].generation, second[0].generation), (1, 1))

    def test_the_favourite_of_most(self) -> None:
        """Broken: members are told to use an assignor that one of them does not have."""
        (first,) = self.join(protocols=["a", "b"])
        second = self.join(protocols=["b", "c"])
        self.join(first.member_id, protocols=["a", "b"])
        self.assertEqual(second[0].protocol, "b")
        third = self.join(protocols=["c"])
        self.assertEqual(third[0].error, errors.INCONSISTENT_GROUP_PROTOCOL)
        self.assertEqual(self.join(kind="connect", protocols=["b"])[0].error, errors.INCONSISTENT_GROUP_PROTOCOL)
        self.assertEqual(self.join(protocols=[])[0].error, errors.INCONSISTENT_GROUP_PROTOCOL)

    def test_joining_again_unchanged(self) -> None:
        """Broken: a lost answer costs a rebalance of everybody."""
        _first, second = self.stable(2)
        (answer,) = self.join(second.member_id)
        self.assertEqual((answer.error, answer.generation), (0, second.generation))
        self.assertEqual(self.join(self.group.leader or ""), [])  # a leader may have seen new partitions
        self.assertEqual(self.group.state, "PreparingRebalance")

    def test_a_moved_coordinator(self) -> None:
        """Broken: members wait at a coordinator that is none any more."""
        (first,) = self.stable(1)
        waiting = self.join()
        self.group.abandon(errors.NOT_COORDINATOR)
        self.assertEqual(waiting[0].error, errors.NOT_COORDINATOR)
        body = formats.read_group(self.stored[-1])
        again = self.make(0.0)
        again.restore(body, self.now)
        self.assertEqual((again.state, again.generation, list(again.members)), ("Stable", 1, [first.member_id]))
        self.assertEqual(again.heartbeat(first.member_id, None, 1, self.now), 0)
        again.tick(self.now + 11)
        self.assertEqual(again.state, "Empty")


class RefusalTests(Story):
    """What a client may get wrong."""

    def test_fencing(self) -> None:
        """Broken: a member that slept commits or reads for a generation that has ended."""
        (first,) = self.stable(1)
        self.assertEqual(self.beat(first, 7), errors.ILLEGAL_GENERATION)
        self.assertEqual(self.sync(first, generation=7), [Synced(errors.ILLEGAL_GENERATION)])
        self.assertEqual(self.sync(Joined(0, "x", 1)), [Synced(errors.UNKNOWN_MEMBER_ID)])
        self.assertEqual(self.join("x")[0].error, errors.UNKNOWN_MEMBER_ID)
        self.assertEqual(self.sync(first, protocol=("consumer", "other"))[0].error, errors.INCONSISTENT_GROUP_PROTOCOL)
        self.assertEqual(self.sync(first, protocol=("connect", None))[0].error, errors.INCONSISTENT_GROUP_PROTOCOL)
        for member, generation, code in ((first.member_id, 7, 22), ("x", 1, 25), ("", -1, 25)):
            with self.assertRaises(GroupError) as caught:
                self.group.check_commit(member, None, generation, self.now)
            self.assertEqual(caught.exception.kafka_code, code)
        self.group.check_commit(first.member_id, None, 1, self.now)

    def test_no_commit_while_the_assignment_is_made(self) -> None:
        """Broken: an offset is committed by a member that does not own the partition any more."""
        (joined,) = self.join()
        with self.assertRaises(GroupError) as caught:
            self.group.check_commit(joined.member_id, None, 1, self.now)
        self.assertEqual(caught.exception.kafka_code, errors.REBALANCE_IN_PROGRESS)

    def test_a_simple_consumer(self) -> None:
        """Broken: a client that assigns for itself cannot keep offsets (gotcha 30)."""
        self.group.check_commit("", None, -1, self.now)

    def test_sessions_and_sizes(self) -> None:
        """Broken: one client makes a group that lives for ever, or of a million members."""
        for session in (5_999, 1_800_001):
            self.assertEqual(self.join(session=session)[0].error, errors.INVALID_SESSION_TIMEOUT)
        self.group = self.make(0.0, max_size=1)
        self.join()
        self.assertEqual(self.join()[0].error, errors.GROUP_MAX_SIZE_REACHED)

    def test_an_id_first(self) -> None:
        """Broken: a client that times out in its first join leaves a member behind each time (KIP-394)."""
        (told,) = self.join(require_id=True)
        self.assertEqual((told.error, self.group.members), (errors.MEMBER_ID_REQUIRED, {}))
        (joined,) = self.join(told.member_id, require_id=True)
        self.assertEqual((joined.error, joined.member_id), (0, told.member_id))
        (other,) = self.join(require_id=True)
        self.later(11)
        self.assertEqual(self.join(other.member_id)[0].error, errors.UNKNOWN_MEMBER_ID)

    def test_garbage_records(self) -> None:
        """Broken: one strange record keeps all groups of a partition from loading."""
        for data in (b"", b"\0", b"\0\1\0\5abc", b"\0\2\7\xff"):
            with self.assertRaises(DecodeError):
                formats.read_key(data)
        self.assertIsNone(formats.read_key(b"\0\x09whatever"))


class StaticTests(Story):
    """Members that keep their place over a restart (KIP-345)."""

    def test_back_without_a_rebalance(self) -> None:
        """Broken: a rolling restart of consumers costs a rebalance each."""
        (first,) = self.join(instance="i1")
        self.sync(first, {first.member_id: b"mine"}, instance="i1")
        (back,) = self.join(instance="i1")
        self.assertEqual((back.error, back.generation, self.group.state), (0, 1, "Stable"))
        self.assertNotEqual(back.member_id, first.member_id)
        self.assertEqual((back.leader, back.skip_assignment), (back.member_id, True))
        self.assertEqual(self.sync(back, instance="i1")[0].assignment, b"mine")
        self.assertEqual(self.group.heartbeat(first.member_id, "i1", 1, self.now), errors.FENCED_INSTANCE_ID)
        self.assertEqual(self.sync(first, instance="i1"), [Synced(errors.FENCED_INSTANCE_ID)])

    def test_left_by_instance(self) -> None:
        """Broken: a tool cannot remove a static member that will not come back."""
        (first,) = self.join(instance="i1")
        self.sync(first, {}, instance="i1")
        self.assertEqual(self.group.leave("", "i1", self.now), 0)
        self.assertEqual(self.group.state, "Empty")
        self.assertEqual(self.group.leave("", "i1", self.now), errors.UNKNOWN_MEMBER_ID)


class FormatTests(SynchronousTestCase):
    """What the log holds."""

    @given(st.text(max_size=20), st.text(max_size=20), st.integers(0, 2**31 - 1))
    def test_keys(self, group: str, topic: str, partition: int) -> None:
        """Broken: offsets are lost at the next coordinator."""
        self.assertEqual(formats.read_key(formats.offset_key(group, topic, partition)), (group, topic, partition))
        self.assertEqual(formats.read_key(formats.group_key(group)), (group,))

    def test_values(self) -> None:
        """Broken: as above."""
        committed = Committed(7, 3, "m\N{GREEK SMALL LETTER MU}", 1234)
        self.assertEqual(formats.read_offset(formats.offset_value(committed)), committed)

    def test_partitions_as_java_says(self) -> None:
        """Broken: tools that compute a group's partition look in the wrong one."""
        self.assertEqual([formats.partition_of(g, 50) for g in ("", "a", "abc", "my-group")], [0, 47, 4, 12])


del Story
