"""The configs a topic can have: Kafka's names and types, Nebula's defaults.

A name that is not here is refused. A config that is taken has an effect, or its doc says that it has none yet (LATER).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nebula.model import NebulaError

INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1
MAX_BATCH = 64 << 20
"""Upper end of max.message.bytes: a batch is held in memory whole, on every replica and by every fetch."""

Value = str | int | float | bool


class InvalidConfig(NebulaError):
    """A config name that does not exist, or a value it cannot have."""

    code = "NEB-1102"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One config."""

    name: str
    type: str
    """As Kafka names it: boolean, string, int, long, double or list."""
    default: str
    """As text, the way DescribeConfigs shows it."""
    doc: str
    low: float = 0
    high: float = INT64_MAX
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> Value:
        """`text` as a value of this config's type.

        :raises InvalidConfig: it is none, or out of bounds.
        """
        try:
            return _PARSERS[self.type](self, text.strip())
        except ValueError as bad:
            raise InvalidConfig(f"Invalid value {text!r} for configuration {self.name}: {bad}") from bad


def _whole(definition: Definition, text: str) -> int:
    return int(_bounded(definition, _number(int, text, "a whole number")))


def _real(definition: Definition, text: str) -> float:
    return _bounded(definition, _number(float, text, "a number"))


def _number(kind: type[int] | type[float], text: str, what: str) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"not {what}") from None


def _bounded(definition: Definition, value: float) -> float:
    if not definition.low <= value <= definition.high:  # NaN fails this too
        raise ValueError(f"must be between {definition.low} and {definition.high}")
    return value


def _boolean(definition: Definition, text: str) -> bool:
    return _chosen(definition, text.lower()) == "true"


def _chosen(definition: Definition, text: str) -> str:
    if text not in definition.choices:
        raise ValueError(f"must be one of {', '.join(definition.choices)}")
    return text


def _several(definition: Definition, text: str) -> str:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        _chosen(definition, word)
    if len(set(words)) != len(words):
        raise ValueError("names a value twice")
    return ",".join(words)


_PARSERS: dict[str, Callable[[Definition, str], Value]] = {
    "boolean": _boolean,
    "string": _chosen,
    "list": _several,
    "int": _whole,
    "long": _whole,
    "double": _real,
}

LATER = " Stored and listed; without effect in this version."

_ALL = (
    Definition(
        name="segment.bytes", type="int", default=str(8 << 20), low=1024, high=INT32_MAX,
        doc="Size at which a log begins a new segment file; retention deletes whole segments.",
    ),
    Definition(
        name="segment.ms", type="long", default="604800000", low=1,
        doc="Age at which a log begins a new segment file even if it is not full." + LATER,
    ),
    Definition(
        name="retention.ms", type="long", default="604800000", low=-1,
        doc="How long records are kept; -1 for ever." + LATER,
    ),
    Definition(
        name="retention.bytes", type="long", default="-1", low=-1,
        doc="How many bytes each partition keeps; -1 for no limit." + LATER,
    ),
    Definition(
        name="max.message.bytes", type="int", default="1048588", high=MAX_BATCH,
        doc="Largest record batch that is accepted, after compression.",
    ),
    Definition(
        name="min.insync.replicas", type="int", default="1", low=1, high=INT32_MAX,
        doc="Durable replicas a produce waits for beyond the majority that always commits." + LATER,
    ),
    Definition(
        name="message.timestamp.type", type="string", default="CreateTime", choices=("CreateTime", "LogAppendTime"),
        doc="Whether a record carries the producer's time or the time of its append.",
    ),
    Definition(
        name="message.timestamp.before.max.ms", type="long", default=str(INT64_MAX),
        doc="How far in the past a producer's timestamp may lie.",
    ),
    Definition(
        name="message.timestamp.after.max.ms", type="long", default="3600000",
        doc="How far in the future a producer's timestamp may lie.",
    ),
    Definition(
        name="compression.type", type="string", default="producer", choices=("producer",),
        doc="Only producer: batches are kept as they were sent.",
    ),
    Definition(
        name="cleanup.policy", type="list", default="delete", choices=("delete",),
        doc="What happens to old records." + LATER,
    ),
    Definition(
        name="delete.retention.ms", type="long", default="86400000",
        doc="How long compaction keeps a deletion (a record without value)." + LATER,
    ),
    Definition(
        name="min.cleanable.dirty.ratio", type="double", default="0.5", high=1,
        doc="Part of a log that must be uncompacted before it is compacted again." + LATER,
    ),
    Definition(
        name="min.compaction.lag.ms", type="long", default="0",
        doc="How long a record stays uncompacted at least." + LATER,
    ),
    Definition(
        name="unclean.leader.election.enable", type="boolean", default="false", choices=("false",),
        doc="Only false: a leader that lacks committed records cannot be elected here.",
    ),
    Definition(
        name="write.caching", type="boolean", default="false", choices=("false", "true"),
        doc="true: answer when a majority has the batch in its page cache." + LATER,
    ),
)  # fmt: skip

DEFINITIONS: dict[str, Definition] = {definition.name: definition for definition in _ALL}


def validate(configs: Mapping[str, str | None]) -> None:
    """:raises InvalidConfig: an unknown name (with the nearest known one), or a value out of its type or bounds."""
    for name, text in sorted(configs.items()):
        definition = DEFINITIONS.get(name)
        if definition is None:
            near = difflib.get_close_matches(name, DEFINITIONS, 1)
            raise InvalidConfig(f"Unknown topic config name: {name}" + (f"; did you mean {near[0]}?" if near else ""))
        if text is None:
            raise InvalidConfig(f"Null value not supported for topic configs: {name}")
        definition.parse(text)


def effective(configs: Mapping[str, str], name: str) -> str:
    """The value in force, as text: the topic's own or the default."""
    return configs.get(name, DEFINITIONS[name].default)
