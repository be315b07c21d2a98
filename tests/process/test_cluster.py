"""Real nodes, real clients, real kills."""

from __future__ import annotations

import os
import signal
import subprocess

from confluent_kafka import Producer
from twisted.trial.unittest import SynchronousTestCase

from nebula.testing.processes import ProcessCluster, eventually
from nebula.testing.wireclient import WireClient


def segments(cluster: ProcessCluster, name: str, topic: str) -> dict[str, bytes]:
    """Segment files of one topic on one node, by partition and file."""
    root = os.path.join(cluster.data_dir(name), "partitions")
    found = {}
    for folder in sorted(os.listdir(root)):
        if f"-{topic}-" in folder:
            for file in sorted(os.listdir(os.path.join(root, folder))):
                if file.endswith(".log"):
                    with open(os.path.join(root, folder, file), "rb") as stream:
                        found[f"{folder}/{file}"] = stream.read().rstrip(b"\0")
    return found


class FailoverTests(SynchronousTestCase):
    """kill -9 of leaders."""

    def setUp(self) -> None:
        self.cluster = ProcessCluster(3)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def read_all(self, topic: str, total: int) -> list[tuple[int, bytes]]:
        rows: list[tuple[int, bytes]] = []

        def complete() -> bool:
            with WireClient(self.cluster.client_address(self.cluster.leader_of(topic, 0))) as client:
                row = client.fetch(topic, 0, len(rows))
                rows.extend(row["values"])
            return len(rows) >= total

        eventually(f"{total} records in {topic}", complete, 30)
        return rows

    def test_three_leaders_in_a_row_lose_nothing(self) -> None:
        """If this failed, an acknowledged record was lost, doubled, reordered or renumbered by a fail-over."""
        cluster = self.cluster
        acked: list[tuple[int, bytes]] = []
        producer = Producer({"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True, "linger.ms": 1,
                             "retry.backoff.ms": 20, "log_level": 0})  # fmt: skip

        def delivered(error: object, message: object) -> None:
            self.assertIsNone(error)
            acked.append((message.offset(), message.value()))  # type: ignore[attr-defined]

        sent = 0
        for _ in range(3):
            for step in range(400):
                producer.produce("orders", b"%d" % sent, partition=0, on_delivery=delivered)
                sent += 1
                producer.poll(0.002)
                if step == 200:
                    victim = cluster.leader_of("orders", 0)
                    cluster.kill(victim, signal.SIGKILL)
            producer.flush(30)
            cluster.spawn(victim)
            cluster.wait_ready(victim)
        self.assertEqual(len(acked), sent)
        self.assertEqual(acked, [(i, b"%d" % i) for i in range(sent)])
        self.assertEqual(self.read_all("orders", sent), acked)
        self.replicas_become_equal("orders")

    def replicas_become_equal(self, topic: str) -> None:
        cluster = self.cluster

        def equal() -> bool:
            contents = [segments(cluster, name, topic) for name in cluster.names]
            return bool(contents[0]) and all(content == contents[0] for content in contents)

        eventually(f"byte-equal replicas of {topic}", equal, 20)

    def test_a_leader_without_followers_acknowledges_nothing(self) -> None:
        """If this failed, a record on one disk would be called safe."""
        cluster = self.cluster
        leader = cluster.leader_of("alone", 0)
        with WireClient(cluster.client_address(leader), 3.0) as client:
            self.assertEqual(client.produce("alone", 0, [(None, b"before")])["base_offset"], 0)
            for name in cluster.names:
                if name != leader:
                    cluster.kill(name)
            try:
                row = client.produce("alone", 0, [(None, b"after")])
            except OSError:
                return
            self.assertNotEqual(row["error_code"], 0)

    def test_a_clean_stop_is_complete(self) -> None:
        """If this failed, a planned stop would hang, or end before everything is closed in its order."""
        # twistd ends itself by the signal it was given, as supervisors expect.
        self.assertIn(self.cluster.kill("n2", signal.SIGTERM), (0, -signal.SIGTERM))
        self.assertIn("Server Shut Down", self.cluster.log("n2"))
        self.assertNotIn("Traceback", self.cluster.log("n2"))

    def test_a_wiped_node_comes_back(self) -> None:
        """If this failed, a node that lost its disk could not be replaced, or would vote with an empty log."""
        cluster = self.cluster
        leader = cluster.leader_of("kept", 0)
        with WireClient(cluster.client_address(leader)) as client:
            for i in range(50):
                self.assertEqual(client.produce("kept", 0, [(None, b"%d" % i)])["error_code"], 0)
        victim = next(name for name in cluster.names if name != leader)
        cluster.kill(victim)
        subprocess.run(["rm", "-rf", cluster.data_dir(victim)], check=True)
        cluster.spawn(victim)
        cluster.wait_ready(victim)
        self.replicas_become_equal("kept")


class RefusalTests(SynchronousTestCase):
    """A start that cannot be: one clear line, a non-zero exit."""

    def test_refusals(self) -> None:
        """If this failed, an operator would meet a traceback, or two processes on one directory."""
        with ProcessCluster(1) as cluster:
            command = cluster.command("n1")
            at = command.index("--data-dir") + 1
            other = [*command[:at], os.path.join(cluster.directory, "other"), *command[at + 1 :]]
            stranger = [*command, "--id", "n9"]
            bad_port = [*command, "--port", "99999"]
            cases = {"NEB-1202": other, "lock": command, "NEB-1206": bad_port}
            for expected, argv in cases.items():
                done = subprocess.run(argv, cwd=cluster.directory, capture_output=True, text=True, timeout=30)
                self.assertNotEqual(done.returncode, 0, expected)
                self.assertNotIn("Traceback", done.stderr + done.stdout)
                if expected.startswith("NEB"):
                    self.assertIn(expected, done.stderr + done.stdout)
            cluster.kill("n1", signal.SIGTERM)
            done = subprocess.run(stranger, cwd=cluster.directory, capture_output=True, text=True, timeout=30)
            self.assertIn("NEB-1203", done.stderr)
            self.assertNotEqual(done.returncode, 0)
