"""State of what is in the log (of its producers, say), saved now and then so that a start need not read all headers.

Two files take turns, and neither is synced: they are caches. One that is torn, or that stands for a place this log does
not hold (it was not synced before a crash, or was truncated since), is not believed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from crc32c import crc32c

from nebula.model import Position
from nebula.storage.disk import Disk, write_cache
from nebula.storage.layout import Layout

_HEAD = struct.Struct(">Iqq")
"""CRC-32C of what follows it, the term and offset the state stands for."""


class Snapshots:
    """The two files of one log."""

    def __init__(self, disk: Disk, layout: Layout) -> None:
        self._disk = disk
        self._paths = layout.snapshots
        self._next = 0

    def save(self, place: Position, state: bytes) -> None:
        """Keep `state` as of `place` in the older file."""
        body = _HEAD.pack(0, *place)[4:] + state
        write_cache(self._disk, self._paths[self._next], crc32c(body).to_bytes(4, "big") + body)
        self._next = 1 - self._next

    def newest(self, believed: Callable[[Position], bool]) -> tuple[Position, bytes] | None:
        """The latest state whose place is `believed`; the other file is written next."""
        best: tuple[Position, bytes] | None = None
        for number, path in enumerate(self._paths):
            found = self._read(path)
            if found is not None and believed(found[0]) and (best is None or found[0] > best[0]):
                best, self._next = found, 1 - number
        return best

    def _read(self, path: str) -> tuple[Position, bytes] | None:
        if not self._disk.exists(path):
            return None
        data = self._disk.read_file(path)
        if len(data) < _HEAD.size or int.from_bytes(data[:4], "big") != crc32c(data[4:]):
            return None
        _, term, offset = _HEAD.unpack_from(data)
        return Position(term, offset), data[_HEAD.size :]
