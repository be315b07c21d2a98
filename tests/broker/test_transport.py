"""Frames over our transports and over stock ones: whole, in order, uncopied, bounded."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from nebula.broker.transport import HIGH_WATER, FramedProtocol, connect_tcp, listen_tcp
from nebula.model import Buffer, DecodeError


def framed(body: bytes) -> bytes:
    """`body` as a frame."""
    return struct.pack(">i", len(body)) + body


class Recorder(FramedProtocol):
    """Keeps all that happens to it."""

    max_frame = 8 << 20

    def __init__(self) -> None:
        self.frames: list[memoryview] = []
        self.events: list[str] = []
        self.act: Callable[[memoryview], object] = lambda frame: None

    def frame_received(self, frame: memoryview) -> None:
        self.frames.append(frame)
        self.act(frame)

    def send_blocked(self) -> None:
        self.events.append("blocked")

    def send_resumed(self) -> None:
        self.events.append("resumed")

    def connectionLost(self, reason: Any = None) -> None:
        self.events.append("lost")


class RecordingSocket:
    """A socket that notes the very buffers it is given, and takes at most `limit` bytes of them."""

    def __init__(self, real: socket.socket, limit: int = 1 << 30) -> None:
        self.real = real
        self.limit = limit
        self.given: list[list[Buffer]] = []

    def sendmsg(self, buffers: Sequence[Buffer]) -> int:
        self.given.append(list(buffers))
        size = sum(map(len, buffers))
        return self.real.sendmsg(buffers) if size <= self.limit else self.real.send(b"".join(buffers)[: self.limit])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Broken(RecordingSocket):
    """A socket whose peer has gone."""

    def sendmsg(self, buffers: Sequence[Buffer]) -> int:
        raise BrokenPipeError(32, "Broken pipe")


class OwnTransportTests(SynchronousTestCase):
    """Real sockets on loopback, turned by hand."""

    def setUp(self) -> None:
        self.reactor = SelectReactor()
        self.addCleanup(self._close)
        self.servers: list[Recorder] = []
        self.client = Recorder()
        self.port = listen_tcp(self.reactor, "127.0.0.1", 0, Factory.forProtocol(self._server), 5)
        self.addCleanup(self.port.connectionLost, None)
        factory = ClientFactory()
        factory.noisy = False
        factory.buildProtocol = lambda address: self.client
        self.connector = connect_tcp(self.reactor, "127.0.0.1", self.port.getHost().port, factory, 5)
        self.turn_until(lambda: bool(self.servers) and self.client.connected == 1)
        self.server = self.servers[0]

    def _server(self) -> Recorder:
        self.servers.append(Recorder())
        return self.servers[-1]

    def _close(self) -> None:
        for protocol in (self.client, *self.servers):
            if protocol.transport is not None:
                protocol.transport.abortConnection()
        self.reactor.runUntilCurrent()
        self.reactor.removeAll()
        for reader in list(self.reactor._internalReaders):
            reader.connectionLost(None)

    def turn(self) -> None:
        """One turn of the reactor; waits for a socket 10 ms at most."""
        self.reactor.runUntilCurrent()
        self.reactor.doIteration(0.01)

    def turn_until(self, condition: Callable[[], bool]) -> None:
        """Turn the reactor until `condition` holds."""
        for _ in range(3000):
            if condition():
                return
            self.turn()
        self.fail("it never happened")

    def test_both_ways(self) -> None:
        """Broken: nothing works."""
        self.client.send([framed(b"ping")])
        self.turn_until(lambda: bool(self.server.frames))
        self.server.send([framed(b"pong")])
        self.turn_until(lambda: bool(self.client.frames))
        self.assertEqual([bytes(self.server.frames[0]), bytes(self.client.frames[0])], [b"ping", b"pong"])

    def test_options(self) -> None:
        """Broken: small answers wait for Nagle's algorithm (40 ms)."""
        for protocol in (self.client, self.server):
            self.assertTrue(protocol.transport.getTcpNoDelay())

    def test_frames_writable_and_lasting(self) -> None:
        """Broken: a batch cannot be stamped in place, or changes when the next frame arrives."""
        bodies = [bytes([number]) * size for number, size in enumerate((1, 70, 5000, 300_000, 2, 2_000_000, 9))]
        for body in bodies:
            self.client.send([framed(body)])
        self.turn_until(lambda: len(self.server.frames) == len(bodies))
        self.assertEqual([bytes(frame) for frame in self.server.frames], bodies)
        self.assertFalse(any(frame.readonly for frame in self.server.frames))

    def test_split_at_every_byte(self) -> None:
        """Broken: a frame cut by the network where nobody thought of is lost or garbled."""
        message = framed(b"first") + framed(b"-") + framed(b"the second")
        raw = self.client.transport.getHandle()
        for cut in range(1, len(message)):
            self.server.frames.clear()
            raw.send(message[:cut])
            self.turn()
            raw.send(message[cut:])
            self.turn_until(lambda: len(self.server.frames) == 3)
            self.assertEqual([bytes(frame) for frame in self.server.frames], [b"first", b"-", b"the second"])

    def test_very_buffers_reach_sendmsg(self) -> None:
        """Broken: record bytes are copied on their way out."""
        transport = self.client.transport
        transport.socket = recording = RecordingSocket(transport.socket)
        chunks: list[Buffer] = [struct.pack(">i", 6), memoryview(bytearray(b"abc")), bytearray(b"def")]
        self.client.send(chunks)
        self.assertEqual(len(recording.given), 1)
        self.assertTrue(all(one is other for one, other in zip(recording.given[0], chunks, strict=True)))
        self.assertEqual(self.client.pending_bytes, 0)

    def test_short_sends_keep_order(self) -> None:
        """Broken: what a busy socket takes by halves arrives doubled, cut or out of order."""
        transport = self.client.transport
        transport.socket = RecordingSocket(transport.socket, limit=7)
        bodies = [b"%d" % number * (number % 9 + 1) for number in range(60)]
        for body in bodies:
            self.client.send([framed(body)[:4], memoryview(body)])
        self.turn_until(lambda: len(self.server.frames) == len(bodies))
        self.assertEqual([bytes(frame) for frame in self.server.frames], bodies)
        self.assertEqual(self.client.pending_bytes, 0)

    def test_more_chunks_than_one_sendmsg_takes(self) -> None:
        """Broken: a burst of small answers fails with EMSGSIZE."""
        self.client.send([framed(b"%d" % number) for number in range(3000)])
        self.turn_until(lambda: len(self.server.frames) == 3000)
        self.assertEqual(bytes(self.server.frames[-1]), b"2999")

    def test_slow_reader(self) -> None:
        """Broken: a client that does not read fills the broker's memory, and nobody is told."""
        self.server.pause()
        body = framed(bytes(1 << 20))
        sent = 0
        while "blocked" not in self.client.events:
            self.client.send([body])
            sent += 1
            self.assertLess(sent, 100)
        self.assertGreater(self.client.pending_bytes, HIGH_WATER)
        self.assertLessEqual(self.client.pending_bytes, HIGH_WATER + len(body))
        self.server.resume()
        self.turn_until(lambda: len(self.server.frames) == sent)
        self.turn_until(lambda: self.client.pending_bytes == 0)
        self.assertEqual(self.client.events, ["blocked", "resumed"])

    def test_reader_that_never_reads_is_dropped(self) -> None:
        """Broken: a dead peer holds memory without limit."""
        self.client.max_pending = 16 << 20
        self.server.pause()
        for _ in range(60):
            self.client.send([bytes(1 << 20)])
        self.turn_until(lambda: "lost" in self.client.events)
        self.assertEqual(self.client.pending_bytes, 0)

    def test_pause(self) -> None:
        """Broken: a connection with too many requests open goes on reading more."""
        self.server.pause()
        self.client.send([framed(b"x")])
        for _ in range(5):
            self.turn()
        self.assertEqual(self.server.frames, [])
        self.server.resume()
        self.turn_until(lambda: len(self.server.frames) == 1)

    def test_send_after_the_end(self) -> None:
        """Broken: an answer that comes after its client has gone raises in the middle of a turn."""
        self.client.transport.abortConnection()
        self.client.send([framed(b"x")])
        self.turn_until(lambda: "lost" in self.client.events and "lost" in self.server.events)
        self.client.send([framed(b"x")])
        self.server.send([framed(b"x")])
        self.server.pause()
        self.server.resume()
        self.assertEqual((self.server.frames, self.server.pending_bytes), ([], 0))

    def test_broken_pipe_ends_the_connection_later(self) -> None:
        """Broken: connectionLost runs inside send, while its caller is at work; or never."""
        transport = self.client.transport
        transport.socket = Broken(transport.socket)
        self.client.send([framed(b"x")])
        self.assertEqual(self.client.events, [])
        self.turn_until(lambda: self.client.events == ["lost"])

    def test_lose_connection_flushes(self) -> None:
        """Broken: the answer that explains why a connection closes is not sent."""
        body = bytes(6 << 20)
        self.client.send([framed(body)])
        self.client.transport.loseConnection()
        self.turn_until(lambda: "lost" in self.server.events)
        self.assertEqual([len(frame) for frame in self.server.frames], [len(body)])

    def test_stock_write_keeps_order(self) -> None:
        """Broken: bytes written Twisted's way overtake frames."""
        self.client.send([framed(bytes(5 << 20))])
        self.client.transport.write(framed(b"a"))
        self.client.transport.writeSequence([framed(b"b"), framed(b"c")])
        self.client.send([framed(b"d")])
        self.turn_until(lambda: len(self.server.frames) == 5)
        self.assertEqual([bytes(frame) for frame in self.server.frames[1:]], [b"a", b"b", b"c", b"d"])

    def test_frame_error_aborts(self) -> None:
        """Broken: a length of 2 GiB is allocated, or garbage behind it is read as frames."""
        self.client.send([struct.pack(">i", 0x7FFFFFFF) + framed(b"x")])
        self.turn_until(lambda: "lost" in self.server.events)
        self.assertEqual(self.server.frames, [])

    def test_no_frame_after_abort(self) -> None:
        """Broken: requests behind a refused one are still carried out."""
        self.server.act = lambda frame: self.server.transport.abortConnection()
        self.client.send([framed(b"bad") + framed(b"next")])
        self.turn_until(lambda: "lost" in self.server.events)
        self.assertEqual(len(self.server.frames), 1)

    def test_cannot_listen(self) -> None:
        """Broken: a port that is taken is not reported as such."""
        taken = self.port.getHost().port
        self.assertRaises(CannotListenError, listen_tcp, self.reactor, "127.0.0.1", taken, Factory(), 5)


class StockTransportTests(SynchronousTestCase):
    """A transport that is not ours, as under TLS."""

    def setUp(self) -> None:
        self.protocol = Recorder()
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)

    def test_split_at_every_byte(self) -> None:
        """Broken: frames over TLS are cut wrongly."""
        message = framed(b"first") + framed(b"-") + framed(b"second")
        for cut in range(len(message) + 1):
            self.protocol.frames.clear()
            self.protocol.dataReceived(message[:cut])
            self.protocol.dataReceived(message[cut:])
            self.assertEqual([bytes(frame) for frame in self.protocol.frames], [b"first", b"-", b"second"])
            self.assertFalse(any(frame.readonly for frame in self.protocol.frames))

    def test_memoryviews(self) -> None:
        """Broken: transport.write refuses the views that our own transport takes."""
        self.protocol.send([b"ab", memoryview(bytearray(b"cd"))])
        self.assertEqual((self.transport.value(), self.transport.producer), (b"abcd", None))

    def test_full_transport(self) -> None:
        """Broken: a slow TLS client fills the broker's memory, and nobody is told."""
        real, full = self.transport.write, [True]

        def write(data: bytes) -> None:
            real(data)
            if full[0]:
                self.transport.producer.pauseProducing()

        self.transport.write = write
        self.protocol.send([b"x"])
        self.protocol.send([bytes(HIGH_WATER), b"y"])
        self.assertEqual((self.transport.value(), self.protocol.pending_bytes), (b"x", HIGH_WATER + 1))
        full[0] = False
        self.transport.producer.resumeProducing()
        self.assertEqual(self.protocol.events, ["blocked", "resumed"])
        self.assertEqual((len(self.transport.value()), self.protocol.pending_bytes), (HIGH_WATER + 2, 0))
        self.assertIsNone(self.transport.producer)

    def test_frame_error(self) -> None:
        """Broken: garbage over TLS keeps its connection."""
        errors: list[DecodeError] = []
        self.protocol.frame_error = errors.append
        self.protocol.dataReceived(struct.pack(">i", -5) + b"xxxx")
        self.assertEqual(len(errors), 1)

    def test_frame_error_aborts(self) -> None:
        """Broken: the default does not close, so the next bytes are read as frames."""
        self.protocol.dataReceived(struct.pack(">i", 0x7FFFFFFF))
        self.assertTrue(self.transport.disconnected or self.transport.disconnecting)

    def test_pause(self) -> None:
        """Broken: a busy TLS client cannot be held back."""
        self.protocol.pause()
        self.assertEqual(self.transport.producerState, "paused")
        self.protocol.resume()
        self.assertEqual(self.transport.producerState, "producing")
