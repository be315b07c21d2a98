"""The ballot journal: terms and votes of all groups of a node, in one append-only file with one sync for many.

A record is a CRC-32C, a length and JSON. A crash in the middle of an append leaves a torn record at the end, which was
never synced, so never promised: it is cut. The journal is rewritten when it has grown, at start.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

from crc32c import crc32c

from nebula.model import GroupID, Term, Voter
from nebula.storage.disk import Disk, File

HEAD = struct.Struct(">II")
COMPACT_ABOVE = 1 << 20


class BallotJournal:
    """Read whole at start; appended to by the drain."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self.ballots: dict[GroupID, tuple[Term, Voter | None]] = {}
        self._size = 0
        self.file: File

    @classmethod
    def open(cls, disk: Disk, directory: str) -> BallotJournal:
        journal = cls(disk, f"{directory}/ballots")
        if not disk.exists(journal._path):
            disk.replace_file(journal._path, b"")
        raw = disk.read_file(journal._path)
        journal._load(raw)
        if len(raw) > COMPACT_ABOVE:
            journal.compact()
        journal.file = disk.open(journal._path)
        journal.file.truncate(journal._size)
        journal.file.sync()
        return journal

    def _load(self, raw: bytes) -> None:
        at = 0
        while at + HEAD.size <= len(raw):
            crc, length = HEAD.unpack_from(raw, at)
            body = raw[at + HEAD.size : at + HEAD.size + length]
            if len(body) < length or not length or crc32c(body) != crc:
                break
            for group, term, vote in json.loads(body):
                self.ballots[group] = (term, Voter(*vote) if vote else None)
            at += HEAD.size + length
        self._size = at

    def append(self, ballots: Sequence[tuple[GroupID, Term, Voter | None]]) -> None:
        """Write; a promise may leave only after `file` was synced."""
        data = self._encode(ballots)
        self.file.pwritev([data], self._size)
        self._size += len(data)
        for group, term, vote in ballots:
            self.ballots[group] = (term, vote)

    @staticmethod
    def _encode(ballots: Sequence[tuple[GroupID, Term, Voter | None]]) -> bytes:
        body = json.dumps(list(ballots)).encode()
        return HEAD.pack(crc32c(body), len(body)) + body

    def compact(self) -> None:
        """Rewrite with the newest ballot of each group only."""
        data = self._encode([(group, term, vote) for group, (term, vote) in self.ballots.items()])
        self._disk.replace_file(self._path, data)
        self._size = len(data)
