"""The replicas this node holds: opened, created and deleted as the controller says; ticked; kept on their best leader.

The controller's assignment is the goal, each group's own log the truth (ARCHITECTURE §4): `Steward` moves a group that
this node leads one membership step at a time towards the goal, and its leadership to the preferred replica.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from twisted.logger import Logger

from nebula.broker.drain import Drain
from nebula.broker.partition import Partition
from nebula.model import START, GroupID, NebulaError, NodeName, TopicPartition, Voter
from nebula.raft import Ballot, RaftNode, RaftSettings
from nebula.records.start import StartRecord
from nebula.storage import BallotJournal, DamagedLog, NebulaLog
from nebula.storage.disk import Disk

CONTROLLER: GroupID = 0

CHECKPOINT_BYTES = 1 << 20
"""Written since the last checkpoint before the next is worth its two fsyncs: what a start then reads at most, nearly."""
HELD_GROUPS, HELD_MESSAGES = 1000, 8
"""Bounds of what is kept for groups that are not here yet: a topic with many partitions, a few messages each."""
CHECKPOINTS_A_LOOK = 8
"""At most so many at once: they are made on the reactor's thread."""


class Replicas:
    """Group id → Partition, and where their files are."""

    log = Logger()

    def __init__(
        self,
        me: Voter,
        disk: Disk,
        directory: str,
        ballots: BallotJournal,
        drain: Drain,
        rng: random.Random,
        clock: Callable[[], float],
        settings: RaftSettings,
    ) -> None:
        self.me = me
        self._disk = disk
        self._root = os.path.join(directory, "partitions")
        self._ballots = ballots
        self._drain = drain
        self._rng = rng
        self._clock = clock
        self._settings = settings
        self.groups: dict[GroupID, Partition] = {}
        self.by_name: dict[TopicPartition, Partition] = {}
        self._newest: GroupID = 0
        """Highest group that was ever here: ids only grow, so what is above is new, and what is below was deleted."""
        self._waiting: dict[GroupID, list[tuple[Voter, Any]]] = {}

    def open(
        self, group: GroupID, name: str, voters: tuple[Voter, ...], tp: TopicPartition | None, segment_bytes: int
    ) -> Partition:
        """Open a replica's log, or create it with its first voters."""
        if group in self.groups:
            return self.groups[group]
        self._disk.makedirs(self._root)
        path = os.path.join(self._root, f"{group:08d}-{name}")
        if not self._disk.exists(os.path.join(path, "start")):
            NebulaLog.create(self._disk, path, StartRecord(START, (), voters, (), b"", b""))
        log = NebulaLog.open(self._disk, path, segment_bytes=segment_bytes)
        term, voted_for = self._ballots.ballots.get(group, (0, None))
        raft = RaftNode(
            self.me, group, log, Ballot(term, voted_for), random.Random(self._rng.random()), self._clock(),
            self._settings, log.quarantine,
        )  # fmt: skip
        partition = Partition(group, name, raft, log, self._drain)
        self.groups[group] = partition
        self._newest = max(self._newest, group)
        self._waiting = {held: rows for held, rows in self._waiting.items() if held >= group}
        if tp is not None:
            self.by_name[tp] = partition
        for sender, message in self._waiting.pop(group, []):
            partition.step(sender, message)
        return partition

    def delete(self, group: GroupID) -> None:
        """The topic is gone: close the replica and remove its files."""
        partition = self.groups.pop(group, None)
        if partition is None:
            return
        self.by_name = {tp: p for tp, p in self.by_name.items() if p is not partition}
        partition.close()
        self._disk.rmtree(os.path.join(self._root, f"{group:08d}-{partition.name}"))

    def step(self, sender: Voter, group: GroupID, message: Any) -> None:
        """A peer's message. One about a group whose creation is not applied here yet waits for it."""
        partition = self.groups.get(group)
        if partition is not None:
            self._drain.guard(partition, partition.step, sender, message)
        elif group > self._newest:
            self._hold(sender, group, message)

    def _hold(self, sender: Voter, group: GroupID, message: Any) -> None:
        """Keep what a quicker peer says of a new group: a lost vote would cost it an election timeout without leader."""
        if group not in self._waiting and len(self._waiting) >= HELD_GROUPS:
            self._waiting.pop(next(iter(self._waiting)))
        self._waiting.setdefault(group, []).append((sender, message))
        del self._waiting[group][:-HELD_MESSAGES]

    def tick(self) -> None:
        now = self._clock()
        for partition in list(self.groups.values()):
            self._drain.guard(partition, partition.tick, now)

    def led(self) -> Iterator[Partition]:
        return (p for p in self.groups.values() if p.serving)

    def suspect(self, node: NodeName) -> None:
        """Evidence that `node`'s process is gone: its groups may begin a pre-vote early."""
        for partition in self.groups.values():
            leader = partition.raft.leader
            if leader is not None and leader.node == node:
                partition.suspect_leader()

    def hand_over(self) -> None:
        """Before a stop: transfer every leadership to the voter that is furthest along."""
        for partition in self.led():
            others = [v for v in partition.raft.voters if v != self.me]
            if others:
                partition.raft.transfer(max(others, key=partition.raft.progress))
                partition.touch()

    def checkpoint(self) -> None:
        """Leave checkpoints of the few partitions that were written to most lately; the rest has its turn later."""
        saved = 0
        for partition in list(self.groups.values()):
            saved += bool(self._drain.guard(partition, partition.save, CHECKPOINT_BYTES))
            if saved == CHECKPOINTS_A_LOOK:
                return

    def give_up(self, partition: Partition, error: NebulaError) -> None:
        """Damage or a broken invariant: this replica takes part in nothing more; the others go on without it."""
        self.log.critical(
            "NEB-1304 {name}: this replica is broken and stopped: {error}. The other replicas go on. Start this node"
            " again: the log is then read whole, and what is wrong is fetched from the others.",
            name=partition.name, error=error,
        )  # fmt: skip
        self.groups.pop(partition.group, None)
        self.by_name = {tp: p for tp, p in self.by_name.items() if p is not partition}
        partition.close()

    def close(self) -> None:
        for partition in self.groups.values():
            with suppress(OSError, DamagedLog):  # the disk is dead or damaged: the next start finds out by itself
                partition.save()
            partition.close()


class Steward:
    """Moves the groups this node leads towards the controller's goal, one step at a time."""

    def __init__(self, replicas: Replicas, connected: Callable[[Voter], bool]) -> None:
        self._replicas = replicas
        self._connected = connected
        self._stable: dict[GroupID, int] = {}

    def look(self, goals: dict[GroupID, tuple[Voter, ...]]) -> None:
        """Called about once a second with the wanted voters of every group, preferred leader first."""
        for partition in self._replicas.led():
            goal = goals.get(partition.group)
            if goal:
                self._membership(partition, goal)

    def _membership(self, partition: Partition, goal: tuple[Voter, ...]) -> None:
        raft = partition.raft
        voters, learners = set(raft.voters), set(raft.learners)
        wanted = set(goal)
        new = next((v for v in goal if v not in voters and self._connected(v)), None)
        gone = next((v for v in raft.voters if v not in wanted), None)
        if new is not None and new not in learners:
            self._change(partition, voters, learners | {new})
        elif new is not None and self._caught_up(partition, new):
            self._change(partition, voters | {new}, learners - {new})
        elif gone is not None and wanted <= voters:
            self._change(partition, voters - {gone}, learners)
        elif not learners <= wanted and learners:
            self._change(partition, voters, learners & wanted)
        elif gone is None and wanted == voters:
            self._preferred(partition, goal[0])

    def _caught_up(self, partition: Partition, voter: Voter) -> bool:
        return partition.raft.progress(voter) >= partition.raft.commit

    def _change(self, partition: Partition, voters: set[Voter], learners: set[Voter]) -> None:
        try:
            partition.raft.change(tuple(sorted(voters)), tuple(sorted(learners)))
        except Exception as refused:  # one change at a time: the next look tries again
            Replicas.log.debug("{name}: membership change refused: {why}", name=partition.name, why=refused)
        partition.touch()

    def _preferred(self, partition: Partition, preferred: Voter) -> None:
        raft, group = partition.raft, partition.group
        ready = preferred != self._replicas.me and self._connected(preferred) and self._caught_up(partition, preferred)
        self._stable[group] = self._stable.get(group, 0) + 1 if ready else 0
        if self._stable[group] >= 3:  # three looks in a row: it is really back, not passing by
            self._stable[group] = 0
            raft.transfer(preferred)
            partition.touch()
