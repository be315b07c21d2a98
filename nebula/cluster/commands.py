"""What the controller's log is made of: one JSON record per command, readable with any Kafka tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from nebula.model import DecodeError, GroupID, NodeName


@dataclass(frozen=True, slots=True)
class RegisterNode:
    """A node says who it is and where it listens; at its first time it gets a permanent Kafka node id."""

    name: NodeName
    incarnation: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """A new topic; group ids are given out when it is applied."""

    name: str
    topic_id: str
    partitions: tuple[tuple[GroupID, tuple[NodeName, ...]], ...]
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DeleteTopic:
    """A topic and all its records go."""

    name: str


@dataclass(frozen=True, slots=True)
class AllocateProducerIds:
    """A block of producer ids for one node."""

    node: NodeName
    count: int


Command = RegisterNode | CreateTopic | DeleteTopic | AllocateProducerIds
KINDS: dict[str, type] = {k.__name__: k for k in (RegisterNode, CreateTopic, DeleteTopic, AllocateProducerIds)}


def encode(command: Command) -> bytes:
    """One line of JSON."""
    return json.dumps({"kind": type(command).__name__, **asdict(command)}).encode()


def decode(data: bytes) -> Command:
    """:raises DecodeError: not a command."""
    try:
        raw = json.loads(data)
        kind = KINDS[raw.pop("kind")]
        if kind is CreateTopic:
            raw["partitions"] = tuple((group, tuple(names)) for group, names in raw["partitions"])
        command: Command = kind(**raw)
        return command
    except (ValueError, KeyError, TypeError) as bad:
        raise DecodeError(f"not a controller command: {bad}") from bad
