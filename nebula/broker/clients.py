"""NodeServer: the length-prefixed client protocol. Kafka's wire protocol over our own framing.

Answers leave in request order per connection (gotcha 7). A request that waits (a long-poll fetch, a publish before its
commit) holds back the answers behind it, never the requests: publishes are pipelined. Reading pauses while too many
answers are owed or too many bytes are queued (gotcha 9).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from nebula import wire
from nebula.broker.transport import FramedProtocol
from nebula.model import Buffer, DecodeError

MAX_FRAME = 100 << 20
"""socket.request.max.bytes of Kafka."""
MAX_OWED = 256
"""Answers owed to one connection before reading pauses; librdkafka pipelines far fewer."""


class Answer:
    """A place in the row of answers: filled when the request is done."""

    __slots__ = ("chunks", "done")

    def __init__(self) -> None:
        self.done = False
        self.chunks: list[Buffer] = []


class ClientProtocol(FramedProtocol):
    """One client connection."""

    max_frame = MAX_FRAME
    log = Logger()
    transport: Any

    def __init__(self, server: NodeServer) -> None:
        super().__init__()
        self._server = server
        self._row: deque[Answer] = deque()
        self._paused = False
        self._blocked = False
        self.open = False
        self.client_id: str | None = None
        """Of the latest request."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.open = True
        self._server.connections.add(self)
        host = self.transport.getHost()
        self.local = (host.host, host.port)
        self.peer_host = "/" + str(getattr(self.transport.getPeer(), "host", ""))
        """As Kafka shows it: a slash, then the address."""

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self.open = False
        self._server.connections.discard(self)
        self._row.clear()

    def frame_received(self, frame: memoryview) -> None:
        try:
            request = wire.decode_request(frame)
        except wire.UnsupportedVersion as unsupported:
            self._unsupported(unsupported)
            return
        self.client_id = request.client_id
        answer = Answer()
        self._row.append(answer)
        if len(self._row) >= MAX_OWED:
            self._hold()
        try:
            outcome = self._server.dispatch(request, self)
        except Exception:
            self._failed(Failure(), request)
            return
        if isinstance(outcome, Deferred):
            outcome.addCallbacks(self._answered, self._failed, (answer, request), {}, (request,))
        else:
            self._answered(outcome, answer, request)

    def _unsupported(self, unsupported: wire.UnsupportedVersion) -> None:
        """ApiVersions gets its version-0 answer with error 35 (KIP-511); anything else closes, as Kafka does."""
        if unsupported.api_key != 18:
            self.transport.loseConnection()
            return
        low, high = wire.SERVED[18]
        body = {"error_code": 35, "api_keys": [{"api_key": 18, "min_version": low, "max_version": high}]}
        answer = Answer()
        answer.chunks, answer.done = wire.encode_response(18, 0, unsupported.correlation_id, body), True
        self._row.append(answer)
        self._flush()

    def _answered(self, body: Any, answer: Answer, request: wire.Request) -> None:
        if body is not None:
            try:
                answer.chunks = wire.encode_response(request.api_key, request.version, request.correlation_id, body)
            except Exception:
                self._failed(Failure(), request)
                return
        answer.done = True
        self._flush()

    def _failed(self, failure: Failure, request: wire.Request) -> None:
        """A bug, or acks=0 refused: the connection is closed, never left waiting."""
        if not failure.check(DecodeError, CloseConnection):
            self.log.failure("request {api} v{v} failed", failure, api=request.api_key, v=request.version)
        if self.open:
            self.transport.abortConnection()

    def _flush(self) -> None:
        """Send every answer at the head of the row that is done, in one burst."""
        row, burst = self._row, []
        while row and row[0].done:
            burst.extend(row.popleft().chunks)
        if burst and self.open:
            self._server.burst(self, burst)
        if self._paused and not self._blocked and len(row) < MAX_OWED // 2:
            self._paused = False
            self.resume()

    def _hold(self) -> None:
        if not self._paused:
            self._paused = True
            self.pause()

    def send_blocked(self) -> None:
        self._blocked = True
        self._hold()

    def send_resumed(self) -> None:
        self._blocked = False
        if len(self._row) < MAX_OWED // 2 and self._paused:
            self._paused = False
            self.resume()


class CloseConnection(Exception):
    """The protocol's only answer here is to close (acks=0 that failed: gotcha 8)."""


class NodeServer(Factory):
    """Factory of client connections; gathers the answers of one turn into one send per connection."""

    noisy = False

    def __init__(
        self, dispatch: Callable[[wire.Request, ClientProtocol], Any], at_turn_end: Callable[[Callable[[], None]], None]
    ) -> None:
        self.dispatch = dispatch
        self.connections: set[ClientProtocol] = set()
        self._at_turn_end = at_turn_end
        self._bursts: dict[ClientProtocol, list[Buffer]] = {}

    def buildProtocol(self, addr: Any) -> ClientProtocol:
        return ClientProtocol(self)

    def burst(self, connection: ClientProtocol, chunks: list[Buffer]) -> None:
        """Queue answers until the end of the turn: pipelined publishes are answered with one system call."""
        if not self._bursts:
            self._at_turn_end(self._send)
        self._bursts.setdefault(connection, []).extend(chunks)

    def _send(self) -> None:
        bursts, self._bursts = self._bursts, {}
        for connection, chunks in bursts.items():
            if connection.open:
                connection.send(chunks)

    def close_all(self) -> None:
        for connection in list(self.connections):
            connection.transport.abortConnection()
