"""GossipProtocol over memory: ticks, resolving, events and the end."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nebula.broker.gossip import TICK, GossipProtocol
from nebula.gossip import GossipCluster, Member


class Reactor(Clock):
    """A clock that also resolves names, when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.lookups: list[tuple[str, Deferred[str]]] = []

    def resolve(self, name: str) -> Deferred[str]:
        self.lookups.append((name, Deferred()))
        return self.lookups[-1][1]


class Wire:
    """A transport that hands what is written to whoever listens at the address."""

    def __init__(self, wires: dict[tuple[str, int], GossipProtocol], address: tuple[str, int]) -> None:
        self.wires = wires
        self.address = address
        self.broken = False
        self.written = 0

    def write(self, data: bytes, address: tuple[str, int]) -> None:
        self.written += 1
        if self.broken:
            raise OSError("no route to host")
        if address in self.wires:
            self.wires[address].datagramReceived(data, self.address)


class ProtocolTests(SynchronousTestCase):
    """Two nodes, their protocols joined by memory."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.wires: dict[tuple[str, int], GossipProtocol] = {}
        self.told: dict[str, list[tuple[str, str]]] = {}

    def make(self, name: str, port: int, seeds: list[tuple[str, int]], on_event: Any = None) -> GossipProtocol:
        me = Member(name, name, "10.0.0.1", port, "1")
        cluster = GossipCluster(me, "c", seeds, random.Random(port), self.reactor.seconds(), 1)
        told = self.told[name] = []
        protocol = GossipProtocol(
            cluster, self.reactor, on_event or (lambda *event: told.append(event)), self.reactor.seconds
        )
        protocol.transport = Wire(self.wires, ("10.0.0.1", port))
        self.wires["10.0.0.1", port] = protocol
        protocol.startProtocol()
        return protocol

    def run_for(self, seconds: float) -> None:
        self.reactor.pump([TICK] * int(seconds / TICK))

    def test_meet_and_leave(self) -> None:
        """Datagrams or events do not get through, or a stopped protocol still ticks and keeps the reactor busy."""
        protocols = [self.make("n1", 1, []), self.make("n2", 2, [("10.0.0.1", 1)])]
        self.run_for(2)
        self.assertEqual(self.told, {"n1": [("n2", "alive")], "n2": [("n1", "alive")]})
        protocols[1].stop()
        protocols[1].stop()
        self.assertEqual(self.told["n1"][-1], ("n2", "left"))
        protocols[0].stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_lost_port(self) -> None:
        """A port closed without stop() leaves a timer behind that writes to no transport."""
        protocol = self.make("n1", 1, [("10.0.0.1", 2)])
        protocol.stopProtocol()
        protocol.transport = None
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        protocol.stop()
        protocol.start()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_seed_by_name(self) -> None:
        """Names go to the transport, which takes addresses only; or every ping asks the resolver."""
        self.make("n1", 1, [])
        self.make("n2", 2, [("seed.example", 1)])
        self.run_for(1)
        self.assertEqual([name for name, _ in self.reactor.lookups], ["seed.example"])
        self.reactor.lookups[0][1].callback("10.0.0.1")
        self.run_for(1)
        self.assertEqual(self.told["n2"], [("n1", "alive")])

    def test_resolver_down(self) -> None:
        """A failed lookup is an unhandled error, or is never tried again."""
        self.make("n2", 2, [("seed.example", 1)])
        self.run_for(1)
        self.reactor.lookups[0][1].errback(OSError("resolver down"))
        self.run_for(4)
        self.assertEqual(len(self.reactor.lookups), 2)

    def test_unreachable_network(self) -> None:
        """A refused write ends the ticking, and gossip with it."""
        protocol = self.make("n1", 1, [("10.0.0.1", 2)])
        wire: Any = protocol.transport
        wire.broken = True
        self.run_for(1)
        before = wire.written
        self.run_for(1)
        self.assertGreater(wire.written, before)

    def test_failing_callback(self) -> None:
        """A fault in what listens to events ends gossip."""

        def fail(name: str, what: str) -> None:
            raise RuntimeError(what)

        first = self.make("n1", 1, [], fail)
        self.make("n2", 2, [("10.0.0.1", 1)])
        self.run_for(2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(set(first.cluster.members()), {"n1", "n2"})
