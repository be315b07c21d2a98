"""What storage needs of files. `broker/disk.py` is the real one, `testing/disk.py` the simulated one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nebula.model import Buffer


class File(Protocol):
    """One open file."""

    def pread(self, size: int, at: int) -> bytes: ...
    def pwritev(self, buffers: Sequence[Buffer], at: int) -> int:
        """Write all of it, looping over short writes; OSError passes."""

    def truncate(self, size: int) -> None: ...
    def size(self) -> int: ...
    def sync(self) -> None:
        """fdatasync, blocking: for rare paths; the hot path's syncs are the group commit's."""

    def prepare(self, size: int) -> None:
        """Reserve space up to `size`; the bytes read as zeros."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Disk(Protocol):
    """A file system."""

    def open(self, path: str, create: bool = False) -> File: ...
    def exists(self, path: str) -> bool: ...
    def listdir(self, path: str) -> list[str]: ...
    def makedirs(self, path: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def rmtree(self, path: str) -> None: ...
    def sync_dir(self, path: str) -> None: ...
    def read_file(self, path: str) -> bytes: ...
    def replace_file(self, path: str, data: bytes) -> None:
        """Old content or new, never less: temporary file, fsync, rename, fsync of the directory."""


def write_cache(disk: Disk, path: str, data: bytes) -> None:
    """Write a file that is only a cache: not synced, and whoever reads it checks that it is whole."""
    file = disk.open(path, create=True)
    try:
        file.truncate(0)
        file.pwritev([data], 0)
    finally:
        file.close()
