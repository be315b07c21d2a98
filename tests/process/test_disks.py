"""Disks that fail under real nodes: libfiu makes fdatasync return EIO (Debian: fiu-utils)."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from confluent_kafka import Producer
from twisted.trial.unittest import SynchronousTestCase

from nebula.testing.processes import ProcessCluster, eventually


class FailingSyncTests(SynchronousTestCase):
    """Three nodes."""

    def test_nobody_acknowledges_what_two_disks_did_not_take(self) -> None:
        """Broken: records are acknowledged that are in the page cache of two nodes and on the disk of one."""
        self.assertIsNotNone(shutil.which("fiu-run"), "fiu-run is not installed (Debian: apt-get install fiu-utils)")
        cluster = ProcessCluster(3)
        cluster.wrapper = ["fiu-run", "-x"]
        self.addCleanup(cluster.close)
        cluster.start()
        acked: list[bytes] = []
        failed: list[bytes] = []

        def delivered(error: Any, message: Any) -> None:
            (acked if error is None else failed).append(message.value())

        producer = Producer(
            {"bootstrap.servers": cluster.bootstrap, "message.timeout.ms": 6000, "linger.ms": 0, "log_level": 0}
        )
        producer.produce("t", b"before", partition=0, on_delivery=delivered)
        self.assertEqual((producer.flush(20), acked), (0, [b"before"]))
        victims = [cluster.leader_of("t", 0)]
        victims.append(next(name for name in cluster.names if name not in victims))
        for name in victims:
            pid = str(cluster.processes[name].pid)
            argv = ["fiu-ctrl", "-c", "enable name=posix/io/sync/fdatasync", pid]
            done = subprocess.run(argv, check=True, timeout=30, capture_output=True)
            self.assertEqual(done.stdout, b"")  # it complains there, and ends with 0 all the same
        for number in range(20):
            producer.produce("t", b"after %d" % number, partition=0, on_delivery=delivered)
        producer.flush(20)
        self.assertEqual((acked, len(failed)), ([b"before"], 20))
        for name in victims:
            eventually(f"the end of {name}", lambda name=name: cluster.processes[name].poll() is not None)
            self.assertEqual(cluster.processes[name].returncode, 5)
            self.assertIn("NEB-1301", cluster.log(name))
