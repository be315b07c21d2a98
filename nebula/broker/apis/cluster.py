"""Calls about the cluster itself: ApiVersions, DescribeCluster, InitProducerId."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from nebula import wire
from nebula.broker.apis.lookup import brokers, node_id
from nebula.cluster.commands import AllocateProducerIds
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
ID_BLOCK = 1000
"""Producer ids taken from the controller at a time (as Kafka's)."""


def api_versions(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call (gotchas 1-3). Produce advertises 0 for old librdkafka; 0-2 are not served (gotcha 6)."""
    code = 0
    if version >= 3:
        names = (body["client_software_name"], body["client_software_version"])
        code = 0 if all(SOFTWARE.fullmatch(n) for n in names) else errors.INVALID_REQUEST
    keys = [{"api_key": k, "min_version": v[0], "max_version": v[1]} for k, v in sorted(wire.SERVED.items())]
    return {"error_code": code, "api_keys": keys if not code else [], "throttle_time_ms": 0}


def describe_cluster(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call."""
    controller = node.controller.leader if node.controller is not None else None
    if body.get("endpoint_type", 1) != 1:
        text = "controllers have no endpoints of their own"
        return {"error_code": errors.MISMATCHED_ENDPOINT_TYPE, "error_message": text, "cluster_id": "", "brokers": []}
    return {
        "throttle_time_ms": 0,
        "error_code": 0,
        "endpoint_type": 1,
        "cluster_id": node.identity.cluster,
        "controller_id": node_id(node, controller),
        "brokers": brokers(node, connection),
    }


class ProducerIds:
    """This node's block of producer ids; a new one comes from the controller when it is used up."""

    def __init__(self) -> None:
        self.next = 0
        self.end = 0


def init_producer_id(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call, for idempotent producers. Transactions are refused with a code that says so."""
    if body["transactional_id"] is not None:
        return {"error_code": errors.COORDINATOR_NOT_AVAILABLE, "producer_id": -1, "producer_epoch": -1}
    known, epoch = body.get("producer_id", -1), body.get("producer_epoch", -1)
    if known >= 0 and 0 <= epoch < 32766:  # KIP-360: the producer goes on under its next epoch
        return {"error_code": 0, "producer_id": known, "producer_epoch": epoch + 1}
    ids = node.producer_ids
    if ids.next < ids.end or node.controller is None:
        return _give(ids)

    def allocated(outcome: Any) -> dict[str, Any]:
        first = outcome["first"] if isinstance(outcome, dict) else int(outcome)
        if ids.next >= ids.end:
            ids.next, ids.end = first, first + ID_BLOCK
        return _give(ids)

    def failed(_failure: Any) -> dict[str, Any]:
        return {"error_code": errors.COORDINATOR_NOT_AVAILABLE, "producer_id": -1, "producer_epoch": -1}

    return node.controller.submit(AllocateProducerIds(node.identity.node, ID_BLOCK)).addCallbacks(allocated, failed)


def _give(ids: ProducerIds) -> dict[str, Any]:
    if ids.next >= ids.end:
        return {"error_code": errors.COORDINATOR_NOT_AVAILABLE, "producer_id": -1, "producer_epoch": -1}
    ids.next += 1
    return {"error_code": 0, "producer_id": ids.next - 1, "producer_epoch": 0, "throttle_time_ms": 0}
