"""TopicManager: topics, their partitions' groups and replicas, and their configs, as the controller's log says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nebula.model import GroupID, NebulaError, NodeName

LEGAL = re.compile(r"[a-zA-Z0-9._-]{1,249}")


class InvalidTopic(NebulaError):
    """A name that no topic can have."""

    code = "NEB-1103"


def validate_name(name: str) -> None:
    """Kafka's rule, so no name can leave the data directory either. :raises InvalidTopic: with the rule."""
    if not LEGAL.fullmatch(name) or name in (".", ".."):
        raise InvalidTopic(
            f"Topic name is invalid: {name[:60]!r}. 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'; not '.' or '..'"
        )


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """One partition as assigned."""

    group: GroupID
    replicas: tuple[NodeName, ...]
    """The goal; the first is the preferred leader."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic."""

    name: str
    topic_id: str
    """32 hex digits."""
    partitions: tuple[PartitionInfo, ...]
    configs: Mapping[str, str]


class TopicManager:
    """All topics by name and by id."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.by_id: dict[str, Topic] = {}

    def collision(self, name: str) -> str | None:
        """A topic whose name differs only by '.' and '_' (Kafka refuses these: metric names would collide)."""
        key = name.replace(".", "_")
        return next((t for t in self.topics if t != name and t.replace(".", "_") == key), None)

    def add(self, topic: Topic) -> None:
        self.topics[topic.name] = topic
        self.by_id[topic.topic_id] = topic

    def remove(self, name: str) -> Topic | None:
        topic = self.topics.pop(name, None)
        if topic is not None:
            del self.by_id[topic.topic_id]
        return topic
