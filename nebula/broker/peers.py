"""RaftServer and the links between nodes: who may speak, two lanes, one burst per turn, and small calls.

Every pair of nodes has two TCP connections in each direction: *control* (votes, heartbeats, acknowledgements, calls) and
*bulk* (appends, installs), so that bulk data never delays an election. Messages travel from the dialler to the listener;
answers to hellos and calls go back on the connection they came by.

A frame is a length, a type byte and a body: ``H`` hello (JSON), ``R`` Raft messages (each with its own length),
``Q``/``A`` a call and its answer (JSON). A connection's first frame is its hello; a foreign cluster is closed on.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import ClientFactory, Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from nebula.broker.transport import FramedProtocol, connect_tcp
from nebula.model import Buffer, DecodeError, GroupID, NebulaError, NodeName, Voter
from nebula.raft import codec
from nebula.raft.messages import Append, Install

LENGTH = struct.Struct(">I")
MAX_FRAME = 256 << 20
"""A group-0 install may carry a snapshot; everything else is a few MiB."""
MAX_CALLS = 1000
"""Calls in flight to one peer; more means it does not answer, and waiting longer helps nobody."""
BULK_LIMIT = 64 << 20
"""Bytes queued on one link before messages are dropped; Raft sends them again."""


class PeerGone(NebulaError):
    """The peer's connection closed before it answered."""

    code = "NEB-2201"


class PeerProtocol(FramedProtocol):
    """One connection between two nodes, either side."""

    max_frame = MAX_FRAME
    log = Logger()
    transport: Any

    def __init__(self, peers: Peers, link: Link | None) -> None:
        super().__init__()
        self.peers = peers
        self.link = link
        """Set on the dialling side."""
        self.remote: dict[str, Any] | None = None
        self.open = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self.open = True
        if self.link is not None:
            self.send_json(b"H", self.peers.hello())

    def send_json(self, kind: bytes, body: Any) -> None:
        data = kind + json.dumps(body).encode()
        self.send([LENGTH.pack(len(data)) + data])

    def frame_received(self, frame: memoryview) -> None:
        kind = frame[0] if len(frame) else 0
        if kind == 0x48:
            self._hello(json.loads(bytes(frame[1:])))
        elif self.remote is None:
            raise DecodeError("a peer spoke before its hello")
        elif kind == 0x52:
            self._raft(frame)
        elif kind == 0x51:
            self.peers.call_received(self, json.loads(bytes(frame[1:])))
        elif kind == 0x41 and self.link is not None:
            self.link.answered(json.loads(bytes(frame[1:])))
        else:
            raise DecodeError(f"unknown peer frame {kind}")

    def _hello(self, hello: dict[str, Any]) -> None:
        if not self.peers.welcome(hello):
            self.transport.loseConnection()
            return
        self.remote = hello
        if self.link is None:
            self.send_json(b"H", self.peers.hello())
        else:
            self.link.greeted(self, hello)
        self.peers.met(hello)

    def _raft(self, frame: memoryview) -> None:
        assert self.remote is not None
        sender = Voter(self.remote["node"], self.remote["incarnation"])
        at, size = 1, len(frame)
        while at < size:
            length = LENGTH.unpack_from(frame, at)[0]
            if length > size - at - 4:
                raise DecodeError("a Raft message longer than its frame")
            group, message = codec.decode(frame[at + 4 : at + 4 + length])
            self.peers.step(sender, group, message)
            at += 4 + length

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self.open = False
        self.peers.accepted.discard(self)
        if self.link is not None:
            self.link.lost(self)


class Link(ClientFactory):
    """One outgoing lane to one peer: dials, dials again, and queues one turn's messages."""

    noisy = False
    log = Logger()

    def __init__(self, peers: Peers, name: NodeName, lane: str) -> None:
        self.peers = peers
        self.name = name
        self.lane = lane
        self.protocol_now: PeerProtocol | None = None
        self.remote: dict[str, Any] | None = None
        self.outbox: list[Buffer] = []
        self.size = 0
        self._calls: dict[int, Deferred[Any]] = {}
        self._serial = 0
        self._delay = 0.05
        self._retry: Any = None
        self._connector: Any = None
        self._was_up = False
        self.stopped = False

    def dial(self) -> None:
        self._retry = None
        if not self.stopped:
            host, port = self.peers.address_of(self.name)
            self._connector = connect_tcp(self.peers.reactor, host, port + 1000, self, 5.0)

    def buildProtocol(self, addr: Any) -> PeerProtocol:
        return PeerProtocol(self.peers, self)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if self._was_up and reason.check(ConnectionRefusedError):
            # The process was there, its connections fell, and its port refuses: the best evidence there is that it died.
            self._was_up = False
            if self.lane == "control":
                self.peers.on_dead(self.name)
        self._again()

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self._delay = 0.02
        self._again()

    def _again(self) -> None:
        if not self.stopped and self._retry is None:
            self._retry = self.peers.reactor.callLater(self._delay, self.dial)
            self._delay = min(self._delay * 1.6, 0.5)

    def greeted(self, protocol: PeerProtocol, hello: dict[str, Any]) -> None:
        self.protocol_now, self.remote, self._delay, self._was_up = protocol, hello, 0.05, True

    def lost(self, protocol: PeerProtocol) -> None:
        if self.protocol_now is protocol:
            self.protocol_now = None
            calls, self._calls = self._calls, {}
            for call in calls.values():
                call.errback(PeerGone(f"{self.name} closed the connection before it answered"))

    def queue(self, chunks: list[Buffer]) -> None:
        """Add one Raft message to this turn's frame."""
        length = sum(map(len, chunks))
        if self.protocol_now is None or self.protocol_now.pending_bytes + self.size > BULK_LIMIT:
            return  # Raft repeats what is lost; a queue for a peer that does not take it would only grow
        self.outbox.append(LENGTH.pack(length))
        self.outbox.extend(chunks)
        self.size += length + 4

    def flush(self) -> None:
        outbox, size, self.outbox, self.size = self.outbox, self.size, [], 0
        if outbox and self.protocol_now is not None:
            self.protocol_now.send([LENGTH.pack(size + 1) + b"R", *outbox])

    def call(self, method: str, params: Any) -> Deferred[Any]:
        """Ask the peer; fails with PeerGone when it is not there or goes away."""
        waiter: Deferred[Any] = Deferred()
        if self.protocol_now is None or len(self._calls) >= MAX_CALLS:
            waiter.errback(PeerGone(f"{self.name} is not connected"))
            return waiter
        self._serial += 1
        self._calls[self._serial] = waiter
        self.protocol_now.send_json(b"Q", {"id": self._serial, "method": method, "params": params})
        return waiter

    def answered(self, answer: dict[str, Any]) -> None:
        call = self._calls.pop(answer["id"], None)
        if call is None:
            return
        if "error" in answer:
            call.errback(PeerGone(answer["error"]))
        else:
            call.callback(answer["result"])

    def stop(self) -> None:
        self.stopped = True
        if self._retry is not None:
            self._retry.cancel()
        if self._connector is not None:
            self._connector.disconnect()


class RaftServer(Factory):
    """Accepts the other nodes' connections."""

    noisy = False

    def __init__(self, peers: Peers) -> None:
        self.peers = peers

    def buildProtocol(self, addr: Any) -> PeerProtocol:
        protocol = PeerProtocol(self.peers, None)
        self.peers.accepted.add(protocol)
        return protocol


class Peers:
    """All links of a node. Fits the drain's `Links`."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        hello: Callable[[], dict[str, Any]],
        step: Callable[[Voter, GroupID, Any], None],
        on_call: Callable[[str, Any], Deferred[Any]],
        on_dead: Callable[[NodeName], None],
        on_met: Callable[[dict[str, Any]], None],
    ) -> None:
        self.reactor = reactor
        self.hello = hello
        self.step = step
        self.on_call = on_call
        self.on_dead = on_dead
        self.on_met = on_met
        self.accepted: set[PeerProtocol] = set()
        self.addresses: dict[NodeName, tuple[str, int]] = {}
        self._links: dict[NodeName, tuple[Link, Link]] = {}

    def address_of(self, name: NodeName) -> tuple[str, int]:
        return self.addresses[name]

    def know(self, name: NodeName, host: str, port: int) -> None:
        """`name` listens at host and (gossip) port; dial it if we do not yet."""
        if name == self.hello()["node"]:
            return
        self.addresses[name] = (host, port)
        if name not in self._links:
            self._links[name] = (Link(self, name, "control"), Link(self, name, "bulk"))
            for link in self._links[name]:
                link.dial()

    def welcome(self, hello: dict[str, Any]) -> bool:
        mine = self.hello()["cluster"]
        if mine and hello["cluster"] and hello["cluster"] != mine:
            self.log.warn(
                "NEB-1205 {node} at {host}:{port} belongs to cluster {theirs}, this node to {mine}: refused. Remove it"
                " from --peers, or give it an empty --data-dir to join this cluster.",
                node=hello["node"], host=hello["host"], port=hello["port"], theirs=hello["cluster"], mine=mine,
            )  # fmt: skip
            return False
        return True

    def met(self, hello: dict[str, Any]) -> None:
        """A hello came, on whichever connection: it is the newest word on that peer."""
        self.know(hello["node"], hello["host"], hello["port"])
        for link in self._links.get(hello["node"], ()):
            if link.remote is not None and link.remote["incarnation"] == hello["incarnation"]:
                link.remote = hello
        self.on_met(hello)

    def hellos(self) -> dict[NodeName, dict[str, Any]]:
        """The last hello of every peer whose control link is up."""
        up = ((name, links[0]) for name, links in self._links.items())
        return {name: link.remote for name, link in up if link.protocol_now is not None and link.remote is not None}

    def up(self, name: NodeName) -> bool:
        """Is the control link to `name` up?"""
        links = self._links.get(name)
        return links is not None and links[0].protocol_now is not None

    def greet_again(self) -> None:
        """Our identity changed: tell everybody."""
        for links in self._links.values():
            for link in links:
                if link.protocol_now is not None:
                    link.protocol_now.send_json(b"H", self.hello())

    def connected(self, voter: Voter) -> bool:
        hello = self.hellos().get(voter.node)
        return hello is not None and hello["incarnation"] == voter.incarnation

    def send(self, to: Voter, group: GroupID, message: Any) -> None:
        links = self._links.get(to.node)
        if links is None:
            return
        link = links[isinstance(message, (Append, Install))]
        if link.remote is not None and link.remote["incarnation"] == to.incarnation:
            link.queue(codec.encode(group, message))

    def flush(self) -> None:
        for control, bulk in self._links.values():
            control.flush()
            bulk.flush()

    def call(self, name: NodeName, method: str, params: Any) -> Deferred[Any]:
        if name not in self._links:
            gone: Deferred[Any] = Deferred()
            gone.errback(PeerGone(f"{name} is not known"))
            return gone
        return self._links[name][0].call(method, params)

    def call_received(self, protocol: PeerProtocol, call: dict[str, Any]) -> None:
        def answer(body: dict[str, Any]) -> None:
            if protocol.open:
                protocol.send_json(b"A", {"id": call["id"], **body})

        self.on_call(call["method"], call["params"]).addCallbacks(
            lambda result: answer({"result": result}), lambda failure: answer({"error": str(failure.value)})
        )

    def stop(self) -> None:
        for links in self._links.values():
            for link in links:
                link.stop()
        for protocol in list(self.accepted):
            protocol.transport.abortConnection()
