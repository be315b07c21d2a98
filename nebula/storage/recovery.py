"""Opening a log: what is believed, what is read, what is cut, and in which order that is made durable.

Rules:

1. Up to the checkpoint nothing is read but the batch it ends with; behind it every batch must continue the chain and
   have a good checksum, and the log ends at the first that does not.
2. An end before the checkpoint or an older quarantine is bit rot: `quarantine` is durable before a byte is cut.
3. What is kept is synced before this returns: a crash of the process alone leaves bytes that only the page cache has,
   and Raft counts all that is here as persisted.
4. What is cut is cut durably before anything can be appended behind it.
"""

from __future__ import annotations

import json

from nebula.model import DecodeError, Position
from nebula.records.batch import HEADER_SIZE, crc_ok, read_header
from nebula.records.control import is_voters, read_voters
from nebula.records.start import StartRecord
from nebula.storage.checkpoint import Checkpoint, Config, Segment
from nebula.storage.disk import Disk, File
from nebula.storage.index import NO_BATCH, SparseIndex
from nebula.storage.layout import Layout
from nebula.storage.segment import Batch, DamagedLog, Opened, Sealed, newest_of, note, rebuild, remove_files, walk
from nebula.storage.terms import Terms


class Recovery:
    """One opening. After `run`, `segments` has at least one row and `active` is the last one's file and index."""

    def __init__(self, disk: Disk, layout: Layout, generation: int, start: StartRecord, *, verify: bool) -> None:
        self._disk = disk
        self._layout = layout
        self._generation = generation
        self._start = start
        self._verify = verify
        self._sealed = Sealed(disk, layout, generation)
        self._bases: list[Position] = []
        self._changed = False
        """Names were given or removed, or it is not known that they are durable."""
        self._known: Position | None = None
        """What certainly was durable here once."""
        self._claimed: Checkpoint | None = None
        """The checkpoint until the chain has reached it."""
        self.segments: list[Segment] = []
        self.active: Opened | None = None
        self.terms = Terms()
        self.configs: list[Config] = []
        self.quarantine: Position | None = None
        self.checkpointed = Position(0, 0)
        """What the checkpoint on disk claims, believed or not."""

    @property
    def end(self) -> Position:
        return self.segments[-1].end if self.segments else self._start.position

    def run(self) -> None:
        self._list()
        quarantined = self._disk.exists(self._layout.quarantine)
        checkpoint = self._read_checkpoint()
        if quarantined:
            self._know(self._read_quarantine())
        believed = checkpoint is not None and not quarantined and not self._verify and self._resume(checkpoint)
        if not believed:
            self._from_scratch()
        self._follow()
        self._judge()
        self._cut()
        self._learn()
        if quarantined and self.quarantine is None:
            self._disk.unlink(self._layout.quarantine)

    # ── what is there ───────────────────────────────────────────────────────────────────────────────────────────────

    def _list(self) -> None:
        """Segments of this generation; those of an older one died when the start file was replaced."""
        for generation, base in self._layout.segments(self._disk):
            if generation == self._generation:
                self._bases.append(base)
            elif generation < self._generation:
                remove_files(self._disk, self._layout, generation, base)
                self._changed = True

    def _know(self, place: Position) -> None:
        self._known = max(self._known or place, place)

    def _read_quarantine(self) -> Position:
        try:
            return Position(*json.loads(self._disk.read_file(self._layout.quarantine)))
        except (ValueError, TypeError):
            return self._bases[-1] if self._bases else self._start.position

    def _read_checkpoint(self) -> Checkpoint | None:
        if not self._disk.exists(self._layout.checkpoint):
            return None
        try:
            checkpoint = Checkpoint.decode(self._disk.read_file(self._layout.checkpoint))
        except DecodeError:
            # It was there once, so this log has rolled or was closed: all before its last file was once synced.
            if self._bases:
                self._know(self._bases[-1])
            return None
        if checkpoint.generation != self._generation:
            return None
        self._know(checkpoint.position)
        self._claimed = checkpoint if checkpoint.position > self._start.position else None
        self.checkpointed = checkpoint.position
        return checkpoint

    # ── believing ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _resume(self, checkpoint: Checkpoint) -> bool:
        """Take the checkpoint's word, if the files are there and end where and as it says."""
        rows = [
            r for i, r in enumerate(checkpoint.segments) if self._is_needed([s.base for s in checkpoint.segments], i)
        ]
        last = rows[-1]
        here = [base for base in self._bases if rows[0].base <= base <= last.base]
        if checkpoint.position < self._start.position or here != [row.base for row in rows]:
            return False
        file = self._disk.open(self._layout.segment(self._generation, last.base))
        try:
            if not _ends_with(file, last):
                raise DamagedLog(f"the checkpoint's batch at {checkpoint.position} is not there")
            index = self._sealed.stored(last) or rebuild(file, last)
        except DamagedLog:
            file.close()
            return False
        self.segments, self.active = rows, Opened(file, index)
        self.terms, self.configs = Terms(checkpoint.terms), list(checkpoint.configs)
        self._claimed = None
        self._extend(last)
        return True

    def _is_needed(self, bases: list[Position], i: int) -> bool:
        """Is any of a segment behind the start?"""
        return i + 1 == len(bases) or bases[i + 1] > self._start.position

    def _from_scratch(self) -> None:
        first = next((b for i, b in enumerate(self._bases) if self._is_needed(self._bases, i)), None)
        if first is not None and first <= self._start.position:
            self._open(first)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _follow(self) -> None:
        """Go on with the files that begin where the chain ends."""
        bases = set(self._bases)
        while self.segments:
            following = self.segments[-1].end
            if following == self.segments[-1].base or following not in bases:
                return
            self._leave()
            self._open(following)

    def _leave(self) -> None:
        """The segment is sealed: another one follows it."""
        assert self.active is not None
        self._sealed.store(self.segments[-1], self.active.sparse)
        self.active.file.close()

    def _open(self, base: Position) -> None:
        self._changed = True
        file = self._disk.open(self._layout.segment(self._generation, base))
        self.segments.append(Segment(base, base, 0, -1, NO_BATCH))
        self.active = Opened(file, SparseIndex(base))
        self._extend(self.segments[-1])

    def _extend(self, segment: Segment) -> None:
        """Read on from the segment's end, and make what is found durable."""
        assert self.active is not None
        file, index = self.active
        before = segment.size
        for batch in walk(file, segment.size, segment.end, file.size(), check=True):
            if not self._is_plausible(batch):
                break
            note(segment, index, batch.end, batch.header.size, newest_of(batch), batch.header.crc)
            if batch.header.is_control:
                self._control(file, batch)
        if segment.size > before:
            file.sync()

    def _is_plausible(self, batch: Batch) -> bool:
        """A batch's term is not covered by its checksum: up to the checkpoint, the terms must be the known ones."""
        claimed = self._claimed
        if claimed is None:
            return True
        if batch.end == claimed.position:
            self._claimed = None
        known = not batch.header.is_marker or batch.end in claimed.terms or batch.end <= self._start.position
        return known and batch.end <= claimed.position

    def _control(self, file: File, batch: Batch) -> None:
        if batch.header.is_marker:
            self.terms.add(batch.end)
            return
        data = file.pread(batch.header.size, batch.at)
        if is_voters(data, batch.header):
            self.configs.append((batch.end, *read_voters(data)))

    # ── judging and cutting ─────────────────────────────────────────────────────────────────────────────────────────

    def _judge(self) -> None:
        if self.end < self._start.position:
            self._drop_all()
        if self._known is not None and self.end < self._known:
            self.quarantine = self._known
            self._disk.replace_file(self._layout.quarantine, json.dumps(self._known).encode())

    def _drop_all(self) -> None:
        """The chain breaks before the start: nothing that is left is part of this log."""
        if self.active is not None:
            self.active.file.close()
        self.segments, self.active, self.terms, self.configs = [], None, Terms(), []

    def _cut(self) -> None:
        kept = {segment.base for segment in self.segments}
        for base in reversed(self._bases):  # from the end: a crash in between leaves no hole
            if base not in kept:
                remove_files(self._disk, self._layout, self._generation, base)
                self._changed = True
        if self.active is None:
            self._changed = True
            base = self._start.position
            self.segments.append(Segment(base, base, 0, -1, NO_BATCH))
            path = self._layout.segment(self._generation, base)
            self.active = Opened(self._disk.open(path, create=True), SparseIndex(base))
        if self.active.file.size() != self.segments[-1].size:
            self.active.file.truncate(self.segments[-1].size)
            self.active.file.sync()
        if self._changed:
            self._disk.sync_dir(self._layout.directory)

    def _learn(self) -> None:
        start = self._start
        self.terms = self.terms.since(start.position, start.terms)
        later = [config for config in self.configs if config[0] > start.position]
        self.configs = [(start.position, start.voters, start.learners), *later]


def _ends_with(file: File, segment: Segment) -> bool:
    """Is the batch that the row ends with in the file, whole and the same?"""
    at, crc = segment.last
    if at < 0:
        return segment.size == 0
    data = file.pread(segment.size - at, at)
    if len(data) < max(HEADER_SIZE, segment.size - at) or not crc_ok(data):
        return False
    header = read_header(data)
    return header.crc == crc and Position(header.leader_epoch, header.end_offset) == segment.end
