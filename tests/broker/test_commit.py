"""Group commit: how many syncs, on which thread, and what a failure ends."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nebula.broker.commit import GroupCommit
from nebula.model import StorageFailed


class Readers:
    """As much of a reactor as GroupCommit uses."""

    def __init__(self) -> None:
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def turn(self) -> None:
        """Wait for the commit thread, as a reactor would."""
        ready, _, _ = select.select([reader.fileno() for reader in self.readers], [], [], 10)
        for reader in self.readers:
            assert reader.fileno() in ready, "the commit thread said nothing"
            reader.doRead()


class CountingFile:
    """A file without a descriptor, as a simulated one: sync is its own."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.syncs: list[str] = []
        self.act = act

    def fileno(self) -> int:
        return -1

    def sync(self) -> None:
        self.syncs.append(threading.current_thread().name)
        self.act()


class CommitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Readers()
        self.commit = GroupCommit(self.reactor, inline_bytes=1000)
        self.addCleanup(self.commit.stop)
        self.results: list[BaseException | None] = []

    def test_small_round_is_inline(self) -> None:
        """Broken: every small write pays for waking a thread."""
        file = CountingFile()
        self.commit.request([file, file], 10, self.results.append)
        self.assertEqual(self.results, [None])
        self.assertEqual(file.syncs, [threading.current_thread().name])
        self.assertEqual(self.reactor.readers, [])

    def test_large_round_on_thread(self) -> None:
        """Broken: a big fdatasync stops the reactor."""
        file = CountingFile()
        self.commit.request([file], 1000, self.results.append)
        self.assertEqual(self.results, [])
        self.reactor.turn()
        self.assertEqual((self.results, file.syncs), ([None], ["nebula-commit"]))

    def test_many_files_on_thread(self) -> None:
        """Broken: the reactor waits for as many fdatasyncs as there are partitions."""
        files = [CountingFile() for _ in range(3)]
        self.commit.request(files, 3, self.results.append)
        self.reactor.turn()
        self.assertEqual([file.syncs for file in files], [["nebula-commit"]] * 3)

    def test_requests_meanwhile_share_the_next_round(self) -> None:
        """Broken: under load there is one fdatasync per request instead of one per round."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        slow, other = CountingFile(lambda: gate.wait(10) and None), CountingFile()
        self.commit.request([slow], 5000, self.results.append)
        for _ in range(20):
            self.commit.request([other], 500, self.results.append)
        self.assertEqual((self.results, other.syncs), ([], []))
        gate.set()
        self.reactor.turn()
        self.assertEqual(self.results, [None])
        self.reactor.turn()
        self.assertEqual((len(self.results), len(other.syncs), self.commit.rounds), (21, 1, 2))

    def test_slow_disk_leaves_the_reactor(self) -> None:
        """Broken: small syncs on a disk that has become slow go on stopping the reactor."""
        file = CountingFile()
        self.commit._average_s = 0.01
        self.commit.request([file], 1, self.results.append)
        self.reactor.turn()
        self.assertEqual(file.syncs, ["nebula-commit"])
        while self.commit._average_s >= 0.003:
            self.commit.request([file], 1, self.results.append)
            self.reactor.turn()
        self.commit.request([file], 1, self.results.append)
        self.assertNotEqual(file.syncs[-1], "nebula-commit")

    def test_failure_is_final(self) -> None:
        """Broken: a second fdatasync after a failed one "succeeds", and lost bytes are acknowledged (rule 3)."""
        error = OSError(5, "EIO")

        def fail() -> None:
            raise error

        bad, good = CountingFile(fail), CountingFile()
        self.commit.request([bad, good], 1, self.results.append)
        self.commit.request([bad], 1, self.results.append)
        self.commit.request([good], 5000, self.results.append)
        self.assertEqual(self.results, [error] * 3)
        self.assertEqual((len(bad.syncs), good.syncs, self.commit.failed), (1, [], error))

    def test_failure_on_thread_fails_the_waiting(self) -> None:
        """Broken: requests that waited behind a failed round are synced or never answered."""
        gate = threading.Event()
        self.addCleanup(gate.set)

        def fail() -> None:
            gate.wait(10)
            raise OSError(28, "ENOSPC")

        waiting = CountingFile()
        self.commit.request([CountingFile(fail)], 5000, self.results.append)
        self.commit.request([waiting], 1, self.results.append)
        gate.set()
        self.reactor.turn()
        self.assertEqual([type(result) for result in self.results], [OSError, OSError])
        self.assertEqual(waiting.syncs, [])

    def test_request_from_done(self) -> None:
        """Broken: a request made by an answer recurses, overtakes, or is forgotten."""
        file, order = CountingFile(), []

        def again(error: BaseException | None) -> None:
            self.commit.request([file], 1, lambda _: order.append("second"))
            order.append("first")

        self.commit.request([file], 1, again)
        self.assertEqual((order, len(file.syncs)), (["first", "second"], 2))

    def test_raising_done_harms_no_other(self) -> None:
        """Broken: one partition's bug loses another's acknowledgement."""

        def bug(error: BaseException | None) -> None:
            raise ZeroDivisionError

        self.commit.request([CountingFile()], 5000, bug)
        self.reactor.turn()
        self.commit.request([CountingFile()], 1, self.results.append)
        self.assertEqual(self.results, [None])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_no_files_wait_for_the_round_before(self) -> None:
        """Broken: a request whose files are in the round under way is answered before they are on disk."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        self.commit.request([CountingFile(lambda: gate.wait(10) and None)], 5000, self.results.append)
        self.commit.request([], 0, self.results.append)
        self.assertEqual(self.results, [])
        gate.set()
        self.reactor.turn()
        self.assertEqual(self.results, [None, None])

    def test_stop_finishes_and_refuses(self) -> None:
        """Broken: stopping leaves requests unanswered, or a thread behind."""
        self.commit.request([CountingFile()], 5000, self.results.append)
        self.commit.request([CountingFile()], 5000, self.results.append)
        thread = self.commit._thread
        self.commit.stop()
        assert thread is not None
        self.assertFalse(thread.is_alive())
        self.assertEqual((self.results, self.reactor.readers), ([None, None], []))
        self.commit.request([CountingFile()], 1, self.results.append)
        self.assertIsInstance(self.results[-1], StorageFailed)

    def test_file_closed_while_it_waits(self) -> None:
        """Broken: a rolled segment closed behind its request is synced by a descriptor that is somebody else's."""
        synced: list[tuple[int, int]] = []

        def sync(fd: int) -> None:
            stat = os.fstat(fd)
            synced.append((stat.st_dev, stat.st_ino))

        commit = GroupCommit(self.reactor, sync, inline_bytes=0)
        self.addCleanup(commit.stop)
        gate = threading.Event()
        self.addCleanup(gate.set)
        path = self.mktemp()
        with open(path, "wb") as file:
            commit.request([CountingFile(lambda: gate.wait(10) and None)], 1, self.results.append)
            commit.request([_Numbered(file.fileno())], 1, self.results.append)
            expected = os.stat(path)
        gate.set()
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual((self.results, synced), ([None, None], [(expected.st_dev, expected.st_ino)]))


class _Numbered:
    """A file that has nothing but a descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd

    def sync(self) -> None:
        raise AssertionError("must be synced by its descriptor")
