"""The real file system behind the File and Disk protocols of `nebula.storage.disk`, and the lock on a data directory.

Rules: an OSError passes unchanged, for only the caller knows what it ends; nothing here retries a failed fsync
(RELIABILITY rule 3); a file that is replaced is, after any crash, wholly the old one or wholly the new one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Sequence

from nebula.model import Buffer, StartRefused

IOV_MAX = 1024
"""The most buffers that Linux takes in one pwritev (limits.h)."""

LOCK_NAME = "lock"


class RealFile:
    """An open file. After close() its descriptor is -1, so a late user fails instead of reaching somebody else's file."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    def __repr__(self) -> str:
        return f"<RealFile {self.path} fd={self._fd}>"

    def pread(self, size: int, at: int) -> bytes:
        """The bytes at `at`; fewer than `size` only at the end of the file."""
        first = os.pread(self._fd, size, at)
        if len(first) == size or not first:
            return first
        parts, have = [first], len(first)
        while have < size and (more := os.pread(self._fd, size - have, at + have)):
            parts.append(more)
            have += len(more)
        return b"".join(parts)

    def pwritev(self, buffers: Sequence[Buffer], at: int) -> int:
        """Write all `buffers`, uncopied, one behind the other at `at`; their total size."""
        total = 0
        for first in range(0, len(buffers), IOV_MAX):
            total += self._write_some(buffers[first : first + IOV_MAX], at + total)
        return total

    def _write_some(self, buffers: Sequence[Buffer], at: int) -> int:
        size = sum(map(len, buffers))
        written = os.pwritev(self._fd, buffers, at)
        while written < size:
            step = os.pwritev(self._fd, _rest(buffers, written), at + written)
            if not step:
                raise OSError(5, "the file takes no more bytes", self.path)
            written += step
        return size

    def truncate(self, size: int) -> None:
        """Cut or extend the file to `size` bytes."""
        os.ftruncate(self._fd, size)

    def size(self) -> int:
        """The size in bytes."""
        return os.fstat(self._fd).st_size

    def sync(self) -> None:
        """Wait until all written is on disk. Blocks: for rare paths only, the rest goes through GroupCommit."""
        os.fdatasync(self._fd)

    def prepare(self, size: int) -> None:
        """Reserve the first `size` bytes, so that writing into them needs no new blocks. Grows the file to `size`."""
        os.posix_fallocate(self._fd, 0, size)

    def fileno(self) -> int:
        """The descriptor, or -1 once closed."""
        return self._fd

    def close(self) -> None:
        """Close; what was not synced is not promised. Harmless the second time."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _rest(buffers: Sequence[Buffer], done: int) -> list[Buffer]:
    """What a short write of `done` bytes left of `buffers`."""
    for index, buffer in enumerate(buffers):
        if done < len(buffer):
            return [memoryview(buffer)[done:], *buffers[index + 1 :]]
        done -= len(buffer)
    return []


class RealDisk:
    """The file system. Names last only after sync_dir of the directory they stand in."""

    def open(self, path: str, create: bool = False) -> RealFile:
        """Open for reading and writing; FileNotFoundError unless it exists or `create`."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return RealFile(path, os.open(path, flags, 0o640))

    def exists(self, path: str) -> bool:
        """Whether a file or directory of that name is there."""
        return os.path.exists(path)

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        return sorted(os.listdir(path))

    def makedirs(self, path: str) -> None:
        """Make a directory and those above it, durably; no error if it is there."""
        missing = []
        while path and not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for name in reversed(missing):
            os.makedirs(name, mode=0o750, exist_ok=True)
            self.sync_dir(os.path.dirname(name) or ".")

    def rename(self, old: str, new: str) -> None:
        """Give a file a new name, replacing what had it."""
        os.replace(old, new)

    def unlink(self, path: str) -> None:
        """Remove a file's name."""
        os.unlink(path)

    def rmtree(self, path: str) -> None:
        """Remove a directory and all in it; no error if it is not there."""
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            pass

    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read_file(self, path: str) -> bytes:
        """The whole of a small file."""
        with open(path, "rb") as file:
            return file.read()

    def replace_file(self, path: str, data: bytes) -> None:
        """Put `data` in place of the file, durably and atomically. A crash may leave a `.tmp` beside it."""
        temporary = path + ".tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
        self.sync_dir(os.path.dirname(path) or ".")


class DirectoryLock:
    """Held as long as this object is not released and the process lives: the kernel drops it with the process."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files of one name."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def lock_directory(path: str) -> DirectoryLock:
    """Take `path` for this process alone, or raise StartRefused naming the process that has it."""
    name = os.path.join(path, LOCK_NAME)
    try:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StartRefused(f"cannot open the lock file {name}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise StartRefused(
            f"NEB-1207 data directory {path} is in use by process {holder} (it holds {name}). "
            "Stop that node first, or give this one another with --data-dir."
        ) from None
    except OSError as error:
        os.close(fd)
        raise StartRefused(f"cannot lock {name}: {error.strerror}") from error
    return DirectoryLock(path, fd)
