"""Shard: the consumer groups of one partition of ``__consumer_offsets``, while this node leads it in one term."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from nebula.broker.partition import Partition
from nebula.cluster.groups import Committed, Group
from nebula.cluster.groups import records as formats
from nebula.model import DecodeError, NebulaError, Offset
from nebula.records.batch import read_header
from nebula.records.record import build_batch, read_records
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.coordinator import Coordinators

SLICE_BYTES = 1 << 20
"""Of the log, loaded in one turn: some milliseconds."""
Row = tuple[bytes, bytes | None]
"""A record's key and value."""


class Shard:
    """Loaded from the log in slices, then ahead of it by what is not yet committed."""

    log = Logger()

    def __init__(self, owner: Coordinators, index: int, partition: Partition) -> None:
        self.index = index
        self.partition = partition
        self.term = partition.raft.term
        self.groups: dict[str, Group] = {}
        self.loaded = False
        self._owner = owner
        self._bodies: dict[str, dict[str, Any]] = {}
        self._at: Offset = partition.log.log_start
        self._until = partition.high_watermark

    @property
    def alive(self) -> bool:
        """Does this node still lead, in the same term?"""
        return self.partition.leads and self.partition.raft.term == self.term

    # ── loading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def load(self) -> bool:
        """Read one slice; True if there is more."""
        chunks = self.partition.log.read_records_at(self._at, SLICE_BYTES, self._until)
        for chunk in chunks:
            self._replay(chunk)
        if chunks and self._at < self._until:
            return True
        now = self._owner.now()
        for name, body in self._bodies.items():
            self.group(name).restore(body, now)
        self._bodies = {}
        self.loaded = True
        return False

    def _replay(self, chunk: Any) -> None:
        at = 0
        while at < len(chunk):
            header = read_header(chunk, at)
            if not header.is_control:
                for record in read_records(chunk, at):
                    self._take(record.key, record.value)
            self._at = header.end_offset
            at += header.size

    def _take(self, key: Any, value: Any) -> None:
        try:
            what = formats.read_key(bytes(key or b""))
            if isinstance(what, formats.OffsetKey):
                self._take_offset(what, value)
            elif what is not None and value is None:
                self._bodies.pop(what.group, None)
                self.groups.pop(what.group, None)
            elif what is not None:
                self._bodies[what.group] = formats.read_group(bytes(value))
        except DecodeError as bad:  # a client may have written here; the rest of the groups must not suffer
            self.log.warn("partition {index} of the groups' topic holds a record that is none: {bad}",
                          index=self.index, bad=bad)  # fmt: skip

    def _take_offset(self, key: formats.OffsetKey, value: Any) -> None:
        offsets = self.group(key.group).offsets
        if value is None:
            offsets.pop((key.topic, key.partition), None)
        else:
            offsets[key.topic, key.partition] = formats.read_offset(bytes(value))

    # ── groups ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def group(self, name: str) -> Group:
        """The group, made if it is not known."""
        found = self.groups.get(name)
        if found is None:
            found = self.groups[name] = Group(name, self._owner.settings, self._persister(name), self._owner.new_id)
        return found

    def _persister(self, name: str) -> Callable[[bytes, Callable[[int], None]], None]:
        key = formats.group_key(name)
        return lambda value, then: self.write([(key, value)], then)

    def write(self, rows: Sequence[Row], then: Callable[[int], None]) -> None:
        """Append records as one batch; `then(0)` when it is committed, `then(error code)` if it will not be."""
        now_ms = self._owner.wall_ms()
        batch = build_batch([(key, value, (), now_ms) for key, value in rows])

        def done(_offset: Offset, error: Exception | None) -> None:
            then(0 if error is None else errors.NOT_COORDINATOR)

        try:
            self.partition.append_then(batch, read_header(batch), done)
        except NebulaError:
            then(errors.NOT_COORDINATOR)

    def commit(self, group: Group, offsets: dict[tuple[str, int], Committed], then: Callable[[int], None]) -> None:
        """Commit offsets of a group; they are to be seen once they are committed."""
        rows: list[Row] = [
            (formats.offset_key(group.name, *place), formats.offset_value(committed))
            for place, committed in offsets.items()
        ]

        def stored(code: int) -> None:
            if not code:
                group.offsets.update(offsets)
            then(code)

        self.write(rows, stored)

    def forget(self, group: Group, places: Sequence[tuple[str, int]], then: Callable[[int], None]) -> None:
        """Delete some of a group's offsets."""

        def stored(code: int) -> None:
            if not code:
                for place in places:
                    group.offsets.pop(place, None)
            then(code)

        self.write([(formats.offset_key(group.name, *place), None) for place in places], stored)

    def delete(self, group: Group, then: Callable[[int], None]) -> None:
        """Delete a group without members, with its offsets."""
        rows: list[Row] = [(formats.offset_key(group.name, *place), None) for place in group.offsets]

        def stored(code: int) -> None:
            if not code:
                self.groups.pop(group.name, None)
            then(code)

        self.write([*rows, (formats.group_key(group.name), None)], stored)

    def abandon(self) -> None:
        """Leadership is lost: whoever waits asks the next coordinator."""
        for group in self.groups.values():
            group.abandon(errors.NOT_COORDINATOR)
