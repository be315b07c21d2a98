"""DescribeConfigs: every topic config with its source, default and documentation; the node's own settings read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nebula.broker.apis.lookup import node_id, topic_of
from nebula.cluster.configs import DEFINITIONS, effective
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

TOPIC, BROKER = 2, 4
SOURCE_TOPIC, SOURCE_STATIC, SOURCE_DEFAULT = 1, 4, 5
TYPES = {"boolean": 1, "string": 2, "int": 3, "short": 4, "long": 5, "double": 6, "list": 7, "class": 8, "password": 9}


def describe_configs(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call."""
    return {"throttle_time_ms": 0, "results": [_resource(node, wanted) for wanted in body["resources"]]}


def _resource(node: NebulaNode, wanted: dict[str, Any]) -> dict[str, Any]:
    kind, name, keys = wanted["resource_type"], wanted["resource_name"], wanted["configuration_keys"]
    row = {"error_code": 0, "error_message": None, "resource_type": kind, "resource_name": name, "configs": []}
    if kind == TOPIC:
        topic = topic_of(node, name, None)
        if topic is None:
            return {**row, "error_code": errors.UNKNOWN_TOPIC_OR_PARTITION, "error_message": f"no topic {name}"}
        configs = _topic_configs(topic.configs)
    elif kind == BROKER:
        if name not in ("", str(node_id(node, node.identity.node))):
            text = f"Unexpected broker id, expected {node_id(node, node.identity.node)}, but received {name}"
            return {**row, "error_code": errors.INVALID_REQUEST, "error_message": text}
        configs = _broker_configs(node)
    else:
        return {**row, "error_code": errors.INVALID_REQUEST, "error_message": f"Unsupported resource type: {kind}"}
    return {**row, "configs": [c for c in configs if keys is None or c["name"] in keys]}


def _topic_configs(configs: Any) -> list[dict[str, Any]]:
    rows = []
    for name, definition in sorted(DEFINITIONS.items()):
        own = name in configs
        default = {"name": name, "value": str(definition.default), "source": SOURCE_DEFAULT}
        chosen = [{"name": name, "value": str(configs[name]), "source": SOURCE_TOPIC}] if own else []
        rows.append({
            "name": name, "value": str(effective(configs, name)), "read_only": False, "is_default": not own,
            "config_source": SOURCE_TOPIC if own else SOURCE_DEFAULT, "is_sensitive": False,
            "synonyms": [*chosen, default], "config_type": TYPES.get(str(definition.type), 2),
            "documentation": definition.doc,
        })  # fmt: skip
    return rows


def _broker_configs(node: NebulaNode) -> list[dict[str, Any]]:
    s = node.settings
    values = {
        "auto.create.topics.enable": (str(s.auto_create).lower(), 1),
        "num.partitions": (str(s.partitions), 3),
        "default.replication.factor": (str(min(3, max(1, len(node.view.state.nodes) if node.view.state else 1))), 3),
        "broker.id": (str(node_id(node, s.node)), 3),
        "log.dirs": (s.data_dir, 2),
    }
    return [
        {"name": name, "value": value, "read_only": True, "is_default": False, "config_source": SOURCE_STATIC,
         "is_sensitive": False, "synonyms": [], "config_type": kind, "documentation": None}
        for name, (value, kind) in sorted(values.items())
    ]  # fmt: skip
