"""Power cuts at every operation, and bit rot: nothing synced is lost, and nothing torn is kept."""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from nebula.model import START, DecodeError, Position
from nebula.records.entries import Entry
from nebula.storage import DamagedLog, NebulaLog
from nebula.storage.index import EVERY
from tests.storage.world import (
    PATH,
    PowerCut,
    StoppableDisk,
    content,
    crash,
    create,
    data,
    fill,
    joined,
    mark,
    records,
    reopen,
    settle,
    start_at,
)

SEEDS = range(6)
Script = Callable[[NebulaLog, list[Entry]], None]


class EveryOperationTests(SynchronousTestCase):
    """The machine stops at the k-th disk operation of a script, for every k."""

    def run_script(self, script: Script, allowed: Callable[[list[Entry], NebulaLog], bool]) -> None:
        """`allowed` says whether the log after the crash is one that the synced entries permit."""
        total = self._operations(script)
        self.assertGreater(total, 3)
        for stop in range(1, total + 2):
            for seed in SEEDS:
                disk, log, entries = self._prepare()
                disk.stop_at = disk.count + stop
                try:
                    script(log, entries)
                except PowerCut:
                    pass
                disk.stop_at = -1
                after = crash(disk, seed * 1000 + stop)
                self.assertTrue(allowed(entries, after), f"stopped at {stop} of {total}, seed {seed}: {after.end()}")
                self.assertIsNone(after.quarantine, f"stopped at {stop}, seed {seed}")
                self._goes_on(disk, after)

    def _prepare(self) -> tuple[StoppableDisk, NebulaLog, list[Entry]]:
        disk = StoppableDisk()
        log = create(disk)
        return disk, log, fill(log, 12)

    def _operations(self, script: Script) -> int:
        disk, log, entries = self._prepare()
        before = disk.count
        script(log, entries)
        return disk.count - before

    def _goes_on(self, disk: StoppableDisk, log: NebulaLog) -> None:
        """What is appended after a recovery survives the next crash, and nothing old comes back behind it."""
        known, end = content(log), log.end()
        fresh = [mark(end.term + 1, end), data(Position(end.term + 1, end.offset), 2, 90)]
        log.append(fresh)
        settle(log)
        again = crash(disk, 7)
        self.assertEqual((again.end(), content(again)), (fresh[-1].end, known + joined(fresh)))

    def test_append_and_roll(self) -> None:
        """A synced batch would be gone, or a torn one read."""
        written: list[Entry] = []

        def script(log: NebulaLog, entries: list[Entry]) -> None:
            del written[:]
            for number in range(8):
                entry = data(log.end(), 1 + number % 3, 150)
                written.append(entry)
                log.append([entry])
                settle(log)
                entries.append(entry)  # reached only when synced

        def allowed(synced: list[Entry], log: NebulaLog) -> bool:
            have, extra = joined(synced), [e for e in written if e.end > synced[-1].end]
            return content(log) in [have + joined(extra[:n]) for n in range(len(extra) + 1)]

        self.run_script(script, allowed)

    def test_append_of_many_segments_in_one_round(self) -> None:
        """A later segment that survives whole would be joined to a torn earlier one."""
        written: list[Entry] = []

        def script(log: NebulaLog, entries: list[Entry]) -> None:
            del written[:]
            place = log.end()
            for _ in range(12):
                written.append(data(place, 1, 200))
                place = written[-1].end
            log.append(written)
            settle(log)
            entries += written

        def allowed(synced: list[Entry], log: NebulaLog) -> bool:
            have, extra = joined(synced), [e for e in written if e.end > synced[-1].end]
            return content(log) in [have + joined(extra[:n]) for n in range(len(extra) + 1)]

        self.run_script(script, allowed)

    def test_truncate(self) -> None:
        """A crash would leave a hole, or what was given up would come back."""
        done: list[bool] = []
        for keep in (1, 4, 9, 12):

            def script(log: NebulaLog, entries: list[Entry], keep: int = keep) -> None:
                del done[:]
                log.truncate(entries[keep - 1].end)
                done.append(True)

            def allowed(entries: list[Entry], log: NebulaLog, keep: int = keep) -> bool:
                lengths = [keep] if done else range(keep, len(entries) + 1)
                return content(log) in [joined(entries[:n]) for n in lengths]

            self.run_script(script, allowed)

    def test_reset(self) -> None:
        """A crash would leave neither the old log nor the new one."""
        start = start_at(Position(2, 40), ((1, 0), (2, 30)))
        done: list[bool] = []

        def script(log: NebulaLog, entries: list[Entry]) -> None:
            del done[:]
            log.reset(start)
            done.append(True)

        def allowed(entries: list[Entry], log: NebulaLog) -> bool:
            old = log.start() == START and content(log) == joined(entries)
            return (log.start() == log.end() == start.position and log.start_record() == start) or (old and not done)

        self.run_script(script, allowed)

    def test_delete_before(self) -> None:
        """A crash would delete more than the new start allows, or forget what stands for it."""
        done: list[bool] = []

        def script(log: NebulaLog, entries: list[Entry]) -> None:
            del done[:]
            log.delete_before(start_at(entries[7].end, ((1, 0),)))
            done.append(True)

        def allowed(entries: list[Entry], log: NebulaLog) -> bool:
            if log.start() == START:
                return not done and content(log) == joined(entries)
            return log.start() == entries[7].end and content(log) == joined(entries[8:])

        self.run_script(script, allowed)

    def test_checkpoint_and_close(self) -> None:
        """A crash would leave a checkpoint that speaks of what is not there."""

        def script(log: NebulaLog, entries: list[Entry]) -> None:
            fresh = [data(log.end(), 2, 20), data(Position(1, log.end().offset + 2), 1, 20)]
            log.append(fresh)
            settle(log)
            entries += fresh
            log.checkpoint()
            log.close()

        def allowed(synced: list[Entry], log: NebulaLog) -> bool:
            return content(log).startswith(joined(synced))

        self.run_script(script, allowed)

    def test_create(self) -> None:
        """A log that was reported as created would not be there."""
        for stop in range(1, 20):
            disk = StoppableDisk()
            disk.stop_at = stop
            try:
                create(disk)
            except PowerCut:
                continue
            disk.stop_at = -1
            self.assertEqual(crash(disk, stop).end(), START)


class TornTailTests(SynchronousTestCase):
    """Bytes behind the last synced batch."""

    def test_any_cut_of_the_last_batch(self) -> None:
        """A torn batch would move an offset, or take whole batches with it."""
        disk = StoppableDisk()
        log = create(disk, 1 << 20)
        entries = fill(log, 4)
        size = len(joined(entries))
        last = len(entries[-1].data)
        for cut in range(size - last, size):
            disk.open(disk.files()[0]).truncate(cut)
            (disk._seen.pop(f"{PATH}/checkpoint", None), disk._durable.pop(f"{PATH}/checkpoint", None))
            after = reopen(disk, 1 << 20)
            self.assertEqual((after.end(), content(after)), (entries[-2].end, joined(entries[:-1])))

    def test_old_batches_behind_the_end(self) -> None:
        """A recycled or reserved file is full of old valid batches: they would come back."""
        disk = StoppableDisk()
        log = create(disk, 1 << 20)
        entries = fill(log, 6)
        log.truncate(entries[2].end)
        fresh = mark(2, log.end())
        log.append([fresh])
        settle(log)
        file = disk.open(disk.files()[0])
        end = file.size()
        file.pwritev([joined(entries[3:])], end)
        after = reopen(disk, 1 << 20)
        self.assertEqual(after.end(), fresh.end)
        self.assertEqual(disk.open(disk.files()[0]).size(), end)

    def test_second_marker_of_a_term_ends_the_chain(self) -> None:
        """(offset, term) would name two entries."""
        disk = StoppableDisk()
        log = create(disk, 1 << 20)
        entries = fill(log, 2)
        file = disk.open(disk.files()[0])
        file.pwritev([mark(1, log.end()).data], file.size())
        self.assertEqual(reopen(disk, 1 << 20).end(), entries[-1].end)

    def test_kept_bytes_are_synced_by_recovery(self) -> None:
        """A process crash, a restart and a power cut would lose what Raft counted as persisted at the restart."""
        disk = StoppableDisk()
        log = create(disk, 1 << 20)
        entries = fill(log, 2)
        fresh = data(log.end(), 1, 3000)
        log.append([fresh])
        self.assertEqual(reopen(disk, 1 << 20).end(), fresh.end)
        for seed in SEEDS:
            disk.crash(random.Random(seed))
            self.assertEqual(content(reopen(disk, 1 << 20)), joined([*entries, fresh]))

    def test_directory_sync_left_out_is_caught(self) -> None:
        """The tests above would not notice that a segment's name was never made durable."""
        lost = 0
        for seed in range(20):
            disk = StoppableDisk(sync_dirs=False)
            entries = fill(create(disk), 12)
            try:
                lost += content(crash(disk, seed)) != joined(entries)
            except (OSError, DecodeError):
                lost += 1
        self.assertGreater(lost, 0)

    def test_write_error_leaves_nothing_behind(self) -> None:
        """After a full disk the next batch would stand behind half of the failed one."""
        disk = StoppableDisk()
        log = create(disk, 1 << 20)
        entries = fill(log, 2)

        def full(kind: str) -> None:
            if kind == "write":
                raise OSError(28, "No space left on device")

        disk.fail = full
        self.assertRaises(OSError, log.append, [data(log.end(), 3, 500)])
        disk.fail = lambda kind: None
        self.assertEqual(log.end(), entries[-1].end)
        fresh = data(log.end())
        log.append([fresh])
        settle(log)
        self.assertEqual(content(reopen(disk, 1 << 20)), joined([*entries, fresh]))


class IndexTests(SynchronousTestCase):
    """Index files are caches."""

    def test_garbage_stale_and_missing(self) -> None:
        """A damaged cache would hide records, or stop the start."""
        for spoil in ("damage", "swap", "empty", "remove"):
            disk = StoppableDisk()
            log = create(disk)
            entries = fill(log)
            wanted = records(log)
            log.close()
            paths = disk.files(".index")
            self.assertGreater(len(paths), 3)
            for number, path in enumerate(paths):
                file = disk.open(path)
                if spoil == "damage":
                    disk.damage(path, 9 + number)
                elif spoil == "swap":
                    other = disk.read_file(paths[number - 1])
                    file.truncate(0)
                    file.pwritev([other], 0)
                elif spoil == "empty":
                    file.truncate(0)
                else:
                    disk.unlink(path)
            again = reopen(disk)
            self.assertEqual((content(again), records(again)), (joined(entries), wanted), spoil)

    def test_many_marks(self) -> None:
        """A large segment would be searched from its begin, or its index grow without bound."""
        disk = StoppableDisk()
        log = create(disk, 64 << 20)
        log.append([mark(1, START)])
        log.append([data(Position(1, n), 1, 5000, n) for n in range(400)])
        settle(log)
        marks = log._active.sparse.marks
        self.assertTrue(0.7 < len(marks) / (400 * 5070 / EVERY) < 1.1)
        self.assertEqual(log.offset_for_time(333), (333, 333))
        self.assertEqual(len(log.read_records_at(399, 1, 400)), 1)
        log.close()
        self.assertEqual(reopen(disk, 64 << 20)._active.sparse.marks, marks)


class RotTests(SynchronousTestCase):
    """Damage before the checkpoint is never a torn tail."""

    def prepare(self, segment_bytes: int = 600) -> tuple[StoppableDisk, list[Entry]]:
        disk = StoppableDisk()
        log = create(disk, segment_bytes)
        entries = fill(log)
        self.last_size = log._segments[-1].size
        log.close()
        return disk, entries

    def test_last_batch(self) -> None:
        """Rot in the last synced batch looks like a torn tail, and would be cut silently (scenario 6)."""
        disk, entries = self.prepare(1 << 20)
        disk.damage(disk.files()[0], len(joined(entries)) - 3)
        for _ in range(2):  # the second start, after the cut, still knows
            log = reopen(disk, 1 << 20)
            self.assertEqual((log.quarantine, log.end()), (entries[-1].end, entries[-2].end))
            disk.crash(random.Random(1))

    def test_repair_ends_the_quarantine(self) -> None:
        """A repaired replica could never lead again; or one that is half repaired could."""
        disk, entries = self.prepare(1 << 20)
        disk.damage(disk.files()[0], len(joined(entries[:-3])) + 70)
        log = reopen(disk, 1 << 20, verify=True)
        self.assertEqual(log.end(), entries[-4].end)
        log.append(entries[-3:-1])
        settle(log)
        self.assertEqual(log.quarantine, entries[-1].end)
        log.append(entries[-1:])
        self.assertIsNotNone(log.quarantine)
        settle(log)
        self.assertIsNone(log.quarantine)
        self.assertFalse(disk.exists(f"{PATH}/quarantine"))
        self.assertIsNone(crash(disk, 3).quarantine)

    def test_missing_and_short_segments(self) -> None:
        """A lost file would make the log end early as if nothing had been behind it."""
        for number in (0, 2, -1):
            disk, entries = self.prepare()
            disk.unlink(disk.files()[number])
            log = reopen(disk)
            self.assertEqual(log.quarantine, entries[-1].end)
            self.assertTrue(joined(entries).startswith(content(log)) and log.end() < entries[-1].end)

    def test_sealed_segment(self) -> None:
        """Rot in a sealed segment would never be found, or found and forgotten."""
        disk, entries = self.prepare()
        disk.damage(disk.files()[1], 16)  # the magic of a header: a read finds it
        log = reopen(disk)
        self.assertIsNone(log.quarantine)
        self.assertRaises(DamagedLog, content, log)
        again = reopen(disk)
        self.assertEqual(again.quarantine, entries[-1].end)
        self.assertTrue(joined(entries).startswith(content(again)))

    def test_every_byte_with_verify(self) -> None:
        """Some byte of a batch would be covered by no check."""
        disk, entries = self.prepare(1 << 20)
        image = bytes(disk._seen[disk.files()[0]].seen)
        for at in range(0, len(image), 7):
            fresh, _ = self.prepare(1 << 20)
            fresh.damage(fresh.files()[0], at)
            log = reopen(fresh, 1 << 20, verify=True)
            self.assertEqual(log.quarantine, entries[-1].end, f"byte {at}")

    def test_quarantine_is_durable_before_the_cut(self) -> None:
        """A crash during the first start after rot would leave a short log that knows nothing of it."""
        for stop in range(1, 30):
            for seed in SEEDS:
                disk, entries = self.prepare()
                disk.damage(disk.files()[-1], self.last_size - 3)
                disk.stop_at = disk.count + stop
                try:
                    reopen(disk)
                except PowerCut:
                    pass
                disk.stop_at = -1
                self.assertEqual(crash(disk, seed).quarantine, entries[-1].end)

    def test_damaged_checkpoint_is_no_loss(self) -> None:
        """The log would be taken for empty because a file beside it is bad."""
        disk, entries = self.prepare()
        disk.damage(f"{PATH}/checkpoint", 30)
        log = reopen(disk)
        self.assertEqual((content(log), log.quarantine), (joined(entries), None))

    def test_damaged_start_deletes_nothing(self) -> None:
        """A bad byte in a small file would delete a log (scenario 18)."""
        disk, _ = self.prepare()
        before = disk.files()
        disk.damage(f"{PATH}/start", 12)
        self.assertRaises(DecodeError, reopen, disk)
        self.assertEqual(disk.files(), before)


class CheckpointTests(SynchronousTestCase):
    """Recovery reads what lies behind the checkpoint, and no more."""

    def test_sealed_segments_are_not_opened(self) -> None:
        """A start would take as long as the log is large."""
        disk = StoppableDisk()
        log = create(disk)
        entries = fill(log, 60)
        log.close()
        opened: list[str] = []
        original = disk.open
        self.patch(disk, "open", lambda path, create=False: (opened.append(path), original(path, create))[1])
        again = reopen(disk)
        self.assertEqual([p for p in opened if p.endswith(".log")], disk.files()[-1:])
        self.assertEqual(content(again), joined(entries))

    def test_only_committed_and_persisted(self) -> None:
        """A tail that was legally lost would be taken for rot, and the replica kept from elections."""
        disk = StoppableDisk()
        log = create(disk, 1 << 20)
        entries = fill(log, 3)
        log.checkpoint()
        log.append([data(log.end(), 1, 2000)])
        log.checkpoint()
        log.close()
        file = disk.open(disk.files()[0])
        file.truncate(len(joined(entries)))
        after = reopen(disk, 1 << 20)
        self.assertEqual((after.quarantine, after.end()), (None, entries[-1].end))

    def test_truncation_below_it_moves_it_back(self) -> None:
        """A topic with write.caching, truncated below its checkpoint, would be quarantined at the next start."""
        disk = StoppableDisk()
        log = create(disk)
        entries = fill(log)
        log.checkpoint()
        log.truncate(entries[5].end)
        after = crash(disk, 5)
        self.assertEqual((after.quarantine, content(after)), (None, joined(entries[:6])))
