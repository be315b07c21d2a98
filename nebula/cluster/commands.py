"""The commands of group 0's log and their JSON form.

The form is on disk and between versions: a field may be added with a default, never renamed or given a new meaning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nebula.model import DecodeError, GroupID, NodeName

Assignment = tuple[GroupID, tuple[NodeName, ...]]
"""One partition: its Raft group (0 until `ClusterState.apply` numbers it) and its replicas, preferred leader first."""


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """Create a topic with the placement its proposer chose."""

    name: str
    topic_id: str
    """32 hex digits, drawn by the proposer; what clients use from Fetch v13 on."""
    partitions: tuple[Assignment, ...]
    configs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeleteTopic:
    """Delete a topic and every record in it."""

    name: str


@dataclass(frozen=True, slots=True)
class RegisterNode:
    """Make a node known under its name; again when its disk (incarnation) or address is new."""

    name: NodeName
    incarnation: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class AllocateProducerIds:
    """Give `node` a block of `count` producer ids that nobody else gets."""

    node: NodeName
    count: int


@dataclass(frozen=True, slots=True)
class SetConfigs:
    """Replace the configs of a topic."""

    topic: str
    configs: Mapping[str, str]


Command = CreateTopic | DeleteTopic | RegisterNode | AllocateProducerIds | SetConfigs


def encode(command: Command) -> bytes:
    """The command as compact JSON with sorted keys: equal commands have equal bytes."""
    fields = {name: getattr(command, name) for name in command.__dataclass_fields__}
    return json.dumps({"kind": type(command).__name__, **fields}, sort_keys=True, separators=(",", ":")).encode()


def decode(encoded: bytes) -> Command:
    """The command that `encode` made these bytes of.

    :raises DecodeError: no such command, or fields missing or of the wrong type.
    """
    try:
        fields = json.loads(encoded)
        return _DECODERS[fields["kind"]](fields)
    except (ValueError, KeyError, TypeError, AttributeError) as bad:
        raise DecodeError(f"not a controller command: {encoded[:80]!r} ({bad!r})") from bad


def _create(f: Any) -> Command:
    partitions = tuple((int(group), tuple(map(str, names))) for group, names in f["partitions"])
    return CreateTopic(str(f["name"]), str(f["topic_id"]), partitions, _configs(f["configs"]))


def _configs(given: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in given.items()}


_DECODERS: dict[str, Callable[[Any], Command]] = {
    "CreateTopic": _create,
    "DeleteTopic": lambda f: DeleteTopic(str(f["name"])),
    "RegisterNode": lambda f: RegisterNode(str(f["name"]), str(f["incarnation"]), str(f["host"]), int(f["port"])),
    "AllocateProducerIds": lambda f: AllocateProducerIds(str(f["node"]), int(f["count"])),
    "SetConfigs": lambda f: SetConfigs(str(f["topic"]), _configs(f["configs"])),
}
