"""TopicManager: the topics as the controller's log has made them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nebula.model import GroupID, NebulaError, NodeName

MAX_NAME = 249
"""Kafka's bound: name, dash and partition number must fit a directory name of 255 bytes."""
_LEGAL = re.compile(r"[a-zA-Z0-9._-]+")


class InvalidTopic(NebulaError):
    """A name that Kafka would not take either."""

    code = "NEB-1103"


def validate_name(name: str) -> None:
    """:raises InvalidTopic: `name` is no legal topic name; the text says which rule it breaks."""
    if not name:
        raise InvalidTopic("Topic name is invalid: the empty string is not allowed")
    if name in (".", ".."):
        raise InvalidTopic("Topic name is invalid: '.' or '..' is not allowed")
    if len(name) > MAX_NAME:
        raise InvalidTopic(f"Topic name is invalid: the length of '{name}' is longer than {MAX_NAME} characters")
    if not _LEGAL.fullmatch(name):
        text = "contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        raise InvalidTopic(f"Topic name is invalid: {name!r} {text}")


def collision_key(name: str) -> str:
    """Equal for names that differ in '.' and '_' only: Kafka refuses such pairs, their metrics would have one name."""
    return name.replace(".", "_")


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """One partition's place in the cluster."""

    group: GroupID
    replicas: tuple[NodeName, ...]
    """The goal, preferred leader first; the group's own log says who votes now."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as applied; replaced as a whole, never changed."""

    name: str
    topic_id: str
    partitions: tuple[PartitionInfo, ...]
    configs: Mapping[str, str]


class TopicManager:
    """Topics by name and by id. Changed only by `ClusterState.apply`."""

    def __init__(self, topics: Iterable[Topic] = ()) -> None:
        self.topics: dict[str, Topic] = {}
        self.by_id: dict[str, Topic] = {}
        self._keys: dict[str, str] = {}
        for topic in topics:
            self.add(topic)

    def colliding(self, name: str) -> str | None:
        """The existing topic that `name` equals but for '.' and '_', if any."""
        return self._keys.get(collision_key(name))

    def add(self, topic: Topic) -> None:
        """Add or replace `topic`."""
        self.topics[topic.name] = self.by_id[topic.topic_id] = topic
        self._keys[collision_key(topic.name)] = topic.name

    def remove(self, name: str) -> Topic:
        """Forget the topic `name`, which exists."""
        topic = self.topics.pop(name)
        del self.by_id[topic.topic_id]
        del self._keys[collision_key(name)]
        return topic

    def set_configs(self, name: str, configs: Mapping[str, str]) -> None:
        """Replace the configs of the topic `name`, which exists."""
        self.add(replace(self.topics[name], configs=dict(configs)))

    def to_json(self) -> list[Any]:
        """For the snapshot, in order of names."""
        return [
            [t.name, t.topic_id, [[p.group, list(p.replicas)] for p in t.partitions], dict(sorted(t.configs.items()))]
            for _name, t in sorted(self.topics.items())
        ]

    @classmethod
    def from_json(cls, rows: Any) -> TopicManager:
        """What `to_json` gave."""
        return cls(
            Topic(name, topic_id, tuple(PartitionInfo(group, tuple(names)) for group, names in partitions), configs)
            for name, topic_id, partitions, configs in rows
        )
