"""GossipProtocol: GossipCluster over UDP. Datagrams and time in, datagrams and events out; nothing is decided here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from nebula.gossip import GossipCluster
from nebula.model import NodeName

TICK = 0.1
"""Seconds; shorter than a probe's timeout, and cheap."""
RESOLVED_FOR = 30.0
"""Seconds for which a resolved address is used: a changed DNS entry is found soon, without a lookup per ping."""
MAX_NAMES = 1024
"""Host names remembered; members may advertise names, and a bound holds whatever they say."""


class GossipProtocol(DatagramProtocol):
    """One node's gossip. `reactor.listenUDP(port, protocol, host)` starts it, and raises if it cannot listen.

    :param on_event: called with (name, "alive" | "suspect" | "dead" | "left" | "updated").
    :param seconds: a clock that is never set; the one `cluster` was made with.
    """

    log = Logger()
    noisy = False

    def __init__(
        self,
        cluster: GossipCluster,
        reactor: Any,
        on_event: Callable[[NodeName, str], object],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cluster = cluster
        self._reactor = reactor
        self._on_event = on_event
        self._seconds = seconds
        self._timer: Any = None
        self._stopped = False
        self._resolved: dict[str, tuple[str, float]] = {}
        """Host name → (address, or "" while it is looked up or if it is unknown; when to look again)."""

    def start(self) -> None:
        """Begin to tick; done by `startProtocol` when the port listens."""
        if self._timer is None and not self._stopped:
            self._tick()

    def stop(self) -> None:
        """Say good-bye and be silent. The port is the caller's to close."""
        if self._stopped:
            return
        self._cancel()
        self.cluster.leave(self._seconds())
        self.flush()
        self._stopped = True

    def flush(self) -> None:
        """Send what the cluster wants to say and tell what it found: after any call to `cluster` from outside."""
        for data, (host, port) in self.cluster.outgoing():
            address = self._address(host)
            if address:
                self._write(data, (address, port))
        for name, what in self.cluster.events():
            try:
                self._on_event(name, what)
            except Exception:
                self.log.failure("gossip: telling that {name} is {what} failed", name=name, what=what)

    # ── Twisted's hooks ─────────────────────────────────────────────────────────────────────────────────────────────

    def startProtocol(self) -> None:
        self.start()

    def stopProtocol(self) -> None:
        """The port is closed, in order or not: nothing can be sent any more."""
        self._cancel()
        self._stopped = True

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        if not self._stopped:
            self.cluster.receive(data, addr, self._seconds())
            self.flush()

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tick(self) -> None:
        self._timer = self._reactor.callLater(TICK, self._tick)
        self.cluster.tick(self._seconds())
        self.flush()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self, data: bytes, address: tuple[str, int]) -> None:
        if self.transport is None or self._stopped:
            return
        try:
            self.transport.write(data, address)
        except (OSError, ValueError) as error:  # no route, a full buffer, a wrong family: UDP may lose anything
            self.log.debug("gossip: nothing sent to {address}: {error}", address=address, error=error)

    def _address(self, host: str) -> str:
        """The address of `host`; empty while it is not known, so that what is sent there is lost, as UDP may."""
        if isIPAddress(host) or isIPv6Address(host):
            return host
        known, until = self._resolved.get(host, ("", 0.0))
        now = self._seconds()
        if now >= until and (host in self._resolved or len(self._resolved) < MAX_NAMES):
            self._resolved[host] = (known, now + RESOLVED_FOR)
            self._reactor.resolve(host).addCallbacks(self._found, self._unknown, (host,), errbackArgs=(host,))
            known, _ = self._resolved[host]  # a resolver may answer at once
        return known

    def _found(self, address: str, host: str) -> None:
        self._resolved[host] = (address, self._seconds() + RESOLVED_FOR)

    def _unknown(self, failure: Failure, host: str) -> None:
        """Keep the old address: a resolver that is down must not take gossip with it. Ask again soon."""
        self.log.warn("gossip: cannot resolve {host}: {error}", host=host, error=failure.getErrorMessage())
        self._resolved[host] = (self._resolved[host][0], self._seconds() + 2.0)
