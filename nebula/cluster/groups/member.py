"""One member of a group, what it asks and what it is answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from nebula.model import NebulaError


class GroupError(NebulaError):
    """A request that the group refuses; `kafka_code` says why."""

    code = "NEB-1401"

    def __init__(self, kafka_code: int, text: str = "") -> None:
        super().__init__(text or f"refused with Kafka's error {kafka_code}")
        self.kafka_code = kafka_code


class Join(NamedTuple):
    """A JoinGroup request."""

    member_id: str
    instance_id: str | None
    """Of a static member (KIP-345)."""
    client_id: str
    client_host: str
    session_ms: int
    rebalance_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    """(name, metadata), the member's favourite first."""
    require_id: bool
    """The client understands MEMBER_ID_REQUIRED (KIP-394)."""
    reason: str = ""


class Joined(NamedTuple):
    """The answer; `members` (id, instance, metadata) is for the leader alone."""

    error: int
    member_id: str
    generation: int = -1
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str = ""
    members: tuple[tuple[str, str | None, bytes], ...] = ()
    skip_assignment: bool = False


class Synced(NamedTuple):
    """The answer to SyncGroup."""

    error: int
    protocol_type: str | None = None
    protocol: str | None = None
    assignment: bytes = b""


@dataclass(slots=True)
class Member:
    """A member."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_ms: int
    rebalance_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    assignment: bytes = b""
    heard_at: float = 0.0
    """Seconds; when it last asked anything."""
    on_joined: Callable[[Joined], None] | None = None
    """Set while it waits in JoinGroup."""
    on_synced: Callable[[Synced], None] | None = None
    """Set while it waits in SyncGroup."""

    @property
    def waiting(self) -> bool:
        return self.on_joined is not None or self.on_synced is not None

    @property
    def expires_at(self) -> float:
        return self.heard_at + self.session_ms / 1000

    def metadata(self, protocol: str | None) -> bytes:
        """Its subscription under `protocol`."""
        return next((metadata for name, metadata in self.protocols if name == protocol), b"")

    def answer_join(self, joined: Joined) -> None:
        """End its wait in JoinGroup, if it waits."""
        reply, self.on_joined = self.on_joined, None
        if reply is not None:
            reply(joined)

    def answer_sync(self, synced: Synced) -> None:
        """End its wait in SyncGroup, if it waits."""
        reply, self.on_synced = self.on_synced, None
        if reply is not None:
            reply(synced)
