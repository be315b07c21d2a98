"""What hostile bytes may cost, and what is refused instead of guessed."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nebula import wire
from nebula.model import DecodeError
from nebula.wire.decoding import struct_decoder
from nebula.wire.encoding import struct_encoder
from nebula.wire.schema import Field

CREATE = struct.pack(">hhih", 19, 2, 1, -1)
WIDE = struct.pack(">i", 150_000) + bytes(4 * 150_000)


class BoundsTests(SynchronousTestCase):
    """Bounds hold for the whole message, not for each of its parts."""

    def test_nested_arrays_share_one_cap(self) -> None:
        """If this failed, 100 MB of small nested arrays would become gigabytes of objects."""
        topic = struct.pack(">ih1sihi", 1, 1, b"t", 1, 1, 2)
        assignments = b"".join(struct.pack(">i", i) + WIDE for i in range(2))
        frame = CREATE + topic + assignments + struct.pack(">iib", 0, 5, 0)
        with self.assertRaises(DecodeError):
            wire.decode_request(memoryview(frame))

    def test_one_message_does_not_use_up_the_next_ones_cap(self) -> None:
        """If this failed, a busy broker would refuse good requests after a while."""
        topic = struct.pack(">ih1sihi", 1, 1, b"t", 1, 1, 1)
        frame = CREATE + topic + struct.pack(">i", 0) + WIDE + struct.pack(">iib", 0, 5, 0)
        for _ in range(2):
            self.assertEqual(wire.decode_request(memoryview(frame)).body["timeout_ms"], 5)

    def test_client_id_length(self) -> None:
        """If this failed, a client id cut short, or of length -7, would pass as a good one."""
        for size in (-7, 3, 32767):
            with self.assertRaises(DecodeError):
                wire.decode_request(memoryview(struct.pack(">hhih", 18, 0, 1, size) + b"ab"))

    def test_versions_beyond_the_tables(self) -> None:
        """If this failed, Produce 13 would be encoded without its topic ids, and nobody would be told."""
        for api_key, version in ((0, 13), (0, 2), (1, 18), (3, 13), (99, 0)):
            with self.assertRaises(wire.UnsupportedVersion):
                wire._codec("request", api_key, version)
            with self.assertRaises(wire.UnsupportedVersion):
                wire._codec("response", api_key, version)

    @given(st.sampled_from(sorted(wire.SERVED)), st.integers(0, 16), st.binary(max_size=200))
    def test_garbage_answers(self, api_key: int, version: int, data: bytes) -> None:
        """If this failed, a broken peer's answer would end in a traceback at the client."""
        try:
            wire.decode_response(api_key, version, memoryview(data))
        except DecodeError:
            return


class SourceTests(SynchronousTestCase):
    def test_numbers_left_out_or_none_are_their_defaults(self) -> None:
        """Broken: an answer that leaves a number out, or has None there, would not be sent at all."""
        full = wire.encode_response(0, 9, 1, answer(base_offset=-1, error_code=0))
        self.assertEqual(wire.encode_response(0, 9, 1, answer(base_offset=None)), full)
        self.assertEqual(wire.encode_response(0, 9, 1, answer()), full)

    def test_a_struct_that_may_be_null(self) -> None:
        """Broken: the byte before a nullable struct would be taken for its first field."""
        field = Field("cursor", "{}", nullable=(0, 1), fields=[Field("place", "int32")])
        encode, decode = struct_encoder([field], 0, True), struct_decoder([field], 0, True)
        for body, raw in (({"cursor": None}, b"\xff\0"), ({"cursor": {"place": 7}}, b"\x01\0\0\0\x07\0\0")):
            out: list[Any] = []
            encode(out, body)
            self.assertEqual(b"".join(out), raw)
            self.assertEqual(decode(memoryview(raw), 0, [9]), (body, len(raw)))


def answer(**row: Any) -> dict[str, Any]:
    return {"responses": [{"name": "t", "partition_responses": [{"index": 0, **row}]}]}
