"""Coordinators: which groups this node coordinates, loaded from their log before anything about them is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from nebula.broker.apis.topics import TopicRefused, create, plan
from nebula.broker.shard import Shard
from nebula.cluster.groups import Group, GroupError, GroupSettings
from nebula.cluster.groups.records import TOPIC, partition_of
from nebula.model import NebulaError, TopicPartition
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

CONFIGS: dict[str, str] = {}
"""Of the groups' topic: compaction is not built yet, so it is kept whole."""
MAX_GROUPS = 10_000
"""Of one shard: what they cost is memory only, but something has to end it."""


class Coordinators:
    """All shards led here. `tick` must be called every few tens of milliseconds."""

    log = Logger()

    def __init__(self, node: NebulaNode) -> None:
        self._node = node
        self._shards: dict[int, Shard] = {}
        self.settings = GroupSettings(initial_delay_s=node.settings.group_initial_delay)

    def now(self) -> float:
        """Seconds of a clock that only goes on."""
        return float(self._node.reactor.seconds())

    def wall_ms(self) -> int:
        """For timestamps of records."""
        return self._node.wall_ms()

    def new_id(self) -> str:
        """A unique part for a member's id."""
        return f"{self._node.rng.getrandbits(128):032x}"

    # ── finding ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def place_of(self, group: str) -> tuple[int, int] | None:
        """(partition, its Raft group) that a consumer group belongs to; None while the topic does not exist."""
        state = self._node.view.state
        topic = state.topics.topics.get(TOPIC) if state is not None else None
        if topic is None:
            return None
        index = partition_of(group, len(topic.partitions))
        return index, topic.partitions[index].group

    def ensure_topic(self) -> Deferred[None]:
        """Fires when the groups' topic exists, or cannot be made now; never fails."""
        state = self._node.view.state
        if state is None or TOPIC in state.topics.topics:
            return succeed(None)
        try:
            command = plan(self._node, TOPIC, self._node.settings.offsets_partitions, -1, [], CONFIGS)
        except TopicRefused as refused:
            self.log.warn("the topic of consumer groups cannot be created: {why}", why=refused)
            return succeed(None)

        def failed(failure: Failure) -> None:
            failure.trap(NebulaError)
            self.log.info("the topic of consumer groups was not created this time: {why}", why=failure.value)

        return create(self._node, command).addCallbacks(lambda _outcome: None, failed)

    def shard(self, group: str) -> Shard:
        """The loaded shard of a consumer group.

        :raises GroupError: not this node's, not loaded yet, or no name for a group.
        """
        if not group:
            raise GroupError(errors.INVALID_GROUP_ID)
        place = self.place_of(group)
        if place is None:
            raise GroupError(errors.COORDINATOR_NOT_AVAILABLE)
        partition = self._node.replicas.by_name.get(TopicPartition(TOPIC, place[0]))
        if partition is None or not partition.leads:
            raise GroupError(errors.NOT_COORDINATOR)
        shard = self._shards.get(place[0])
        if shard is None or not shard.alive or not shard.loaded:
            raise GroupError(errors.COORDINATOR_LOAD_IN_PROGRESS)
        return shard

    def group(self, name: str) -> tuple[Shard, Group]:
        """The group and its shard; a new group is made. :raises GroupError: see `shard`."""
        shard = self.shard(name)
        if name not in shard.groups and len(shard.groups) >= MAX_GROUPS:
            raise GroupError(errors.GROUP_MAX_SIZE_REACHED, f"more than {MAX_GROUPS} groups")
        return shard, shard.group(name)

    def shards(self) -> list[Shard]:
        """All that are loaded."""
        return [shard for shard in self._shards.values() if shard.alive and shard.loaded]

    @property
    def loading(self) -> bool:
        """Is some shard led here not loaded yet?"""
        return any(not shard.loaded for shard in self._shards.values())

    # ── time and change ─────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self) -> None:
        """Take up shards whose leadership came here, let go of those that went, and let time pass for their groups."""
        state = self._node.view.state
        topic = state.topics.topics.get(TOPIC) if state is not None else None
        if topic is None:
            return
        for index in range(len(topic.partitions)):
            self._follow(index)
        now = self.now()
        for shard in self.shards():
            for group in list(shard.groups.values()):
                group.tick(now)

    def _follow(self, index: int) -> None:
        shard = self._shards.get(index)
        if shard is not None and not shard.alive:
            del self._shards[index]
            shard.abandon()
            shard = None
        if shard is None:
            partition = self._node.replicas.by_name.get(TopicPartition(TOPIC, index))
            if partition is not None and partition.serving:
                self._shards[index] = shard = Shard(self, index, partition)
                self._load(shard)

    def _load(self, shard: Shard) -> None:
        if shard.alive and shard.load():
            self._node.reactor.callLater(0, self._load, shard)

    def topic_deleted(self, name: str) -> None:
        """Its offsets go with it: a topic of the same name later is another one."""
        for shard in self.shards():
            for group in shard.groups.values():
                places = [place for place in group.offsets if place[0] == name]
                if places:
                    shard.forget(group, places, lambda _code: None)
