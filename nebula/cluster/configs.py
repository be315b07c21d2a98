"""Topic configs: names, types, defaults and what they mean. A config that is accepted has an effect or says it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nebula.model import NebulaError


class InvalidConfig(NebulaError):
    """A topic config that is unknown or has a value it cannot have."""

    code = "NEB-1102"


@dataclass(frozen=True, slots=True)
class Definition:
    """One topic config."""

    type: str
    default: str
    doc: str
    low: int = -(1 << 63)
    choices: tuple[str, ...] = ()


LONG_MAX = str((1 << 63) - 1)
LATER = " Stored and listed; without effect in this version."
DEFINITIONS: dict[str, Definition] = {
    "cleanup.policy": Definition("list", "delete", "What happens to old records." + LATER, choices=("delete",)),
    "compression.type": Definition("string", "producer", "Batches are kept as sent.", choices=("producer",)),
    "max.message.bytes": Definition("int", "1048588", "Largest batch taken, in bytes.", low=0),
    "message.timestamp.after.max.ms": Definition("long", "3600000", "How far in the future a timestamp may lie.", low=0),
    "message.timestamp.before.max.ms": Definition("long", LONG_MAX, "How far in the past a timestamp may lie.", low=0),
    "message.timestamp.type": Definition(
        "string", "CreateTime", "Who sets timestamps.", choices=("CreateTime", "LogAppendTime")
    ),
    "min.insync.replicas": Definition("int", "1", "A majority always has every acknowledged record." + LATER, low=1),
    "retention.bytes": Definition("long", "-1", "Largest size of a partition, in bytes." + LATER, low=-1),
    "retention.ms": Definition("long", "604800000", "How long records are kept, in ms." + LATER, low=-1),
    "segment.bytes": Definition("int", "8388608", "Size of a segment file, in bytes.", low=1024),
    "segment.ms": Definition("long", "604800000", "Age at which a segment is closed, in ms." + LATER, low=1),
    "unclean.leader.election.enable": Definition(
        "boolean", "false", "Never: a leader always has every acknowledged record.", choices=("false",)
    ),
    "write.caching": Definition(
        "boolean", "false", "Acknowledge from a majority's page cache." + LATER, choices=("false", "true")
    ),
}


def validate(configs: Mapping[str, str | None]) -> None:
    """:raises InvalidConfig: naming the config, its value and what it may be."""
    for name, value in configs.items():
        definition = DEFINITIONS.get(name)
        if definition is None:
            raise InvalidConfig(f"Unknown topic config name: {name}. Known: {', '.join(sorted(DEFINITIONS))}")
        if value is None:
            raise InvalidConfig(f"Null value not supported for topic config {name}")
        if definition.choices and value not in definition.choices:
            raise InvalidConfig(f"Invalid value {value} for {name}: one of {', '.join(definition.choices)}")
        if definition.type in ("int", "long"):
            _number(name, value, definition)


def _number(name: str, value: str, definition: Definition) -> None:
    try:
        number = int(value)
    except ValueError:
        raise InvalidConfig(f"Invalid value {value} for {name}: not a number") from None
    high = (1 << 31) - 1 if definition.type == "int" else (1 << 63) - 1
    if not definition.low <= number <= high:
        raise InvalidConfig(f"Invalid value {value} for {name}: from {definition.low} to {high}")


def effective(configs: Mapping[str, str], name: str) -> str:
    """The topic's own value, or the default."""
    return configs.get(name, DEFINITIONS[name].default)
