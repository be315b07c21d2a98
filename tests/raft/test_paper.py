"""Paper tests: each quotes the sentence it checks."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from nebula.model import START, NotLeader, Position, Voter
from nebula.raft import Ballot, RaftNode, RaftSettings
from nebula.raft import messages as m
from nebula.raft import node as raft_node
from nebula.records import control
from nebula.records.entries import Run
from nebula.records.record import build_batch
from nebula.records.start import StartRecord
from nebula.storage import NebulaLog
from nebula.testing.disk import SimulatedDisk

N1, N2, N3 = (Voter(name, name) for name in ("n1", "n2", "n3"))


def node(me: Voter = N1, voters: tuple[Voter, ...] = (N1, N2, N3), term: int = 0) -> RaftNode:
    """A fresh member over a fresh log."""
    disk = SimulatedDisk()
    NebulaLog.create(disk, "/d/p", StartRecord(START, (), voters, (), b"", b""))
    log = NebulaLog.open(disk, "/d/p")
    return RaftNode(me, 1, log, Ballot(term, None), random.Random(1), 0.0, RaftSettings())


def drain(raft: RaftNode, persist: bool = True) -> list[tuple[Voter, m.Message]]:
    """Carry out what it asks for; its messages."""
    said: list[tuple[Voter, m.Message]] = []
    for _ in range(4):
        ready = raft.ready()
        said += ready.messages
        if ready.truncate is not None:
            raft.tail.log.truncate(ready.truncate)  # type: ignore[attr-defined]
        if ready.entries:
            raft.tail.log.append(ready.entries)  # type: ignore[attr-defined]
        if persist and ready.ballot is not None:
            raft.ballot_persisted(ready.ballot)
        if persist and ready.entries:
            raft.persisted(ready.entries[-1].end)
    return said


def a_leader() -> RaftNode:
    """n1 leads term 1; its marker is on its own disk only."""
    raft = node()
    raft.tick(0.1)
    raft.campaign()
    raft.tick(0.2)
    drain(raft)
    raft.step(N2, m.PreVoteReply(1, True))
    drain(raft)
    raft.step(N2, m.VoteReply(1, True))
    drain(raft)
    assert raft.role == "leader"
    return raft


def propose(raft: RaftNode) -> Position:
    return raft.propose(build_batch([(None, b"v", (), 0)]), 1)


class ElectionTests(SynchronousTestCase):
    """§5.2, §5.4.1 and the dissertation's chapter 9."""

    def test_one_vote_per_term(self) -> None:
        """
        "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis." (§5.2)

        If this failed, two leaders could be elected in one term.
        """
        raft = node()
        raft.step(N2, m.Vote(1, START))
        raft.step(N3, m.Vote(1, START))
        replies = {to: message.granted for to, message in drain(raft) if isinstance(message, m.VoteReply)}
        self.assertEqual(replies, {N2: True, N3: False})

    def test_a_vote_leaves_only_after_the_ballot_is_on_disk(self) -> None:
        """
        "Updated on stable storage before responding to RPCs." (figure 2)

        If this failed, a voter that crashes could vote twice in one term.
        """
        raft = node()
        raft.step(N2, m.Vote(1, START))
        ready = raft.ready()
        self.assertEqual(ready.messages, [])
        assert ready.ballot is not None
        raft.ballot_persisted(ready.ballot)
        self.assertEqual(raft.ready().messages, [(N2, m.VoteReply(1, True))])

    def test_a_stale_log_gets_no_vote(self) -> None:
        """
        "The voter denies its vote if its own log is more up-to-date than that of the candidate." (§5.4.1)

        If this failed, a leader without acknowledged records could be elected.
        """
        leader = a_leader()
        propose(leader)
        drain(leader)
        leader.step(N3, m.Vote(5, START))
        self.assertIn((N3, m.VoteReply(5, False)), drain(leader))

    def test_pre_vote_is_refused_while_the_leader_is_heard(self) -> None:
        """
        If this failed, a node that comes back from a partition would depose a healthy leader (dissertation §9.6).
        """
        raft = node()
        raft.tick(5.0)
        raft.step(N2, m.Heartbeat(1, START, 0))
        drain(raft)
        raft.step(N3, m.PreVote(2, START))
        self.assertIn((N3, m.PreVoteReply(1, False)), drain(raft))
        raft.suspect_leader()
        raft.step(N3, m.PreVote(2, START))
        self.assertIn((N3, m.PreVoteReply(2, True)), drain(raft))

    def test_a_leader_that_hears_nobody_steps_down(self) -> None:
        """If this failed, an isolated leader would keep its clients waiting for ever (dissertation §6.2)."""
        leader = a_leader()
        for step in range(30):
            leader.tick(0.2 + step / 10)
        self.assertEqual(leader.role, "follower")
        self.assertRaises(NotLeader, propose, leader)


class CommitTests(SynchronousTestCase):
    """§5.3, §5.4.2 and durability."""

    def test_a_majority_on_disk_commits(self) -> None:
        """
        "A log entry is committed once the leader that created the entry has replicated it on a majority of the
        servers." (§5.3)

        If this failed, nothing would be acknowledged, or too early.
        """
        leader = a_leader()
        end = propose(leader)
        drain(leader)
        self.assertEqual(leader.commit, START)
        leader.step(N3, m.AppendReply(1, end, 0))
        self.assertEqual(leader.commit, end)

    def test_a_restarted_follower_learns_the_commit_from_heartbeats(self) -> None:
        """
        "If two entries in different logs have the same index and term, then the logs are identical in all preceding
        entries." (§5.3)

        If this failed, a follower restarted while nothing is published would not know what is committed.
        """
        follower = node()
        leader = a_leader()
        end = propose(leader)
        drain(leader)
        run = leader.tail.run(START, 1 << 20)
        follower.step(N2, m.Append(1, START, run, START, 0))
        drain(follower)
        again = RaftNode(N1, 1, follower.tail.log, follower.ballot, random.Random(1), 0.0, RaftSettings())
        self.assertEqual(again.commit, START)
        again.step(N2, m.Heartbeat(1, end, 0))
        self.assertEqual(again.commit, end)
        self.assertEqual(again.end(), end)

    def test_steady_load_is_not_taken_for_an_overload(self) -> None:
        """If this failed, a producer that always has a batch in flight would be refused after 64 MB in all."""
        self.patch(raft_node, "MAX_UNCOMMITTED", 2000)
        leader = a_leader()
        before = propose(leader)
        for _ in range(100):
            end = propose(leader)
            drain(leader)
            leader.step(N3, m.AppendReply(1, before, 0))
            self.assertEqual(leader.commit, before)
            before = end
        with self.assertRaises(raft_node.Overloaded):
            for _ in range(100):
                propose(leader)

    def test_the_leader_counts_itself_only_when_persisted(self) -> None:
        """If this failed, a power cut at leader and one follower could lose an acknowledged record (rule 1)."""
        leader = a_leader()
        end = propose(leader)
        drain(leader, persist=False)
        leader.step(N3, m.AppendReply(1, end, 0))
        self.assertLess(leader.commit, end)
        leader.persisted(end)
        self.assertEqual(leader.commit, end)

    def test_only_the_own_term_is_committed_by_counting(self) -> None:
        """
        "Only log entries from the leader's current term are committed by counting replicas." (§5.4.2)

        If this failed, figure 8 of the paper would lose an acknowledged record.
        """
        leader = a_leader()
        old = propose(leader)
        drain(leader)
        leader.step(N2, m.Heartbeat(2, START, 0))
        drain(leader)
        leader.tick(10.0)
        drain(leader)
        leader.step(N2, m.PreVoteReply(3, True))
        drain(leader)
        leader.step(N2, m.VoteReply(3, True))
        drain(leader)
        self.assertEqual((leader.role, leader.term), ("leader", 3))
        leader.step(N3, m.AppendReply(3, old, 0))
        self.assertEqual(leader.commit, START)
        leader.step(N3, m.AppendReply(3, Position(3, 1), 0))
        self.assertEqual(leader.commit, Position(3, 1))

    def test_late_word_of_a_disk_write_that_was_overwritten_is_ignored(self) -> None:
        """If this failed, a follower would claim to have what a newer leader has replaced (RELIABILITY 25)."""
        leader = a_leader()
        lost = propose(leader)
        drain(leader, persist=False)
        marker = bytes(control.marker(2, 0, 0))
        leader.step(N2, m.Append(2, START, Run((marker,), Position(2, 0), len(marker)), START, 0))
        drain(leader)
        leader.persisted(lost)
        self.assertEqual(leader.persisted_end, Position(2, 0))

    def test_a_run_that_is_damaged_has_no_effect(self) -> None:
        """If this failed, a flipped bit on the way would be stored as if it were the leader's word."""
        raft = node()
        marker = bytearray(control.marker(1, 0, 0))
        marker[40] ^= 1
        raft.step(N2, m.Append(1, START, Run((bytes(marker),), Position(1, 0), len(marker)), START, 0))
        self.assertEqual(raft.end(), START)
        self.assertTrue(any(isinstance(message, m.AppendReject) for _, message in drain(raft)))


class MembershipTests(SynchronousTestCase):
    """Dissertation §4."""

    def test_not_before_the_own_marker_is_committed(self) -> None:
        """If this failed, the single-server bug of 2015 would be ours."""
        leader = a_leader()
        self.assertRaises(NotLeader, leader.change, (N1, N2), ())
        leader.step(N2, m.AppendReply(1, Position(1, 0), 0))
        leader.change((N1, N2), ())
        self.assertEqual(leader.voters, (N1, N2))

    def test_a_voter_of_another_incarnation_never_stands(self) -> None:
        """If this failed, a node whose disk was wiped would vote as if it still had its records (rule 5)."""
        raft = node(me=Voter("n1", "another disk"))
        raft.tick(100.0)
        self.assertEqual(drain(raft), [])
