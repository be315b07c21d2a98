"""Whole clusters in one process from one seed: the production drain, Raft and storage over a simulated world.

What is replaced: the reactor (a heap of events), sockets (delays, drops, repeats, reorders, cuts), the commit threads
(completions at simulated times) and the files (separate volatile and durable images). What is checked: after every
event the Raft invariants of every replica; at every acknowledgement that the batch is in the *durable* image of a
majority of voters; at the end, after healing, that every replica is byte-equal and holds everything acknowledged once,
at the offset it was acknowledged with. The same seed gives the same trace.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from typing import Any

from nebula.broker.drain import Drain
from nebula.broker.partition import Partition
from nebula.model import START, GroupID, InvariantBroken, NebulaError, Position, Voter
from nebula.raft import Ballot, RaftNode, RaftSettings, codec
from nebula.records.batch import read_header
from nebula.records.record import build_batch
from nebula.records.start import StartRecord
from nebula.storage import BallotJournal, NebulaLog
from nebula.testing.clock import SimulatedClock
from nebula.testing.disk import SimulatedDisk
from nebula.testing.invariants import ClusterInvariants

GROUP: GroupID = 1
TICK = 0.02


class SimulationFailed(AssertionError):
    """An invariant does not hold; the text names seed and place."""


class SimulatedSyncer:
    """Group commit whose rounds end at simulated times, one in flight at a time."""

    def __init__(self, node: SimulatedNode, drop_fsync: bool = False) -> None:
        self._node = node
        self._boot = node.boot
        self._queue: list[tuple[list[Any], Callable[[BaseException | None], None]]] = []
        self._busy = False
        self._drop = drop_fsync

    def request(self, files: Iterable[Any], nbytes: int, done: Callable[[BaseException | None], None]) -> None:
        self._queue.append((list(files), done))
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        self._busy = True
        round_, self._queue = self._queue, []
        world = self._node.world
        world.clock.later(world.rng.expovariate(1 / 0.003), lambda: self._end(round_))

    def _end(self, round_: list[tuple[list[Any], Callable[[BaseException | None], None]]]) -> None:
        if self._node.boot != self._boot or not self._node.up:
            return
        if not self._drop:
            for files, _ in round_:
                for file in files:
                    file.sync()
        for _, done in round_:
            done(None)
        self._busy = False
        if self._queue:
            self._begin()


class SimulatedNode:
    """One node: a disk that outlives crashes, and a partition that does not."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.voter = Voter(name, f"disk-{name}")
        self.disk = SimulatedDisk(sync_dirs=world.mutant != "no directory fsync")
        self.up = False
        self.boot = 0
        self.partition: Partition | None = None

    @property
    def path(self) -> str:
        return f"/{self.voter.node}/partitions/p"

    def start(self) -> None:
        self.boot += 1
        self.up = True
        world, disk = self.world, self.disk
        disk.makedirs(f"/{self.voter.node}/partitions")
        if not disk.exists(f"{self.path}/start"):
            NebulaLog.create(disk, self.path, StartRecord(START, (), world.voters, (), b"", b""))
        log = NebulaLog.open(disk, self.path, segment_bytes=world.segment_bytes)
        ballots = BallotJournal.open(disk, f"/{self.voter.node}")
        term, vote = ballots.ballots.get(GROUP, (0, None))
        raft = RaftNode(
            self.voter, GROUP, log, Ballot(term, vote), random.Random(world.rng.random()), world.clock.now,
            world.settings,
            log.quarantine,
        )  # fmt: skip
        mutant = world.mutant
        drain = Drain(
            self, SimulatedSyncer(self, mutant == "dropped fsync"), ballots, SimulatedSyncer(self),
            lambda f: world.clock.later(0.0, self._guarded(f)), self._failed,
            self._broken,
        )  # fmt: skip
        self.partition = Partition(GROUP, "p", raft, log, drain)
        self._tick(self.boot)

    def _guarded(self, call: Callable[[], None]) -> Callable[[], None]:
        boot = self.boot
        return lambda: call() if self.up and self.boot == boot else None

    def _broken(self, partition: Partition, error: BaseException) -> None:
        raise error

    def _failed(self, error: BaseException) -> None:
        raise SimulationFailed(f"seed {self.world.seed}: {self.voter.node}: {error!r}")

    def _tick(self, boot: int) -> None:
        if self.up and self.boot == boot and self.partition is not None:
            self.partition.tick(self.world.clock.now)
            self.world.clock.later(TICK, lambda: self._tick(boot))

    def crash(self) -> None:
        """Power loss: what was not synced may be gone, in part, torn."""
        self.up = False
        self.partition = None
        self.disk.crash(self.world.rng)

    def send(self, to: Voter, group: GroupID, message: Any) -> None:
        self.world.transmit(self, to, b"".join(map(bytes, codec.encode(group, message))))

    def flush(self) -> None:
        """Messages leave one by one in `send`; the network orders them as it likes."""

    def receive(self, sender: Voter, data: bytes) -> None:
        if self.up and self.partition is not None:
            _, message = codec.decode(memoryview(bytearray(data)))
            self.partition.step(sender, message)


class World:
    """A cluster, its network, its clients and its faults, all drawn from one seed."""

    def __init__(self, seed: int, *, seconds: float = 20.0, mutant: str = "", turmoil: bool = False) -> None:
        """`turmoil`: elections are contested all the time, and nodes die in the moments after a vote or a victory."""
        self.seed = seed
        self.mutant = mutant
        self.rng = random.Random(seed)
        self.clock = SimulatedClock()
        size = self.rng.choice([1, 3, 3, 3, 3, 5])
        self.voters = tuple(Voter(f"n{i}", f"disk-n{i}") for i in range(1, size + 1))
        self.segment_bytes = self.rng.choice([2048, 8192, 1 << 20])
        self.loss = self.rng.choice([0.0, 0.0, 0.02, 0.1])
        self.repeat = self.rng.choice([0.0, 0.05])
        self.delay = self.rng.choice([0.0005, 0.003, 0.02])
        self.crash_every = self.rng.choice([0.0, 2.0, 5.0])
        self.cut_every = self.rng.choice([0.0, 2.0, 5.0])
        self.seconds = seconds
        self.settings = RaftSettings(election_timeout=1.0, heartbeat=0.1)
        self.slow = 0.0
        """Share of messages that take ten times as long."""
        self.turmoil = turmoil
        if turmoil:
            self._draw_turmoil()
        self.nodes = {v.node: SimulatedNode(self, v.node) for v in self.voters}
        self.cuts: set[tuple[str, str]] = set()
        self.acked: dict[int, tuple[int, bytes]] = {}
        self.published = 0
        self.faults_on = True
        self.failure = ""
        """First broken invariant; kept, because a Deferred would swallow the exception it is raised with."""
        self.trace = hashlib.sha256()
        self.events = 0
        self._invariants = ClusterInvariants()
        self._moments: dict[str, tuple[int, Voter | None, str, Position]] = {}

    def _draw_turmoil(self) -> None:
        rng = self.rng
        self.voters = tuple(Voter(f"n{i}", f"disk-n{i}") for i in range(1, rng.choice([3, 3, 5]) + 1))
        self.delay = rng.choice([0.003, 0.01, 0.03])
        self.settings = RaftSettings(
            election_timeout=rng.choice([0.06, 0.12, 0.2]), heartbeat=0.03, run_bytes=rng.choice([100, 1000, 1 << 20])
        )
        self.loss, self.repeat, self.slow = rng.choice([0.0, 0.05]), rng.choice([0.0, 0.5]), rng.choice([0.0, 0.2])
        self.cut_every = rng.choice([0.0, 0.0, 2.0])

    # ── network ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def transmit(self, sender: SimulatedNode, to: Voter, data: bytes) -> None:
        target = self.nodes.get(to.node)
        if target is None or (sender.voter.node, to.node) in self.cuts:
            return
        copies = 1 + (self.faults_on and self.rng.random() < self.repeat)
        if self.faults_on and self.rng.random() < self.loss:
            copies -= 1
        for _ in range(copies):
            delay = self.rng.expovariate(1 / self.delay)
            if self.slow and self.rng.random() < self.slow:
                delay *= 10
            self.clock.later(delay, lambda: target.receive(sender.voter, data))

    # ── faults ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _crash_some(self) -> None:
        if not self.faults_on:
            return
        self.clock.later(self.rng.expovariate(1 / self.crash_every), self._crash_some)
        alive = [n for n in self.nodes.values() if n.up]
        victims = alive if self.rng.random() < 0.1 else alive and [self.rng.choice(alive)]
        for node in victims or []:
            node.crash()
            self.clock.later(self.rng.uniform(0.01, 3.0), self._starter(node))

    def _starter(self, node: SimulatedNode) -> Callable[[], None]:
        return lambda: None if node.up else node.start()

    def _cut_some(self) -> None:
        self.cuts.clear()
        if not self.faults_on:
            return
        self.clock.later(self.rng.expovariate(1 / self.cut_every), self._cut_some)
        names = list(self.nodes)
        lonely = self.rng.choice(names)
        for other in names:
            if other != lonely and self.rng.random() < 0.8:
                self.cuts.add((lonely, other))
                if self.rng.random() < 0.7:
                    self.cuts.add((other, lonely))

    # ── clients ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _publish(self) -> None:
        if self.clock.now < self.seconds:
            self.clock.later(self.rng.expovariate(50.0), self._publish)
        leaders = [n for n in self.nodes.values() if n.up and n.partition is not None and n.partition.leads]
        if not leaders:
            return
        node = self.rng.choice(leaders)
        serial, self.published = self.published, self.published + 1
        value = b"%d:" % serial + b"x" * self.rng.choice([0, 10, 300])
        records = [(None, value, (), 0)] * self.rng.choice([1, 1, 3])
        batch = build_batch(records)
        assert node.partition is not None
        try:
            waiter = node.partition.append(batch, read_header(batch))
        except NebulaError:
            return
        waiter.addCallbacks(lambda offset: self._acknowledged(serial, offset, batch), lambda f: f.trap(NebulaError))

    def _acknowledged(self, serial: int, offset: int, batch: bytearray) -> None:
        self.acked[serial] = (offset, bytes(batch))
        holders = [n for n in self.nodes.values() if self._durable(n, bytes(batch))]
        if len(holders) * 2 <= len(self.nodes):
            text = f"batch {serial} acknowledged at {offset}, durable on {[n.voter.node for n in holders]} only"
            self.failure = self.failure or f"seed {self.seed} at {self.clock.now:.3f} s: {text}"

    def _durable(self, node: SimulatedNode, batch: bytes) -> bool:
        return any(batch in image for image in node.disk.durable_images(node.path))

    # ── run and check ───────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> str:
        """Run the seed; returns the trace's hash. :raises SimulationFailed: an invariant broke."""
        for node in self.nodes.values():
            node.start()
        if self.crash_every:
            self.clock.later(self.crash_every, self._crash_some)
        if self.cut_every and len(self.nodes) > 1:
            self.clock.later(self.cut_every, self._cut_some)
        self.clock.later(0.5, self._publish)
        self._until(self.seconds)
        self.faults_on = False
        self.cuts.clear()
        for node in self.nodes.values():
            if not node.up:
                node.start()
        self._until(self.seconds + 30, self._converged)
        self._check_end()
        return self.trace.hexdigest()

    def _until(self, end: float, reached: Callable[[], bool] | None = None) -> None:
        while self.clock.now < end and self.clock.step():
            self.events += 1
            self._check_event()
            if self.failure:
                raise SimulationFailed(self.failure)
            if reached is not None and self.events % 50 == 0 and reached():
                return

    def _check_event(self) -> None:
        for node in self.nodes.values():
            if node.up and node.partition is not None:
                self._check_node(node, node.partition)

    def _check_node(self, node: SimulatedNode, partition: Partition) -> None:
        raft, name = partition.raft, node.voter.node
        try:
            changed = self._invariants.check(name, node.boot, raft)
        except InvariantBroken as broken:
            self._fail(f"{name}: {broken}")
        if changed:
            state = (node.boot, raft.term, raft.commit)
            self.trace.update(repr((round(self.clock.now, 6), name, state, raft.role)).encode())
            if self.turmoil and self.faults_on:
                self._disturb(node, raft)

    def _disturb(self, node: SimulatedNode, raft: RaftNode) -> None:
        """Strike in the moments that matter: right after a vote, a victory, or a leader's commit."""
        moment = (raft.term, raft.ballot.voted_for, raft.role, raft.commit if raft.role == "leader" else START)
        before, self._moments[node.voter.node] = self._moments.get(node.voter.node), moment
        if before is None or moment == before or raft.ballot.voted_for is None:
            return
        voted, won = moment[:2] != before[:2], raft.role == "leader" and before[2] != "leader"
        if won and self.rng.random() < 0.4:
            self._mute(node.voter.node)
        elif self.rng.random() < (0.4 if voted or won else 0.05):
            self._kill_soon(node)

    def _mute(self, name: str) -> None:
        """Nothing that `name` says arrives for a while: a leader whose entries stay its own."""
        ways = {(name, other) for other in self.nodes if other != name}
        self.cuts |= ways
        self.clock.later(self.rng.choice([0.05, 0.3]), lambda: self.cuts.difference_update(ways))

    def _kill_soon(self, node: SimulatedNode) -> None:
        """Before a sync is over, or a little later; back at once, or when somebody else has won."""
        boot = node.boot

        def kill() -> None:
            if node.up and node.boot == boot and self.faults_on:
                node.crash()
                self.clock.later(self.rng.choice([0.0005, 0.02, 0.2]) * self.rng.uniform(0.5, 2), self._starter(node))

        self.clock.later(self.rng.choice([0.0002, 0.0002, 0.005, 0.05]) * self.rng.random(), kill)

    def _converged(self) -> bool:
        partitions = [n.partition for n in self.nodes.values() if n.partition is not None]
        ends = {(p.raft.commit, p.log.end()) for p in partitions}
        return len(partitions) == len(self.nodes) and len(ends) == 1 and any(p.serving for p in partitions)

    def _check_end(self) -> None:
        if not self._converged():
            places = {n.voter.node: str(n.partition.raft.commit) for n in self.nodes.values() if n.partition}
            self._fail(f"not converged 30 s after healing: {places}")
        contents = {n.voter.node: self._content(n) for n in self.nodes.values()}
        first = next(iter(contents.values()))
        for name, content in contents.items():
            if content != first:
                self._fail(f"{name} differs from the others at the end")
        for serial, (offset, batch) in self.acked.items():
            if first.count(batch) != 1:
                self._fail(f"batch {serial} acknowledged at {offset} is stored {first.count(batch)} times")
            if read_header(batch).base_offset != offset:
                self._fail(f"batch {serial} was acknowledged at {offset} and stamped elsewhere")

    def _content(self, node: SimulatedNode) -> bytes:
        assert node.partition is not None
        log, place = node.partition.log, node.partition.log.start()
        chunks: list[bytes] = []
        while place < log.end():
            run = log.read(place, 1 << 20)
            chunks.extend(map(bytes, run.chunks))
            place = run.end
        return b"".join(chunks)

    def _fail(self, text: str) -> None:
        self.failure = self.failure or f"seed {self.seed} at {self.clock.now:.3f} s: {text}"
        raise SimulationFailed(self.failure)
