"""Length-prefixed frames, sans I/O: the reader names the memory that the next bytes belong into.

A large frame is received straight into its own buffer, so its record bytes are written once; small frames are cut out of
a shared block. Every frame handed out owns writable memory that no later read touches.
"""

from __future__ import annotations

import struct

from nebula.model import DecodeError

LENGTH = struct.Struct(">i")
BLOCK = 64 << 10
LARGE = 16 << 10
"""A frame that needs this much more gets a buffer of its own."""


class FrameReader:
    """Cuts a stream of bytes into frames (without their length)."""

    def __init__(self, max_frame: int) -> None:
        self._max = max_frame
        self._block = bytearray(BLOCK)
        self._view = memoryview(self._block)
        self._have = 0
        self._own: memoryview | None = None
        self._got = 0

    def buffer(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        return self._own[self._got :] if self._own is not None else self._view[self._have :]

    def filled(self, count: int) -> list[memoryview]:
        """`count` bytes were written into `buffer()`: the frames that are complete now.

        :raises DecodeError: a length that is negative, zero or above the bound.
        """
        if self._own is None:
            self._have += count
            return self._cut()
        self._got += count
        if self._got < len(self._own):
            return []
        frame, self._own = self._own, None
        return [frame]

    def feed(self, data: bytes) -> list[memoryview]:
        """The same for bytes that come as an object."""
        frames: list[memoryview] = []
        view = memoryview(data)
        while view:
            room = self.buffer()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            frames += self.filled(count)
            view = view[count:]
        return frames

    def _cut(self) -> list[memoryview]:
        frames: list[memoryview] = []
        at, have = 0, self._have
        while have - at >= 4:
            size = LENGTH.unpack_from(self._block, at)[0]
            if not 0 < size <= self._max:
                raise DecodeError(f"a frame of {size} bytes; 1 to {self._max} are taken")
            if have - at - 4 >= size:
                frames.append(memoryview(bytearray(self._view[at + 4 : at + 4 + size])))
                at += 4 + size
                continue
            if size > LARGE:
                self._own, self._got = memoryview(bytearray(size)), have - at - 4
                self._own[: self._got] = self._view[at + 4 : have]
                at = have
            break
        rest = bytes(self._view[at:have])
        self._view[: len(rest)] = rest
        self._have = len(rest)
        return frames
