"""Publish and fetch through a real three-node cluster, with a load generator in C: medians of several rounds.

    python benchmarks/throughput.py [--rounds 3] [--seconds 4] [--json FILE]

Everything is acknowledged after a majority has fsynced it, on fresh (growing) segment files. Generator and nodes share
the machine. A line counts only if not one answer carried an error and the leader did not move meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from nebula import wire
from nebula.records.record import build_batch
from nebula.testing.processes import ProcessCluster

HERE = os.path.dirname(os.path.abspath(__file__))
TOPIC = "bench"
PRODUCE_VERSION, FETCH_VERSION = 7, 4
PRODUCE_ERROR = 4 + 4 + 2 + len(TOPIC) + 4 + 4
"""Place of the error code in an answer's body: behind correlation id, counts, topic and partition."""
FETCH_ERROR = PRODUCE_ERROR + 4
LINES = (
    ("publish 100 B, 1 in flight", "produce", 100, 1, 1),
    ("publish 100 B, 50 connections x 1", "produce", 100, 50, 1),
    ("publish 100 B, 50 connections x 5", "produce", 100, 50, 5),
    ("publish 100 kB, 1 in flight", "produce", 100_000, 1, 1),
    ("publish 100 kB, 4 x 4", "produce", 100_000, 4, 4),
    ("publish 1 MB, 1 x 4", "produce", 1_000_000, 1, 4),
    ("fetch 1 MB answers, 1 consumer", "fetch", 1_000_000, 1, 1),
    ("fetch 1 MB answers, 4 consumers", "fetch", 1_000_000, 4, 1),
    ("fetch 100 kB answers, 4 consumers", "fetch", 100_000, 4, 1),
)


def produce_frame(size: int) -> bytes:
    """A request whose one batch has about `size` bytes, in records of at most 1 kB."""
    value = min(1000, size - 80)
    rows = [(None, os.urandom(value), (), 0) for _ in range(max(1, (size - 70) // (value + 10)))]
    data = [{"name": TOPIC, "partition_data": [{"index": 0, "records": build_batch(rows)}]}]
    body = {"transactional_id": None, "acks": -1, "timeout_ms": 30000, "topic_data": data}
    return b"".join(bytes(c) for c in wire.encode_request(0, PRODUCE_VERSION, 1, "bench", body))


def fetch_frame(size: int) -> bytes:
    """A request for `size` bytes from the start."""
    part = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": size, "current_leader_epoch": -1}
    body = {
        "replica_id": -1, "max_wait_ms": 500, "min_bytes": 1, "max_bytes": size, "isolation_level": 0,
        "topics": [{"topic": TOPIC, "partitions": [part]}],
    }  # fmt: skip
    return b"".join(bytes(c) for c in wire.encode_request(1, FETCH_VERSION, 1, "bench", body))


def build_generator(folder: str) -> str:
    """The compiled load generator; needs a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        sys.exit("throughput.py needs a C compiler (Debian: apt-get install gcc)")
    target = os.path.join(folder, "load")
    subprocess.run([compiler, "-O2", "-o", target, os.path.join(HERE, "load.c")], check=True)
    return target


def run_line(cluster: ProcessCluster, generator: str, folder: str, line: Any, seconds: float) -> dict[str, Any]:
    """One line once."""
    name, kind, size, connections, depth = line
    path = os.path.join(folder, f"{kind}{size}")
    with open(path, "wb") as file:
        file.write((produce_frame if kind == "produce" else fetch_frame)(size))
    leader = cluster.leader_of(TOPIC, 0)
    place = PRODUCE_ERROR if kind == "produce" else FETCH_ERROR
    port = cluster.client_address(leader)[1]
    command = [generator, str(port), path, str(connections), str(depth), str(seconds), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30)
    figures: dict[str, Any] = json.loads(done.stdout)
    if figures["errors"] or cluster.leader_of(TOPIC, 0) != leader:
        raise SystemExit(f"{name}: no figure, for answers were errors or the leader moved: {figures}")
    return figures


def one_round(generator: str, folder: str, seconds: float) -> dict[str, dict[str, Any]]:
    """A fresh cluster through all lines."""
    began = time.monotonic()
    with ProcessCluster(3) as cluster:
        figures: dict[str, dict[str, Any]] = {"start of three nodes": {"seconds": time.monotonic() - began}}
        figures["idle node"] = {"rss_mb": max(map(cluster.rss_bytes, cluster.names)) / 1e6}
        cluster.leader_of(TOPIC, 0)
        time.sleep(5)  # leaders are spread over the nodes some seconds after a start: not during a measurement
        for line in LINES:
            figures[line[0]] = run_line(cluster, generator, folder, line, seconds)
        figures["busy node"] = {"rss_mb": max(map(cluster.rss_bytes, cluster.names)) / 1e6}
    return figures


def main() -> None:
    """Run the rounds, print medians."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=4.0)
    options.add_argument("--json", help="also write every round's figures to this file")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        generator = build_generator(folder)
        rounds = [one_round(generator, folder, chosen.seconds) for _ in range(chosen.rounds)]
    for name in rounds[0]:
        medians = {key: statistics.median(r[name][key] for r in rounds) for key in rounds[0][name]}
        print(
            f"{name:36s}",
            "  ".join(f"{key} {value:,.1f}" for key, value in medians.items() if not key.startswith("error")),
        )
    if chosen.json:
        with open(chosen.json, "w") as file:
            json.dump(rounds, file, indent=1)


if __name__ == "__main__":
    main()
