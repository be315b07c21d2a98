"""What a Kafka client may ask: one module per family of calls, one function per call.

A call is ``f(node, request body, version, connection)`` and returns the answer's body, a Deferred of it, or None for no
answer at all (acks=0). The table below is the whole surface; versions are `nebula.wire.SERVED`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from nebula import wire
from nebula.broker.apis import cluster, committed, configs, fetch, groups, metadata, offsets, produce, topics
from nebula.broker.apis.publish import Publisher

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

CALLS: dict[int, Any] = {
    0: produce.produce,
    1: fetch.fetch,
    2: offsets.list_offsets,
    3: metadata.metadata,
    8: committed.offset_commit,
    9: committed.offset_fetch,
    10: groups.find_coordinator,
    11: groups.join_group,
    12: groups.heartbeat,
    13: groups.leave_group,
    14: groups.sync_group,
    15: groups.describe_groups,
    16: groups.list_groups,
    18: cluster.api_versions,
    19: topics.create_topics,
    20: topics.delete_topics,
    22: cluster.init_producer_id,
    23: offsets.offset_for_leader_epoch,
    32: configs.describe_configs,
    42: groups.delete_groups,
    47: committed.offset_delete,
    60: cluster.describe_cluster,
}


class Apis:
    """Dispatches decoded requests; keeps what calls of one node share."""

    def __init__(self, node: NebulaNode) -> None:
        self._node = node
        self.publisher = Publisher(node)

    def dispatch(self, request: wire.Request, connection: Any) -> Any:
        return CALLS[request.api_key](self._node, request.body, request.version, connection)

    def publish(self, topic: str, key: bytes | None, value: bytes | None) -> Deferred[dict[str, int]]:
        return self.publisher.publish(topic, key, value)

    def publish_here(self, topic: str, partition: int, batch: str) -> Deferred[dict[str, int]]:
        return self.publisher.publish_here(topic, partition, batch)
