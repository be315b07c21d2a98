"""What the client tests share: one cluster per module, topics of their own, and what is stored, read without a client."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from crc32c import crc32c

from nebula.records.batch import Header, walk
from nebula.testing.processes import ProcessCluster, eventually
from nebula.testing.wireclient import WireClient

ILLEGAL_NAMES = (".", "..", "a/b", "a b", "ü", "x" * 250)
LARGE = os.urandom(900_000)
"""Just below the default of 1 MiB, and no codec can make it smaller."""
PAYLOADS: list[bytes | None] = [b"plain", b"", None, b"line\nbreak\r\n", b"\x00\xff", LARGE]

_running: dict[int, ProcessCluster] = {}
_owner = ""
_serial = count(1)


def shared(module: str, size: int = 3, settings: Mapping[str, str] | None = None) -> ProcessCluster:
    """The module's cluster of `size` nodes, started on first use; the module before has ended by then."""
    global _owner
    if module != _owner:
        close()
        _owner = module
    if size not in _running:
        cluster = ProcessCluster(size, settings=settings)
        _running[size] = cluster  # before the start: a cluster that fails half way is ended too
        cluster.start()
    return _running[size]


@atexit.register
def close() -> None:
    """End every process that was started here."""
    while _running:
        _running.popitem()[1].close()


def fresh(prefix: str) -> str:
    """A topic name no test has used."""
    return f"{prefix}-{next(_serial)}"


def run(argv: Sequence[str], given: bytes = b"", seconds: float = 60, expect: int | None = 0) -> tuple[bytes, str]:
    """A tool's output and messages; another exit code than `expect` is an AssertionError that quotes both."""
    if shutil.which(argv[0]) is None:
        raise AssertionError(f"{argv[0]} is not installed; these tests need it (Debian: apt-get install {argv[0]})")
    done = subprocess.run(argv, input=given, capture_output=True, timeout=seconds)
    said = done.stderr.decode(errors="replace")
    if expect is not None and done.returncode != expect:
        raise AssertionError(f"{argv}: exit {done.returncode}\n{done.stdout[-2000:]!r}\n{said[-2000:]}")
    return done.stdout, said


def stored(cluster: ProcessCluster, topic: str, partition: int = 0) -> list[Header]:
    """Headers of the record batches that a consumer would get from the start of a partition."""
    with WireClient(cluster.client_address(cluster.leader_of(topic, partition))) as client:
        data = client.fetch(topic, partition, 0)["records"]
    return [header for _at, header in walk(data)] if data else []


def end_offset(cluster: ProcessCluster, topic: str, partition: int = 0) -> int:
    """The high watermark, asked of the leader."""
    with WireClient(cluster.client_address(cluster.leader_of(topic, partition))) as client:
        return int(client.fetch(topic, partition, 0, 0)["high_watermark"])


def wait_for_end(cluster: ProcessCluster, topic: str, offset: int) -> None:
    """Until partition 0 ends at `offset`: the only way to see acks=0 arrive."""
    eventually(f"{topic}-0 ends at {offset}", lambda: end_offset(cluster, topic) == offset)


def wait_for_topic(cluster: ProcessCluster, topic: str) -> None:
    """Until every node lists it: creation is answered when it is committed, and nodes apply it at their own pace."""

    def listed(name: str) -> bool:
        with WireClient(cluster.client_address(name)) as client:
            return topic in [row["name"] for row in client.metadata(None)["topics"]]

    eventually(f"{topic} on every node", lambda: all(listed(name) for name in cluster.names))


def is_gone(cluster: ProcessCluster, topic: str) -> bool:
    """No node that is up lists the topic."""
    listed = []
    for name in cluster.names:
        with WireClient(cluster.client_address(name)) as client:
            listed += [row["name"] for row in client.metadata(None)["topics"]]
    return topic not in listed


def produce_body(records: Any, topic: str, partition: int = 0, acks: int = -1) -> dict[str, Any]:
    """A Produce request of one batch."""
    parts = [{"index": partition, "records": records}]
    return {"acks": acks, "timeout_ms": 5000, "topic_data": [{"name": topic, "partition_data": parts}]}


def spoiled(batch: bytearray, at: int, data: bytes, seal: bool = False) -> bytearray:
    """A copy of `batch` with other bytes at a place, its checksum made right again if `seal`."""
    bad = bytearray(batch)
    bad[at : at + len(data)] = data
    if seal:
        bad[17:21] = crc32c(bytes(bad[21:])).to_bytes(4, "big")
    return bad
