"""GossipProtocol: the datagrams of GossipCluster. All thinking is in `nebula.gossip`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from nebula.gossip import GossipCluster
from nebula.model import NodeName

TICK = 0.1


class GossipProtocol(DatagramProtocol):
    """UDP on port P."""

    noisy = False

    def __init__(self, cluster: GossipCluster, reactor: Any, on_event: Callable[[NodeName, str], None]) -> None:
        self.cluster = cluster
        self._reactor = reactor
        self._on_event = on_event
        self._timer: Any = None

    def startProtocol(self) -> None:
        self._timer = self._reactor.callLater(0, self._tick)

    def _tick(self) -> None:
        self._timer = self._reactor.callLater(TICK, self._tick)
        self.cluster.tick(time.monotonic())
        self._flush()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.cluster.receive(datagram, (addr[0], addr[1]), time.monotonic())
        self._flush()

    def _flush(self) -> None:
        if self.transport is not None:
            for data, address in self.cluster.outgoing():
                try:
                    self.transport.write(data, address)
                except OSError:
                    continue  # a datagram that cannot leave is a lost datagram
        for name, what in self.cluster.events():
            self._on_event(name, what)

    def stop(self) -> None:
        """Leave, so that nobody has to suspect this node."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self.cluster.leave(time.monotonic())
        self._flush()
