"""Record timestamps at the door: the topic's bounds, and LogAppendTime (gotcha 22)."""

from __future__ import annotations

import struct
from typing import Any

from crc32c import crc32c

from nebula.cluster.configs import effective
from nebula.model import NebulaError
from nebula.records.batch import Header
from nebula.wire import errors

LOG_APPEND_TIME = 0x08
ATTRIBUTES = struct.Struct(">h")
MAX_TIMESTAMP = struct.Struct(">q")
CRC = struct.Struct(">I")


class InvalidTimestamp(NebulaError):
    """A record's timestamp lies outside the topic's bounds."""

    code = "NEB-1007"
    kafka_code = errors.INVALID_TIMESTAMP


def check_times(topic: Any, header: Header, now_ms: int | None = None) -> None:
    """:raises InvalidTimestamp: `max_timestamp` is further from now than the topic allows."""
    if now_ms is None or header.max_timestamp < 0:
        return
    after = int(effective(topic.configs, "message.timestamp.after.max.ms"))
    before = int(effective(topic.configs, "message.timestamp.before.max.ms"))
    if header.max_timestamp - now_ms > after or now_ms - header.base_timestamp > before:
        raise InvalidTimestamp(f"timestamp {header.max_timestamp} is out of the bounds of topic {topic.name}")


def restamp(
    topic: Any, records: memoryview, header: Header, now_ms: int, row: dict[str, Any]
) -> tuple[memoryview, Header]:
    """For a LogAppendTime topic set the attribute bit, the time and the CRC in place; otherwise only check the bounds."""
    if effective(topic.configs, "message.timestamp.type") != "LogAppendTime":
        check_times(topic, header, now_ms)
        return records, header
    attributes = header.attributes | LOG_APPEND_TIME
    ATTRIBUTES.pack_into(records, 21, attributes)
    MAX_TIMESTAMP.pack_into(records, 35, now_ms)
    crc = crc32c(records[21:])
    CRC.pack_into(records, 17, crc)
    row["log_append_time_ms"] = now_ms
    return records, header._replace(attributes=attributes, max_timestamp=now_ms, crc=crc)
