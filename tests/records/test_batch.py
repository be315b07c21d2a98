"""Record batches: header view, stamp, checks, codecs; compared with a builder nobody here wrote."""

from __future__ import annotations

from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nebula.model import InvalidBatch, Voter
from nebula.records import control
from nebula.records.batch import RefusedBatch, check_produced, crc_ok, read_header, stamp, walk
from nebula.records.record import build_batch, read_records

maybe = st.none() | st.binary(max_size=50)


class BatchTests(SynchronousTestCase):
    """The format itself."""

    @given(st.lists(st.tuples(maybe, maybe), min_size=1, max_size=5), st.integers(0, 4))
    def test_round_trip_and_parity(self, pairs: list[tuple[bytes | None, bytes | None]], codec: int) -> None:
        """If this failed, keys or values would change between producer and consumer, for some codec."""
        batch = build_batch([(k, v, (("h", b"x"),), 5 + i) for i, (k, v) in enumerate(pairs)], codec=codec)
        self.assertEqual([(r.key, r.value) for r in read_records(batch)], pairs)
        theirs = list(DefaultRecordBatch(bytes(batch)))
        self.assertEqual(
            [(r.key, r.value, r.timestamp) for r in theirs], [(k, v, 5 + i) for i, (k, v) in enumerate(pairs)]
        )

    def test_stamp_leaves_the_checksum_good(self) -> None:
        """If this failed, every stamped batch would be refused by followers and consumers."""
        batch = build_batch([(b"k", b"v", (), 0)] * 3)
        stamp(batch, 1000, 7)
        header = read_header(batch)
        self.assertEqual((header.base_offset, header.leader_epoch, header.end_offset), (1000, 7, 1003))
        self.assertTrue(crc_ok(batch))

    @given(st.binary(max_size=200))
    def test_garbage_is_refused(self, data: bytes) -> None:
        """If this failed, hostile bytes would raise something nobody catches."""
        for read in (read_header, read_records, lambda d: list(walk(d)), lambda d: check_produced(d, max_bytes=1000)):
            try:
                read(data)
            except InvalidBatch:
                continue

    def test_refusals_have_their_reason(self) -> None:
        """If this failed, a client would get the wrong error code for a bad batch (gotcha 23)."""
        good = build_batch([(None, b"v", (), 0)])
        flipped = bytearray(good)
        flipped[-1] ^= 1
        cases = {
            "corrupt": flipped,
            "invalid_record": build_batch([(None, b"v", (), 0)], attributes=0x20),
            "unsupported_codec": build_batch([(None, b"v", (), 0)], attributes=7),
        }
        for reason, batch in cases.items():
            with self.assertRaises(RefusedBatch) as caught:
                check_produced(batch, max_bytes=1000)
            self.assertEqual(caught.exception.reason, reason)
        with self.assertRaises(RefusedBatch) as caught:
            check_produced(good, max_bytes=10)
        self.assertEqual(caught.exception.reason, "too_large")

    def test_bombs_are_bounded(self) -> None:
        """If this failed, a small batch could become a large memory (CVE-2023-34455)."""
        for codec in range(1, 5):
            batch = build_batch([(None, bytes(1 << 20), (), 0)], codec=codec)
            self.assertLess(len(batch), 100_000)
            with self.assertRaises(InvalidBatch):
                read_records(batch, max_bytes=1000)

    def test_control_batches(self) -> None:
        """If this failed, a term marker would move offsets, or a membership change would be lost."""
        marker = read_header(control.marker(3, 10, 0))
        self.assertEqual((marker.is_marker, marker.width, marker.end_offset), (True, 0, 10))
        voters = (Voter("n1", "a"), Voter("n2", "b"))
        batch = control.voters_batch(voters, (Voter("n3", "c"),), 0)
        self.assertTrue(control.is_voters(batch, read_header(batch)))
        self.assertEqual(control.read_voters(batch), (voters, (Voter("n3", "c"),)))
