"""The few words every package shares: positions, names, and the root of the error tree."""

from __future__ import annotations

from typing import NamedTuple

NodeName = str
GroupID = int
Term = int
Offset = int
Buffer = bytes | bytearray | memoryview


class Position(NamedTuple):
    """A place in a log between two entries. Compared by term, then offset: exactly Raft's "more up to date" (§5.4.1)."""

    term: Term
    """Term of the last entry before this place; 0 at the start of an empty log."""

    offset: Offset
    """End offset: the first offset that is not yet there. A term marker moves the term and not the offset."""

    def __str__(self) -> str:
        return f"{self.offset}@{self.term}"


START = Position(0, 0)


class Voter(NamedTuple):
    """A member of a Raft group: a name and the incarnation of its disk (RELIABILITY rule 5)."""

    node: NodeName
    incarnation: str


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class NebulaError(Exception):
    """Root of all errors that Nebula raises on purpose. `code` is stable and documented."""

    code = "NEB-0000"


class InvariantBroken(NebulaError):
    """Something that cannot happen did. It stops the partition it happened in, loudly; it is never an error reply."""

    code = "NEB-0001"


class InvalidBatch(NebulaError):
    """Bytes that claim to be a record batch and are not."""

    code = "NEB-1001"


class DecodeError(NebulaError):
    """Bytes from outside that do not decode, whatever they are."""

    code = "NEB-1002"


class NotLeader(NebulaError):
    """This replica does not lead the group (any more); the client asks again elsewhere."""

    code = "NEB-2107"


class StorageFailed(NebulaError):
    """A write or an fsync failed: this log directory is dead until restart (RELIABILITY rule 3)."""

    code = "NEB-1301"


class StartRefused(NebulaError):
    """The node cannot start here; the message names cause and way out. Nothing was touched."""

    code = "NEB-1200"
