"""The codec against kafka-python's, and its bounds."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nebula import wire
from nebula.model import DecodeError
from nebula.wire.frames import FrameReader

GROUP = {"group_id": "g", "member_id": "m", "generation_id": 1}
BODIES = {
    0: {
        "acks": -1,
        "timeout_ms": 9,
        "topic_data": [{"name": "t", "partition_data": [{"index": 1, "records": b"xyz"}]}],
    },
    1: {"max_wait_ms": 5, "min_bytes": 1, "max_bytes": 10, "topics": []},
    2: {"topics": [{"name": "t", "partitions": [{"partition_index": 0, "timestamp": -1}]}]},
    3: {"topics": [{"name": "t"}]},
    8: {**GROUP, "topics": [{"name": "t", "partitions": [{"partition_index": 0, "committed_offset": 5}]}]},
    9: {**GROUP, "topics": [], "groups": [{"group_id": "g", "topics": None}]},
    10: {"key": "g", "coordinator_keys": ["g"]},
    11: {**GROUP, "protocol_type": "consumer", "protocols": [{"name": "range", "metadata": b"m"}]},
    12: GROUP,
    13: {**GROUP, "members": [{"member_id": "m"}]},
    14: {**GROUP, "assignments": [{"member_id": "m", "assignment": b"a"}]},
    15: {"groups": ["g"]},
    16: {"states_filter": [], "types_filter": []},
    18: {"client_software_name": "a", "client_software_version": "1"},
    19: {"topics": [{"name": "t", "num_partitions": 1, "replication_factor": 1, "assignments": [], "configs": []}]},
    20: {"topics": [{"name": "t"}], "topic_names": ["t"], "timeout_ms": 5},
    22: {"transactional_id": None, "transaction_timeout_ms": 5},
    23: {"topics": [{"topic": "t", "partitions": [{"partition": 0, "leader_epoch": 1}]}]},
    32: {"resources": [{"resource_type": 2, "resource_name": "t", "configuration_keys": None}]},
    42: {"groups_names": ["g"]},
    47: {"group_id": "g", "topics": []},
    60: {},
}


class RoundTripTests(SynchronousTestCase):
    """Every request of every version decodes to what was encoded."""

    def test_every_request_version(self) -> None:
        """If this failed, some client's version of some call would be misread."""
        for key, (low, high) in wire.SERVED.items():
            for version in range(max(low, wire.LOWEST.get(key, 0)), high + 1):
                frame = b"".join(wire.encode_request(key, version, 5, "me", BODIES[key]))
                request = wire.decode_request(memoryview(frame)[4:])
                self.assertEqual((request.api_key, request.version, request.client_id), (key, version, "me"))
                again = b"".join(wire.encode_request(key, version, 5, "me", request.body))
                self.assertEqual(frame, again, f"API {key} version {version}")

    def test_records_are_not_copied(self) -> None:
        """If this failed, every published byte would be copied while decoding."""
        frame = bytearray(b"".join(wire.encode_request(0, 9, 5, "me", BODIES[0])))
        body = wire.decode_request(memoryview(frame)[4:]).body
        records = body["topic_data"][0]["partition_data"][0]["records"]
        self.assertIs(records.obj, frame)

    def test_unsupported_version_is_named(self) -> None:
        """If this failed, a newer client's ApiVersions could not be answered in version 0 (gotcha 2)."""
        with self.assertRaises(wire.UnsupportedVersion) as caught:
            wire.decode_request(memoryview(struct.pack(">hhi", 18, 99, 7)))
        self.assertEqual((caught.exception.version, caught.exception.correlation_id), (99, 7))


class HostileTests(SynchronousTestCase):
    """One error type, whatever the bytes."""

    @given(st.sampled_from(sorted(wire.SERVED)), st.integers(0, 16), st.binary(max_size=80))
    def test_garbage_bodies(self, key: int, version: int, body: bytes) -> None:
        """If this failed, hostile bytes would end in a traceback."""
        try:
            wire.decode_request(memoryview(struct.pack(">hhih", key, version, 1, -1) + body))
        except DecodeError:
            return

    def test_huge_counts_cost_nothing(self) -> None:
        """If this failed, twelve bytes could make the broker allocate gigabytes (CVE-2026-111108)."""
        head = struct.pack(">hhih", 3, 1, 1, -1)
        with self.assertRaises(DecodeError):
            wire.decode_request(memoryview(head + struct.pack(">i", 1 << 30)))


class FrameTests(SynchronousTestCase):
    """Frames cut anywhere come out whole."""

    @given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=4), st.integers(1, 50_000))
    def test_any_split(self, bodies: list[bytes], step: int) -> None:
        """If this failed, a frame split by TCP would be lost or mixed up."""
        reader, out = FrameReader(1 << 20), []
        data = b"".join(struct.pack(">i", len(b)) + b for b in bodies)
        for at in range(0, len(data), step):
            out += reader.feed(data[at : at + step])
        self.assertEqual([bytes(f) for f in out], bodies)
        for frame in out:
            self.assertFalse(frame.readonly)

    def test_bad_lengths(self) -> None:
        """If this failed, a length of 2 GiB would be allocated."""
        for size in (0, -1, 1 << 30):
            with self.assertRaises(DecodeError):
                FrameReader(1 << 20).feed(struct.pack(">i", size))
