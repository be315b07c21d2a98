"""The ballot journal: terms and votes of all groups of a node, in one append-only file with one sync for many.

The file is a sequence of records, each a CRC-32C, a length and JSON. It always begins with a snapshot of the newest
ballot of every group, put there by one atomic replacement at every start. So:

* a bad first record is bit rot: the node does not start, for it may have promised votes that it does not know any more;
* a bad later record is what a crash left of an append that was never synced, so never promised: it is cut by the next
  snapshot, which is durable before the journal is used.

Caveat: rot in a record appended since the last start looks like the second and is cut like it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

from crc32c import crc32c

from nebula.model import GroupID, StartRefused, Term, Voter
from nebula.storage.disk import Disk, File

HEAD = struct.Struct(">II")
COMPACT_ABOVE = 1 << 20
"""Bytes appended before the journal is rewritten: about ten thousand elections."""


class BallotJournal:
    """Read whole at start; appended to by the drain."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self.ballots: dict[GroupID, tuple[Term, Voter | None]] = {}
        self._size = 0
        self._compact_at = COMPACT_ABOVE
        self.file: File
        """The file to sync after an append; another one after a compaction."""

    @classmethod
    def open(cls, disk: Disk, directory: str) -> BallotJournal:
        """:raises StartRefused: the snapshot in the journal is damaged."""
        journal = cls(disk, f"{directory}/ballots")
        if disk.exists(journal._path):
            journal._load(disk.read_file(journal._path))
        journal.compact()
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
        if not at:
            raise StartRefused(
                f"{self._path} is damaged where it was durable: votes may have been given that are not known any more. "
                "Wipe this node's data directory and let it join again as a new one."
            )

    def append(self, ballots: Sequence[tuple[GroupID, Term, Voter | None]]) -> None:
        """Write; a promise may leave only after `file`, as it is after this call, was synced."""
        for group, term, vote in ballots:
            self.ballots[group] = (term, vote)
        if self._size > self._compact_at:
            self.compact()
            return
        data = self._encode(ballots)
        self.file.pwritev([data], self._size)
        self._size += len(data)

    @staticmethod
    def _encode(ballots: Sequence[tuple[GroupID, Term, Voter | None]]) -> bytes:
        body = json.dumps(list(ballots)).encode()
        return HEAD.pack(crc32c(body), len(body)) + body

    def compact(self) -> None:
        """Rewrite with the newest ballot of each group only; durable when this returns."""
        data = self._encode([(group, term, vote) for group, (term, vote) in self.ballots.items()])
        self._disk.replace_file(self._path, data)
        old, self.file = getattr(self, "file", None), self._disk.open(self._path)
        if old is not None:
            old.close()
        self._size = len(data)
        self._compact_at = len(data) + COMPACT_ABOVE
