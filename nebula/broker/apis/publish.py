"""Publishing in process: `NebulaNode.publish` finds or creates the topic, picks a partition, and waits for the commit."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from nebula.broker.apis.topics import ensure_topic
from nebula.cluster.topics import validate_name
from nebula.model import NebulaError, NotLeader, TopicPartition
from nebula.records.batch import read_header
from nebula.records.record import build_batch

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

ATTEMPTS = 100
PAUSE = 0.1
"""Up to ten seconds of looking for a leader before a publish fails."""


class PublishFailed(NebulaError):
    """No leader took the record in time. It may or may not have been stored."""

    code = "NEB-2302"


class Publisher:
    """One node's in-process publishes."""

    def __init__(self, node: NebulaNode) -> None:
        self._node = node
        self._turn = 0

    def publish(self, topic: str, key: bytes | None, value: bytes | None) -> Deferred[dict[str, int]]:
        """Fires with ``{"partition": p, "offset": o}`` once a majority has the record on disk.

        :raises nebula.cluster.topics.InvalidTopic: at once.
        """
        validate_name(topic)
        return Deferred.fromCoroutine(self._publish(topic, key, value))

    async def _publish(self, topic: str, key: bytes | None, value: bytes | None) -> dict[str, int]:
        batch = build_batch([(key, value, (), self._node.wall_ms())])
        error: Exception | None = None
        for _ in range(ATTEMPTS):
            state = self._node.view.state
            known = state.topics.topics.get(topic) if state is not None else None
            if known is not None:
                index = self._partition(len(known.partitions), key)
                try:
                    return await self._send(known, topic, index, batch)
                except NebulaError as refused:
                    error = refused
            elif state is not None and state.nodes:
                await ensure_topic(self._node, topic)
            await deferLater(self._node.reactor, PAUSE)
        raise PublishFailed(f"NEB-2302 no leader took a record for {topic} in time; last: {error}") from error

    def _partition(self, count: int, key: bytes | None) -> int:
        if key is not None:
            return zlib.crc32(key) % count
        self._turn += 1
        return self._turn % count

    async def _send(self, known: Any, topic: str, index: int, batch: bytearray) -> dict[str, int]:
        leader, _term = self._node.view.leader(known.partitions[index].group)
        if leader == self._node.identity.node:
            return await self._here(topic, index, bytearray(batch))
        if leader is None:
            raise NotLeader(f"{topic}-{index} has no leader right now")
        encoded = base64.b64encode(batch).decode()
        return dict(await self._node.peers.call(leader, "publish", [topic, index, encoded]))

    def publish_here(self, topic: str, index: int, batch: str) -> Deferred[dict[str, int]]:
        """A peer's publish for a partition that this node leads."""
        return Deferred.fromCoroutine(self._here(topic, index, bytearray(base64.b64decode(batch))))

    async def _here(self, topic: str, index: int, batch: bytearray) -> dict[str, int]:
        partition = self._node.replicas.by_name.get(TopicPartition(topic, index))
        if partition is None:
            raise NotLeader(f"{topic}-{index} is not here")
        offset = await partition.append(memoryview(batch), read_header(batch))
        return {"partition": index, "offset": offset}
