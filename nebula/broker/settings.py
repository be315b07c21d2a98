"""What a node is told at its start: defaults < nebula.toml < NEBULA_* < flags."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from nebula.model import NodeName, StartRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """One node's settings; every field is a flag, a TOML key and a NEBULA_ variable of the same name."""

    node: NodeName
    port: int = 5001
    """Gossip's UDP port P; Raft listens on TCP P+1000, clients on P+2000."""
    host: str = "127.0.0.1"
    peers: Mapping[NodeName, tuple[str, int]] = field(default_factory=dict)
    data_dir: str = ""
    auto_create: bool = True
    partitions: int = 3
    """Partitions of a topic that is created without saying how many."""
    offsets_partitions: int = 16
    """Partitions of the topic that holds consumer groups (Kafka's offsets.topic.num.partitions, there 50)."""
    group_initial_delay: float = 3.0
    """Seconds a new group waits for more members (Kafka's group.initial.rebalance.delay.ms); may be 0."""
    election_timeout: float = 1.0
    """Seconds; each wait is drawn from one to two times this."""
    heartbeat: float = 0.1
    """Seconds."""


def parse_peers(text: str) -> dict[NodeName, tuple[str, int]]:
    """``n2:127.0.0.1:5002,n3:127.0.0.1:5003`` as a mapping.

    :raises StartRefused: naming the part that does not fit.
    """
    peers: dict[NodeName, tuple[str, int]] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        pieces = part.split(":")
        if len(pieces) != 3 or not pieces[2].isdigit() or not all(pieces):
            raise StartRefused(f"NEB-1206 --peers: {part!r} is not name:host:port, as in n2:127.0.0.1:5002")
        peers[pieces[0]] = (pieces[1], _port(pieces[2], "--peers"))
    return peers


def _port(value: Any, where: str) -> int:
    if not str(value).isdigit() or not 1 <= int(value) <= 63535:
        raise StartRefused(f"NEB-1206 {where}: {value!r} is not a port from 1 to 63535 (P+2000 is used too)")
    return int(value)


def load_settings(flags: Mapping[str, Any], environ: Mapping[str, str]) -> NodeSettings:
    """Merge the sources; flags that are None were not given.

    :raises StartRefused: an unknown key or a bad value, with its place.
    """
    known = {f.name for f in fields(NodeSettings)}
    merged: dict[str, Any] = {}
    config = flags.get("config") or environ.get("NEBULA_CONFIG")
    if config:
        merged.update(_read_toml(config, known))
    for name in known:
        variable = "NEBULA_" + ("ID" if name == "node" else name.upper())
        if variable in environ:
            merged[name] = environ[variable]
    merged.update({k: v for k, v in flags.items() if k in known and v is not None})
    return _settings(merged)


def _read_toml(path: str, known: set[str]) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            table = tomllib.load(stream)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise StartRefused(f"NEB-1206 cannot read --config {path}: {error}") from error
    table = {("node" if k == "id" else k.replace("-", "_")): v for k, v in table.items()}
    for key in table:
        if key not in known:
            raise StartRefused(f"NEB-1206 {path}: unknown key {key!r}; known are {', '.join(sorted(known))}")
    return table


def _settings(merged: dict[str, Any]) -> NodeSettings:
    node = merged.get("node")
    if not node or not str(node).replace("-", "").replace("_", "").replace(".", "").isalnum() or str(node)[0] == ".":
        raise StartRefused("NEB-1206 --id: a node needs a name of letters, digits, '-', '_' or '.', as in --id n1")
    merged["node"] = str(node)
    merged["port"] = _port(merged.get("port", 5001), "--port")
    peers = merged.get("peers", {})
    merged["peers"] = parse_peers(peers) if isinstance(peers, str) else dict(peers)
    merged["peers"].pop(merged["node"], None)
    merged["data_dir"] = str(merged.get("data_dir") or f"data_{merged['node']}")
    merged["auto_create"] = str(merged.get("auto_create", True)).lower() in ("true", "1", "yes", "on")
    for name, kind in (
        ("partitions", int),
        ("offsets_partitions", int),
        ("group_initial_delay", float),
        ("election_timeout", float),
        ("heartbeat", float),
    ):
        if name in merged:
            try:
                merged[name] = kind(merged[name])
            except (TypeError, ValueError):
                raise StartRefused(f"NEB-1206 {name}: {merged[name]!r} is not a number") from None
            if merged[name] < 0 or (merged[name] == 0 and name != "group_initial_delay"):
                raise StartRefused(f"NEB-1206 {name}: must be above 0, not {merged[name]}")
    return NodeSettings(**merged)
