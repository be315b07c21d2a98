"""A blocking Kafka client of a few calls, for tests and the demo: one connection, one request at a time."""

from __future__ import annotations

import socket
import struct
from typing import Any

from nebula import wire
from nebula.records.batch import walk
from nebula.records.record import build_batch, read_records

Address = tuple[str, int]


class WireClient:
    """One connection to one node."""

    def __init__(self, address: Address, timeout_s: float = 5.0) -> None:
        self._socket = socket.create_connection(address, timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._serial = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> WireClient:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def call(self, api_key: int, version: int, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer. :raises OSError: the connection broke or timed out."""
        self._serial += 1
        self._socket.sendall(b"".join(wire.encode_request(api_key, version, self._serial, "nebula-testing", body)))
        size = struct.unpack(">i", self._exactly(4))[0]
        serial, answer = wire.decode_response(api_key, version, memoryview(self._exactly(size)))
        if serial != self._serial:
            raise OSError(f"answer {serial} to request {self._serial}")
        return answer

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._socket.recv(min(size - len(parts), 1 << 20))
            if not part:
                raise ConnectionResetError("the node closed the connection")
            parts += part
        return bytes(parts)

    def metadata(self, topics: list[str] | None, create: bool = True) -> dict[str, Any]:
        wanted = None if topics is None else [{"name": name} for name in topics]
        return self.call(3, 9, {"topics": wanted, "allow_auto_topic_creation": create})

    def produce(
        self, topic: str, partition: int, records: list[tuple[bytes | None, bytes | None]], **batch: int
    ) -> dict[str, Any]:
        """One batch, acks=all; the partition's row of the answer."""
        built = build_batch([(key, value, (), 0) for key, value in records], **batch)
        data = [{"name": topic, "partition_data": [{"index": partition, "records": built}]}]
        answer = self.call(0, 9, {"acks": -1, "timeout_ms": 5000, "topic_data": data})
        return dict(answer["responses"][0]["partition_responses"][0])

    def fetch(self, topic: str, partition: int, offset: int, max_wait_ms: int = 100) -> dict[str, Any]:
        """The partition's row, with `values`: (offset, value) of the records from `offset` on."""
        part = {"partition": partition, "fetch_offset": offset, "partition_max_bytes": 1 << 20}
        body = {
            "max_wait_ms": max_wait_ms,
            "min_bytes": 1,
            "max_bytes": 1 << 22,
            "topics": [{"topic": topic, "partitions": [part]}],
        }
        row = dict(self.call(1, 11, body)["responses"][0]["partitions"][0])
        data = row["records"]
        found = [r for at, h in walk(data) if not h.is_control for r in read_records(data, at)] if data else []
        row["values"] = [(r.offset, r.value) for r in found if r.offset >= offset]
        return row
