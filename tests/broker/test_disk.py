"""The real disk: nothing copied, nothing cut short, and one process per data directory."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from nebula.broker import disk as module
from nebula.broker.disk import RealDisk, lock_directory
from nebula.model import StartRefused


class DiskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = RealDisk()
        self.root = self.mktemp()
        self.disk.makedirs(self.root)
        self.path = os.path.join(self.root, "file")
        self.file = self.disk.open(self.path, create=True)
        self.addCleanup(self.file.close)

    def test_very_buffers_reach_the_kernel(self) -> None:
        """Broken: record bytes are copied once more before they are written."""
        seen: list[object] = []
        real = os.pwritev

        def pwritev(fd: int, buffers: list[bytes], at: int) -> int:
            seen.extend(buffers)
            return real(fd, buffers, at)

        self.patch(module.os, "pwritev", pwritev)
        chunks = [memoryview(bytearray(b"abc")), b"de", bytearray(b"f")]
        self.assertEqual(self.file.pwritev(chunks, 0), 6)
        self.assertTrue(all(one is other for one, other in zip(seen, chunks, strict=True)))
        self.assertEqual(self.file.pread(100, 0), b"abcdef")

    def test_short_writes(self) -> None:
        """Broken: a short write leaves a hole in the log, or bytes twice."""
        real = os.pwrite
        self.patch(module.os, "pwritev", lambda fd, buffers, at: real(fd, b"".join(buffers)[:3], at))
        self.assertEqual(self.file.pwritev([b"ab", b"", b"cdefg", memoryview(b"hij")], 2), 10)
        self.assertEqual(self.file.pread(100, 0), b"\0\0abcdefghij")

    def test_more_buffers_than_iov_max(self) -> None:
        """Broken: a turn of many small batches fails with EINVAL."""
        chunks = [b"%05d" % number for number in range(2500)]
        self.assertEqual(self.file.pwritev(chunks, 0), 12500)
        self.assertEqual(self.file.pread(20000, 0), b"".join(chunks))

    def test_error_passes(self) -> None:
        """Broken: a full disk looks like a written batch."""

        def full(fd: int, buffers: list[bytes], at: int) -> int:
            raise OSError(28, "No space left on device")

        self.patch(module.os, "pwritev", full)
        self.assertRaises(OSError, self.file.pwritev, [b"x"], 0)

    def test_size_truncate_prepare_sync(self) -> None:
        """Broken: segments cannot be cut or reserved."""
        self.file.pwritev([b"123456"], 0)
        self.file.truncate(4)
        self.assertEqual((self.file.size(), self.file.pread(9, 2)), (4, b"34"))
        self.file.prepare(4096)
        self.assertEqual((self.file.size(), self.file.pread(4, 0)), (4096, b"1234"))
        self.file.sync()

    def test_closed_file_has_no_descriptor(self) -> None:
        """Broken: a late write reaches whatever file got the descriptor next."""
        self.file.close()
        self.file.close()
        self.assertEqual(self.file.fileno(), -1)
        self.assertRaises(OSError, self.file.pwritev, [b"x"], 0)

    def test_open_needs_create(self) -> None:
        """Broken: a segment that is missing is taken for an empty one."""
        self.assertRaises(FileNotFoundError, self.disk.open, self.path + "x")

    def test_replace_file(self) -> None:
        """Broken: a replaced file can be half old, half new; or its temporary stays."""
        self.disk.replace_file(self.path, b"old")
        self.disk.replace_file(self.path, b"new one")
        self.assertEqual(self.disk.read_file(self.path), b"new one")
        self.assertEqual(self.disk.listdir(self.root), ["file"])

    def test_replace_file_syncs_before_rename(self) -> None:
        """Broken: after a power cut the name points at an empty file (rule 2)."""
        calls: list[str] = []
        for name in ("fsync", "replace"):
            real = getattr(os, name)
            self.patch(module.os, name, lambda *args, real=real, name=name: (calls.append(name), real(*args))[1])
        self.disk.replace_file(self.path, b"x")
        self.assertEqual(calls, ["fsync", "replace", "fsync"])

    def test_names(self) -> None:
        """Broken: directories cannot be made, renamed or removed; removing twice fails."""
        deep = os.path.join(self.root, "a", "b")
        self.disk.makedirs(deep)
        self.disk.makedirs(deep)
        self.disk.rename(self.path, os.path.join(deep, "moved"))
        self.assertEqual((self.disk.listdir(deep), self.disk.exists(self.path)), (["moved"], False))
        self.disk.unlink(os.path.join(deep, "moved"))
        self.disk.rmtree(os.path.join(self.root, "a"))
        self.disk.rmtree(os.path.join(self.root, "a"))
        self.assertEqual(self.disk.listdir(self.root), [])


class LockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = self.mktemp()
        RealDisk().makedirs(self.root)

    def test_second_lock_names_the_holder(self) -> None:
        """Broken: two nodes write one log, or the operator is not told which process to stop."""
        lock = lock_directory(self.root)
        self.addCleanup(lock.release)
        error = self.assertRaises(StartRefused, lock_directory, self.root)
        self.assertIn(f"process {os.getpid()} ", str(error))
        self.assertIn(self.root, str(error))

    def test_release(self) -> None:
        """Broken: a node that stopped cleanly cannot start again in the same process."""
        lock_directory(self.root).release()
        lock_directory(self.root).release()

    def test_lock_dies_with_its_process(self) -> None:
        """Broken: after a crash the node refuses to start until someone removes a file."""
        code = "import os, sys; from nebula.broker.disk import lock_directory; lock_directory(sys.argv[1]); os._exit(0)"
        subprocess.run([sys.executable, "-c", code, os.path.abspath(self.root)], check=True, env=_environment())
        lock_directory(self.root).release()

    def test_missing_directory(self) -> None:
        """Broken: a mistyped directory ends in a traceback."""
        self.assertRaises(StartRefused, lock_directory, os.path.join(self.root, "none"))


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
