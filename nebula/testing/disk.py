"""A disk with two images: what programs see, and what a power cut leaves (RELIABILITY §3.2).

Bytes written and not synced may be lost, in any subset of 512-byte sectors, so the last write tears; a file created and
not made durable by its directory's sync may be gone. `replace_file` is atomic and durable, as the real one is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from nebula.model import Buffer

SECTOR = 512


class Inode:
    """One file's two images."""

    __slots__ = ("dirty", "durable", "seen")

    def __init__(self, data: bytes = b"") -> None:
        self.seen = bytearray(data)
        self.durable = bytearray(data)
        self.dirty: set[int] = set()
        """Sectors that differ, maybe."""


class SimulatedFile:
    """An open file of a SimulatedDisk."""

    def __init__(self, disk: SimulatedDisk, inode: Inode) -> None:
        self._disk = disk
        self.inode = inode

    def pread(self, size: int, at: int) -> bytes:
        return bytes(self.inode.seen[at : at + size])

    def pwritev(self, buffers: Sequence[Buffer], at: int) -> int:
        self._disk.operation("write")
        data = b"".join(map(bytes, buffers))
        seen = self.inode.seen
        if len(seen) < at:
            seen.extend(bytes(at - len(seen)))
        seen[at : at + len(data)] = data
        self.inode.dirty.update(range(at // SECTOR, (at + len(data)) // SECTOR + 1))
        return len(data)

    def truncate(self, size: int) -> None:
        self._disk.operation("truncate")
        seen = self.inode.seen
        first = min(size, len(seen)) // SECTOR
        if size < len(seen):
            del seen[size:]
        else:
            seen.extend(bytes(size - len(seen)))
        last = max(len(seen), len(self.inode.durable)) // SECTOR
        self.inode.dirty.update(range(first, last + 1))

    def size(self) -> int:
        return len(self.inode.seen)

    def sync(self) -> None:
        self._disk.operation("sync")
        self.inode.durable = bytearray(self.inode.seen)
        self.inode.dirty.clear()

    def prepare(self, size: int) -> None:
        if size > len(self.inode.seen):
            self.truncate(size)

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """Nothing: closing makes nothing durable."""


class SimulatedDisk:
    """A file system in memory. `operations` counts what was asked of it."""

    def __init__(self, sync_dirs: bool = True) -> None:
        self._seen: dict[str, Inode] = {}
        self._durable: dict[str, Inode] = {}
        self._sync_dirs = sync_dirs
        self.operations: dict[str, int] = {}

    def operation(self, kind: str) -> None:
        """Count one."""
        self.operations[kind] = self.operations.get(kind, 0) + 1

    def crash(self, rng: random.Random) -> None:
        """Power cut: keep a random subset of what was not synced."""
        for path in list(self._seen.keys() - self._durable.keys()):
            if rng.random() < 0.5:
                self._durable[path] = self._seen[path]
        for path in list(self._durable.keys() - self._seen.keys()):
            if rng.random() < 0.5:
                del self._durable[path]
        self._seen = dict(self._durable)
        for inode in self._seen.values():
            self._settle(inode, rng)

    def _settle(self, inode: Inode, rng: random.Random) -> None:
        """Some dirty sectors reached the disk, the others did not; the file's size follows the last that did."""
        if not inode.dirty:
            return
        result = bytearray(inode.durable)
        for sector in sorted(inode.dirty):
            if rng.random() < 0.5:
                part = inode.seen[sector * SECTOR : (sector + 1) * SECTOR]
                if part:
                    at = sector * SECTOR
                    if len(result) < at:
                        result.extend(bytes(at - len(result)))
                    result[at : at + len(part)] = part
        inode.seen, inode.durable = result, bytearray(result)
        inode.dirty.clear()

    def durable_images(self, prefix: str) -> list[bytes]:
        """Contents that a power cut could not take away, of the files below `prefix`."""
        return [bytes(inode.durable) for path, inode in self._durable.items() if path.startswith(prefix + "/")]

    # ── storage.disk.Disk ───────────────────────────────────────────────────────────────────────────────────────────

    def open(self, path: str, create: bool = False) -> SimulatedFile:
        if path not in self._seen:
            if not create:
                raise FileNotFoundError(path)
            self._seen[path] = Inode()
        return SimulatedFile(self, self._seen[path])

    def exists(self, path: str) -> bool:
        return path in self._seen or any(p.startswith(path + "/") for p in self._seen)

    def listdir(self, path: str) -> list[str]:
        return sorted({p[len(path) + 1 :].partition("/")[0] for p in self._seen if p.startswith(path + "/")})

    def makedirs(self, path: str) -> None:
        """Directories exist as soon as something is in them."""

    def unlink(self, path: str) -> None:
        self.operation("unlink")
        del self._seen[path]

    def rmtree(self, path: str) -> None:
        for name in [p for p in self._seen if p.startswith(path + "/")]:
            self.unlink(name)

    def sync_dir(self, path: str) -> None:
        self.operation("sync_dir")
        if not self._sync_dirs:
            return
        for name, inode in self._seen.items():
            if name.rpartition("/")[0] == path:
                self._durable[name] = inode
        for name in [p for p in self._durable if p.rpartition("/")[0] == path and p not in self._seen]:
            del self._durable[name]

    def read_file(self, path: str) -> bytes:
        if path not in self._seen:
            raise FileNotFoundError(path)
        return bytes(self._seen[path].seen)

    def replace_file(self, path: str, data: bytes) -> None:
        self.operation("replace")
        self._seen[path] = self._durable[path] = Inode(data)
