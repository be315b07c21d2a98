"""All paths of a partition's directory; nothing else joins a path.

    DIRECTORY/
        start                                       start record, and the log's generation; see `start.py`
        checkpoint                                  what recovery need not read again; see `checkpoint.py`
        quarantine                                  only while bit rot waits for repair: how far the log had reached
        snapshot-0, snapshot-1                      producers' state at some place: a cache; see `snapshots.py`
        GENERATION-TERM-OFFSET.log                  a segment; TERM-OFFSET is the Position of its first byte
        GENERATION-TERM-OFFSET.index                its sparse index: a cache

Names sort as the log runs. The directory's own name comes from outside and is checked to stay inside.
"""

from __future__ import annotations

import re

from nebula.model import NebulaError, Position
from nebula.storage.disk import Disk

_SEGMENT = re.compile(r"(\d{8})-(\d{10})-(\d{20})\.log")
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,255}")
"""A directory's name: Kafka's topic alphabet; 255 bytes is the longest name that Linux's file systems take."""


class UnsafePath(NebulaError):
    """A directory name that could lead outside the data directory."""

    code = "NEB-1302"


def partition_directory(root: str, name: str) -> str:
    """Directory `name` in `root`. :raises UnsafePath: `name` is not a plain name."""
    if not _PLAIN.fullmatch(name) or name in {".", ".."}:
        raise UnsafePath(f"{name!r} is no name for a directory of a partition")
    return f"{root}/{name}"


class Layout:
    """The paths in one directory."""

    def __init__(self, directory: str) -> None:
        """:raises UnsafePath: the path goes upwards, or its last part is not a plain name."""
        above, _, name = directory.rpartition("/")
        if "\0" in above or "/../" in directory.lstrip("./"):  # a data directory may begin with ../
            raise UnsafePath(f"{directory!r} leads upwards")
        partition_directory(above, name)
        self.directory = directory
        self.parent = above or ("/" if directory.startswith("/") else ".")
        self.start = f"{directory}/start"
        self.checkpoint = f"{directory}/checkpoint"
        self.quarantine = f"{directory}/quarantine"
        self.snapshots = (f"{directory}/snapshot-0", f"{directory}/snapshot-1")

    def segment(self, generation: int, base: Position) -> str:
        return f"{self.directory}/{generation:08d}-{base.term:010d}-{base.offset:020d}.log"

    def index(self, generation: int, base: Position) -> str:
        return self.segment(generation, base)[: -len(".log")] + ".index"

    def segments(self, disk: Disk) -> list[tuple[int, Position]]:
        """(generation, base) of every segment file, in order; names that are not ours are left alone."""
        found = (_SEGMENT.fullmatch(name) for name in disk.listdir(self.directory))
        return sorted((int(m[1]), Position(int(m[2]), int(m[3]))) for m in found if m)
