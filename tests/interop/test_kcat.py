"""kcat (an older librdkafka), unmodified, against real nodes."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.shared import fresh, run, shared, stored


class KcatTests(SynchronousTestCase):
    """The tool everybody reaches for first."""

    def setUp(self) -> None:
        self.cluster = shared(__name__)

    def kcat(self, topic: str, *arguments: str, given: bytes = b"", expect: int | None = 0) -> bytes:
        base = ["kcat", "-b", self.cluster.bootstrap, "-t", topic, "-p", "0"]
        return run([*base, *arguments], given, expect=expect)[0]

    def test_codecs_are_really_used(self) -> None:
        """If this failed, old librdkafka would silently send uncompressed (KAFKA-18659)."""
        for codec, number in {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}.items():
            topic = fresh(codec)
            lines = b"".join(b"%s %d\n" % (b"repeated" * 20, i) for i in range(200))
            self.kcat(topic, "-P", "-z", codec, given=lines)
            self.assertEqual(self.kcat(topic, "-C", "-o", "beginning", "-e", "-q"), lines)
            self.assertEqual({header.codec for header in stored(self.cluster, topic)}, {number}, codec)

    def test_positions(self) -> None:
        """If this failed, `-o` would begin somewhere else than asked."""
        topic = fresh("positions")
        self.kcat(topic, "-P", given=b"".join(b"%d\n" % i for i in range(20)))
        for place, first in (("beginning", 0), ("7", 7), ("-5", 15), ("s@0", 0)):
            expected = b"".join(b"%d\n" % i for i in range(first, 20))
            self.assertEqual(self.kcat(topic, "-C", "-o", place, "-e", "-q"), expected, place)
        self.assertEqual(self.kcat(topic, "-C", "-o", "end", "-e", "-q"), b"")

    def test_keys_headers_nulls_and_newlines(self) -> None:
        """If this failed, what is between the records would be taken for what is in them."""
        topic = fresh("shapes")
        rows = b"k1:a\nb|k2:|:v3|"
        self.kcat(topic, "-P", "-D", "|", "-K", ":", "-Z", "-H", "h=1", "-X", "acks=all", given=rows)
        lines = self.kcat(topic, "-C", "-o", "beginning", "-e", "-q", "-J").splitlines()
        found = [(row["key"], row["payload"], row["headers"]) for row in map(json.loads, lines)]
        self.assertEqual(found, [("k1", "a\nb", ["h", "1"]), ("k2", None, ["h", "1"]), (None, "v3", ["h", "1"])])

    def test_listing(self) -> None:
        """If this failed, `kcat -L` would not show the cluster as it is."""
        topic = fresh("listed")
        self.kcat(topic, "-P", given=b"x\n")
        shown = json.loads(run(["kcat", "-b", self.cluster.bootstrap, "-L", "-J"])[0])
        self.assertEqual(len(shown["brokers"]), 3)
        row = next(t for t in shown["topics"] if t["topic"] == topic)
        self.assertEqual([len(p["replicas"]) for p in row["partitions"]], [3, 3, 3])

    def test_an_illegal_topic_is_refused(self) -> None:
        """If this failed, a mistyped topic would look like success."""
        with self.assertRaises(AssertionError) as failed:
            self.kcat("not/legal", "-P", given=b"x\n")
        self.assertIn("Invalid topic", str(failed.exception))
