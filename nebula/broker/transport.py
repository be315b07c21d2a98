"""Frames over TCP without a copy: bytes are received into the frame's own buffer and sent from where they lie.

`FramedProtocol` is what the broker's protocols are made of. Over `listen_tcp` and `connect_tcp` it reads by `recv_into`
and writes by `sendmsg`; over any other transport (TLS, StringTransport) it does the same through `dataReceived` and
`transport.write`, with a copy.

Rules:

1. What is given to `send` leaves in that order and must not be changed until it has left.
2. A send after the end of the connection does nothing: whoever answers late need not know.
3. No queue is unbounded. Above HIGH_WATER the protocol is told (`send_blocked`) and should read no more requests;
   above `max_pending` the connection is aborted, for its peer takes nothing.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

from twisted.internet import main, tcp
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from nebula.model import Buffer, DecodeError
from nebula.wire.frames import FrameReader

HIGH_WATER = 4 << 20
"""Bytes queued at which `send_blocked` is called: some ms of a fast link, many answers of a slow one."""

LOW_WATER = 1 << 20
"""Bytes queued at which `send_resumed` is called: enough that the link never runs dry meanwhile."""

RECEIVES = 4
"""recv calls per readiness of a socket: drains a burst, and lets the other connections have their turn."""

WRITE_LIMIT = 1 << 20
"""Bytes after which one connection lets the others write."""

IOV_LIMIT = 512
"""Chunks per sendmsg; Linux takes 1024, and gains nothing above some hundred."""

CONGESTION = b"cubic"
"""bbr, the default of some systems, is 1.05 to 3 times slower on loopback and in a data centre (PERFORMANCE §3.7)."""


class FramedProtocol(Protocol):
    """One connection of length-prefixed frames. Subclasses say what a frame means."""

    log = Logger()
    max_frame: int = 1 << 20
    """Longest frame taken; a longer one ends the connection before anything is allocated."""
    max_pending: int = 512 << 20
    """Most bytes queued: several largest answers. Beyond, the peer is taken for dead and the connection aborted."""
    pending_bytes: int = 0
    """Bytes given to `send` that no transport has taken yet."""

    _frames: FrameReader
    _transport: Any = None
    _writer: GatherTransport | _StockWriter | None = None
    _blocked = False
    _reading = True

    def frame_received(self, frame: memoryview) -> None:
        """A whole frame without its length. The view is writable and stays valid as long as it is kept."""
        raise NotImplementedError

    def frame_error(self, error: DecodeError) -> None:
        """The bytes are no frames, so nothing behind them can be understood."""
        self.log.warn("{peer} sent no valid frame: {error}", peer=self._peer(), error=error)
        self._abort()

    def send_blocked(self) -> None:
        """More than HIGH_WATER is queued: the peer reads slower than we answer."""

    def send_resumed(self) -> None:
        """Less than LOW_WATER is queued again."""

    def send(self, chunks: Sequence[Buffer]) -> None:
        """Send byte buffers one behind the other, at once as far as the socket takes them."""
        if self._writer is not None:
            self._writer.send(chunks)

    def pause(self) -> None:
        """Read no more from the socket. Frames that were read already still arrive: at most a buffer of them."""
        self._reading = False
        if self._writer is not None:
            self._transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self._reading = True
        if self._writer is not None:
            self._transport.resumeProducing()

    # Twisted's side

    def makeConnection(self, transport: Any) -> None:
        """Set up before connectionMade, so that subclasses are free to override that."""
        self._frames = FrameReader(self.max_frame)
        self._reading = True
        self._transport = transport
        if isinstance(transport, GatherTransport):
            self._writer = transport
            transport.attach(self)
        else:
            self._writer = _StockWriter(self, transport)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """Bytes from a transport that is not ours."""
        try:
            frames = self._frames.feed(data)
        except DecodeError as error:
            self.frame_error(error)
            return
        self._deliver(frames)

    def _deliver(self, frames: Sequence[memoryview]) -> None:
        for frame in frames:
            if self._writer is None:
                return  # the frame before this one ended the connection
            self.frame_received(frame)

    def _lost(self) -> None:
        """The transport is gone: drop the way out, and with it every later send and frame."""
        self._writer = None
        self.pending_bytes = 0

    def _pending(self, nbytes: int) -> None:
        """The writer's queue is now `nbytes` long."""
        self.pending_bytes = nbytes
        if nbytes > HIGH_WATER:
            if nbytes > self.max_pending:
                text = "{peer} does not read: {nbytes} bytes are queued"
                self.log.warn(text, peer=self._peer(), nbytes=nbytes)
                self._abort()
            elif not self._blocked:
                self._blocked = True
                self.send_blocked()
        elif self._blocked and nbytes < LOW_WATER:
            self._blocked = False
            self.send_resumed()

    def _abort(self) -> None:
        transport = self._transport
        self._lost()
        if hasattr(transport, "abortConnection"):
            transport.abortConnection()
        else:
            transport.loseConnection()

    def _peer(self) -> object:
        return self._transport.getPeer()


@implementer(IPushProducer)
class _StockWriter:
    """The way out over a transport that is not ours. It copies, and queues here while that transport is full.

    It is registered as the transport's producer only while it is full: TLS closes only once no producer is left.
    """

    def __init__(self, protocol: FramedProtocol, transport: Any) -> None:
        self._protocol = protocol
        self._transport = transport
        self._queue: list[Buffer] = []
        self._pending = 0
        self._full = False

    def send(self, chunks: Sequence[Buffer]) -> None:
        """Hand on, or queue."""
        self._queue.extend(chunks)
        self._pending += sum(map(len, chunks))
        if not self._full:
            self._transport.registerProducer(self, True)
            self._flush()
        self._protocol._pending(self._pending)

    def _flush(self) -> None:
        data, self._queue, self._pending = b"".join(self._queue), [], 0
        self._transport.write(data)
        if not self._full:
            self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """The transport holds as much as it wants."""
        self._full = True

    def resumeProducing(self) -> None:
        """The transport has written what it held."""
        if self._full:
            self._full = False
            self._flush()
            self._protocol._pending(self._pending)

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._protocol._lost()


class GatherTransport(tcp.Connection):
    """Mixin over Twisted's TCP connections. Without a FramedProtocol it behaves as they do."""

    def attach(self, protocol: FramedProtocol) -> None:
        """Read into the frames of `protocol` and tell it about the queue."""
        self._framed = protocol
        tune_socket(self.socket)

    _framed: FramedProtocol | None = None
    _queued = 0
    _chunks_made: deque[Buffer] | None = None

    @property
    def _chunks(self) -> deque[Buffer]:
        """What the socket has not taken. Made late, for Twisted calls several constructors along several paths."""
        if self._chunks_made is None:
            self._chunks_made = deque()
        return self._chunks_made

    def doRead(self) -> Any:
        """Receive straight into frames; deliver those that became whole."""
        protocol = self._framed
        if protocol is None or self.TLS:
            return super().doRead()
        frames = protocol._frames
        for _ in range(RECEIVES):
            room = frames.buffer()
            try:
                size = self.socket.recv_into(room)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                return main.CONNECTION_LOST
            if not size:
                return main.CONNECTION_DONE
            whole = size < len(room)
            try:
                ready = frames.filled(size)
            except DecodeError as error:
                protocol.frame_error(error)
                return None
            if ready:
                protocol._deliver(ready)
            if whole or not protocol._reading or not self.connected or self.disconnecting or self._aborting:
                return None
        return None

    def send(self, chunks: Sequence[Buffer]) -> None:
        """Write through when nothing is queued, queue behind it otherwise."""
        if not self.connected or self._aborting or self._writeDisconnected:
            return
        queue = self._chunks
        idle = not queue
        queue.extend(chunks)
        self._queued += sum(map(len, chunks))
        if idle:
            self._gather()  # a dead socket shows again in doWrite, which can end the connection: here we are inside it
            if queue:
                self.startWriting()  # type: ignore[no-untyped-call]
        self._report()

    def write(self, data: bytes) -> None:
        """Twisted's write, kept in order with `send`."""
        if data:
            self.send((data,))
            self._maybePauseProducer()  # type: ignore[no-untyped-call]

    def writeSequence(self, iovec: Any) -> None:
        """Twisted's writeSequence, kept in order with `send`."""
        self.send([data for data in iovec if data])
        self._maybePauseProducer()  # type: ignore[no-untyped-call]

    def _isSendBufferFull(self) -> bool:
        return self._queued > self.bufferSize

    def doWrite(self) -> Any:
        """Write what is queued; once it is empty, what Twisted does then (close, wake a producer, stop writing)."""
        lost = self._gather()
        if lost is not None:
            return lost
        if self._chunks:
            self._report()
            return None
        ended = super().doWrite()  # type: ignore[no-untyped-call]
        if ended is None:
            self._report()
        return ended

    def writeSomeData(self, data: bytes) -> Any:
        """Called with the stock queue, which is always empty: no system call."""
        return super().writeSomeData(data) if data else 0

    def _gather(self) -> Exception | None:
        """Give the socket what it takes, up to WRITE_LIMIT. The error, if the connection is broken."""
        queue, left = self._chunks, WRITE_LIMIT
        while queue and left > 0:
            batch = list(queue) if len(queue) <= IOV_LIMIT else list(islice(queue, IOV_LIMIT))
            try:
                sent = self.socket.sendmsg(batch)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                return main.CONNECTION_LOST
            self._queued -= sent
            left -= sent
            if self._drop(sent, batch):
                return None
        return None

    def _drop(self, sent: int, batch: Sequence[Buffer]) -> bool:
        """Take `sent` bytes off the queue; True if the socket took only a part of `batch`."""
        for chunk in batch:
            size = len(chunk)
            if sent < size:
                if sent:
                    self._chunks[0] = memoryview(chunk)[sent:]
                return True
            sent -= size
            self._chunks.popleft()
        return False

    def _report(self) -> None:
        protocol = self._framed
        if protocol is not None and (protocol.pending_bytes or self._queued):
            protocol._pending(self._queued)

    def abortConnection(self) -> None:
        """Drop the connection and what is queued; no frame arrives any more."""
        if self._framed is not None:
            self._framed._lost()
        super().abortConnection()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """The end: the buffers in the queue are let go."""
        self._chunks.clear()
        self._queued = 0
        if self._framed is not None:
            self._framed._lost()
        super().connectionLost(reason)


def tune_socket(sock: socket.socket) -> None:
    """Answers leave at once, and by the congestion control that suits a data centre where the system allows."""
    for option, value in ((socket.TCP_NODELAY, 1), (getattr(socket, "TCP_CONGESTION", None), CONGESTION)):
        try:
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        except OSError:
            pass  # a kernel without cubic, or a socket already gone: both are found out elsewhere, if they matter


class GatherServer(GatherTransport, tcp.Server):
    """An accepted connection."""


class GatherClient(GatherTransport, tcp.Client):
    """A connection that we made."""


class GatherPort(tcp.Port):
    """A listening socket whose connections are ours."""

    transport = GatherServer


class GatherConnector(tcp.Connector):
    """Makes one connection of ours."""

    def _makeTransport(self) -> tcp.Client:
        return GatherClient(self.host, self.port, self.bindAddress, self, self.reactor)  # type: ignore[no-untyped-call]


def listen_tcp(reactor: Any, host: str, port: int, factory: Any, backlog: int = 1024) -> tcp.Port:
    """Listen; raises twisted.internet.error.CannotListenError. Port 0 takes any; getHost().port says which."""
    listening = GatherPort(port, factory, backlog, host, reactor)
    listening.startListening()
    return listening


def connect_tcp(reactor: Any, host: str, port: int, factory: Any, timeout: float = 5.0) -> tcp.Connector:
    """Connect; the factory (a ClientFactory) hears how it went."""
    connector = GatherConnector(host, port, factory, timeout, None, reactor)
    connector.connect()
    return connector
