"""NebulaNode: the composition root. One MultiService with an ordered, awaited start and stop.

Start: lock the directory → identity → ballots → Raft port → links to peers → (birth or join) → group 0 → clients →
gossip. Stop: stop accepting → hand leadership over → close clients → links → disk → leave gossip.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from nebula.broker.apis import Apis
from nebula.broker.apis.cluster import ProducerIds
from nebula.broker.clients import NodeServer
from nebula.broker.commit import GroupCommit
from nebula.broker.controller import CONTROLLER_TOPIC, Controller
from nebula.broker.coordinator import Coordinators
from nebula.broker.directory import ClusterView
from nebula.broker.disk import RealDisk, lock_directory
from nebula.broker.drain import Drain
from nebula.broker.gossip import GossipProtocol
from nebula.broker.identity import Identity, decide_birth
from nebula.broker.partition import Partition
from nebula.broker.peers import Peers, RaftServer
from nebula.broker.reactor import at_turn_end
from nebula.broker.replicas import CONTROLLER, Replicas, Steward
from nebula.broker.settings import NodeSettings
from nebula.broker.transport import listen_tcp
from nebula.cluster.commands import RegisterNode
from nebula.gossip import GossipCluster, Member
from nebula.model import NebulaError, NodeName, StartRefused, Voter
from nebula.raft import RaftSettings
from nebula.storage import BallotJournal

TICK = 0.02
"""Seconds between ticks of all groups; a fifth of the heartbeat interval."""
LOOK = 1.0
"""Seconds between the steward's looks, the registration's retries and the checkpoints."""


class NebulaNode(MultiService):
    """A node. `publish(topic, key, value)` works in process and fires on commit."""

    log = Logger()

    def __init__(self, settings: NodeSettings, reactor: Any) -> None:
        super().__init__()
        self.settings = settings
        self.reactor = reactor
        self.rng = random.Random()
        self.controller: Controller | None = None
        self.ready: Deferred[NebulaNode] = Deferred()
        """Fires once this node is registered in the cluster's state and a controller leads."""
        self.exit_code = 0
        self._ports: list[Any] = []
        self._timers: dict[str, Any] = {}
        self._lock: Any = None
        self._stopping = False
        self._registering = False
        self.creating: set[str] = set()
        """Topics being created on first use."""
        self.producer_ids = ProducerIds()

    def wall_ms(self) -> int:
        """Wall-clock milliseconds, for record timestamps only; nothing is ordered by it."""
        return int(time.time() * 1000)

    # ── start ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Everything that may be refused, before the service starts.

        :raises StartRefused: with cause and way out; nothing was changed.
        """
        s = self.settings
        try:
            os.makedirs(s.data_dir, exist_ok=True)
        except OSError as error:
            raise StartRefused(
                f"NEB-1201 cannot use data directory {s.data_dir}: {error.strerror}. Name another with --data-dir."
            ) from error
        self._lock = lock_directory(s.data_dir)
        self.disk = RealDisk()
        self.identity = Identity.load(self.disk, s.data_dir, s.node)
        self.server = NodeServer(self._dispatch, lambda f: at_turn_end(self.reactor, f))
        self.peers = Peers(self.reactor, self._hello, self._step, self._called, self._peer_died, self._met)
        self._listen(s.port + 1000, "Raft", RaftServer(self.peers))
        self._listen(s.port + 2000, "client", self.server)
        self._compose()
        self._start_gossip()

    def _listen(self, port: int, what: str, factory: Any) -> None:
        try:
            self._ports.append(listen_tcp(self.reactor, self.settings.host, port, factory, 512))
        except CannotListenError as error:
            self._release()
            raise StartRefused(
                f"NEB-1202 cannot listen on {self.settings.host}:{port} ({what}): {error.socketError}. Another node or"
                f" program has it; stop that one (ss -ltnp 'sport = :{port}' names it) or start with another --port."
            ) from error

    def _compose(self) -> None:
        s = self.settings
        ballots = BallotJournal.open(self.disk, s.data_dir)
        self.commits = GroupCommit(self.reactor)
        self.ballot_commits = GroupCommit(self.reactor)
        self.drain = Drain(
            self.peers,
            self.commits,
            ballots,
            self.ballot_commits,
            lambda f: at_turn_end(self.reactor, f),
            self._dead,
            self._broken,
        )
        self.replicas = Replicas(
            self.identity.me, self.disk, s.data_dir, ballots, self.drain, self.rng, time.monotonic,
            RaftSettings(election_timeout=s.election_timeout, heartbeat=s.heartbeat),
        )  # fmt: skip
        self.steward = Steward(self.replicas, self.peers.connected)
        self.view = ClusterView(self)
        self.apis = Apis(self)
        self.coordinators = Coordinators(self)

    def startService(self) -> None:
        if self._lock is None:
            self.begin()
        super().startService()
        for name, (host, port) in self.settings.peers.items():
            self.peers.know(name, host, port)
        if self.identity.cluster:
            self._open_controller()
        self._try_birth()
        self._timers["tick"] = self.reactor.callLater(TICK, self._tick)
        self._timers["look"] = self.reactor.callLater(0.05, self._look)

    def _start_gossip(self) -> None:
        s = self.settings
        me = Member(s.node, self.identity.incarnation, s.host, s.port, "0.1.0", {})
        cluster = GossipCluster(
            me, self.identity.cluster, list(s.peers.values()), random.Random(self.rng.random()), time.monotonic(),
            generation=int(time.time() * 1000),
        )  # fmt: skip
        self.gossip = GossipProtocol(cluster, self.reactor, self._gossiped)
        try:
            self._ports.append(self.reactor.listenUDP(s.port, self.gossip, s.host))
        except CannotListenError as error:
            self._release()
            raise StartRefused(
                f"NEB-1202 cannot listen on UDP {s.host}:{s.port} (gossip): {error.socketError}. Another node has it;"
                " start with another --port."
            ) from error

    # ── birth and joining ───────────────────────────────────────────────────────────────────────────────────────────

    def _hello(self) -> dict[str, Any]:
        i, s = self.identity, self.settings
        return {
            "node": i.node,
            "incarnation": i.incarnation,
            "cluster": i.cluster,
            "voters": [list(v) for v in i.voters],
            "members": sorted({i.node, *s.peers}),
            "host": s.host,
            "port": s.port,
        }

    def _try_birth(self) -> None:
        """An empty node decides, on every hello, whether the cluster can be born, taken up or joined."""
        if self.identity.cluster or self._stopping:
            return
        hellos = self.peers.hellos()
        choice = decide_birth(self.identity, frozenset({self.identity.node, *self.settings.peers}), hellos)
        verb, _, name = choice.partition(" ")
        if verb == "create":
            members = [self.identity.me, *(Voter(h["node"], h["incarnation"]) for h in hellos.values())]
            self.identity.adopt("%032x" % self.rng.getrandbits(128), tuple(sorted(members)))
        elif verb == "take":
            self.identity.adopt(hellos[name]["cluster"], tuple(Voter(*v) for v in hellos[name]["voters"]))
        elif verb == "join":
            known = next(h for h in hellos.values() if h["cluster"])
            self.identity.adopt(known["cluster"], ())
        else:
            return
        self.log.info(
            "{node}: {choice} cluster {cluster}", node=self.identity.node, choice=verb, cluster=self.identity.cluster
        )
        self.gossip.cluster.set_cluster(self.identity.cluster)
        self.peers.greet_again()
        self._open_controller()

    def _open_controller(self) -> None:
        partition = self.replicas.open(CONTROLLER, CONTROLLER_TOPIC, self.identity.voters, None, 8 << 20)
        self.controller = Controller(partition, self.peers.call, self._any_member)
        self.controller.on_applied = self.view.applied

    def _any_member(self) -> NodeName | None:
        return next((name for name, hello in sorted(self.peers.hellos().items()) if hello["cluster"]), None)

    # ── what comes in ───────────────────────────────────────────────────────────────────────────────────────────────

    def _dispatch(self, request: Any, connection: Any) -> Any:
        return self.apis.dispatch(request, connection)

    def _step(self, sender: Voter, group: int, message: Any) -> None:
        self.replicas.step(sender, group, message)

    def _called(self, method: str, params: Any) -> Deferred[Any]:
        return self.view.called(method, params)

    def _met(self, hello: dict[str, Any]) -> None:
        self._try_birth()
        if self.controller is not None:
            self.view.tell(hello["node"])

    def _peer_died(self, name: NodeName) -> None:
        self.log.info("{name} closed its connections and refuses new ones: taken for dead", name=name)
        self.replicas.suspect(name)

    def _gossiped(self, name: NodeName, what: str) -> None:
        """Gossip advises: addresses, and evidence of death (rule 8: nothing else)."""
        known = self.gossip.cluster.members().get(name)
        if what == "dead":
            self.replicas.suspect(name)
        elif known is not None and name != self.identity.node and what in ("alive", "updated"):
            self.peers.know(name, known.member.host, known.member.port)

    def _tick(self) -> None:
        self._timers["tick"] = self.reactor.callLater(TICK, self._tick)
        self.replicas.tick()
        if self.controller is not None:
            self.coordinators.tick()

    def _look(self) -> None:
        self._timers["look"] = self.reactor.callLater(LOOK if self.ready.called else 0.05, self._look)
        if self.controller is None:
            return
        self._register()
        if self.ready.called:
            self.steward.look(self.view.goals())
            self.replicas.checkpoint()

    def _register(self) -> None:
        """Make the controller's state say who and where we are; ready once it does and our replicas have leaders."""
        controller, me, s = self.controller, self.identity, self.settings
        assert controller is not None
        known = controller.state.nodes.get(me.node)
        if known is not None and (known.incarnation, known.host, known.port) == (me.incarnation, s.host, s.port):
            if not self.ready.called and controller.leader is not None:
                self.log.info(
                    "{node} is ready: clients on {host}:{port}", node=me.node, host=s.host, port=s.port + 2000
                )
                self.ready.callback(self)
            return
        if self._registering:
            return
        self._registering = True

        def over(_result: Any) -> None:
            self._registering = False

        controller.submit(RegisterNode(me.node, me.incarnation, s.host, s.port)).addBoth(over)

    # ── publish in process ──────────────────────────────────────────────────────────────────────────────────────────

    def publish(self, topic: str, key: bytes | None, value: bytes | None) -> Deferred[dict[str, int]]:
        """Append one record wherever its partition is led; fires with ``{"partition", "offset"}`` on commit."""
        return self.apis.publish(topic, key, value)

    # ── stop ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _dead(self, error: BaseException) -> None:
        """A failed write or fsync: this log directory is dead until a restart (rule 3). Nothing more is acknowledged."""
        self.log.critical(
            "NEB-1301 {node}: a write or fsync in {dir} failed ({error}). Nothing was acknowledged after it; the node"
            " stops. Check the disk, then start it again: it recovers from its log and its peers.",
            node=self.identity.node, dir=self.settings.data_dir, error=error,
        )  # fmt: skip
        self.exit_code = 5
        self.server.close_all()
        self.peers.stop()
        self.reactor.callLater(0, self.reactor.stop)

    def _broken(self, partition: Partition, error: NebulaError) -> None:
        """One replica is not to be trusted; without the controller's the whole node is not."""
        self.replicas.give_up(partition, error)
        if partition.group == 0:
            self._dead(error)

    async def _stop(self) -> None:
        self._stopping = True
        client = self._ports[1:2]
        for port in client:
            await _as_deferred(port.stopListening())
        if not self.exit_code:
            self.replicas.hand_over()
            deadline = time.monotonic() + 0.5
            while any(True for p in self.replicas.led() if len(p.raft.voters) > 1) and time.monotonic() < deadline:
                await deferLater(self.reactor, 0.01)
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self.gossip.stop()
        self.server.close_all()
        self.drain.stop()
        self.peers.stop()
        for port in self._ports:
            if port not in client:
                await _as_deferred(port.stopListening())
        self.commits.stop()
        self.ballot_commits.stop()
        if not self.exit_code:
            self.replicas.close()
        self._release()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


async def _as_deferred(outcome: Any) -> None:
    if isinstance(outcome, Deferred):
        await outcome
