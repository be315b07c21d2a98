"""Starts that must be refused, and stops that must be clean: what an operator sees of one process."""

from __future__ import annotations

import os
import socket
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from nebula.testing.processes import ProcessCluster


class StartTests(SynchronousTestCase):
    """One clear message, a non-zero exit, nothing changed."""

    def setUp(self) -> None:
        self.cluster = ProcessCluster(1)
        self.addCleanup(self.cluster.close)

    def refused(self, *more: str) -> str:
        """What a start with `more` flags says before it ends by itself, non-zero and without a traceback."""
        argv = [*self.cluster.command("n1"), *more]
        done = subprocess.run(argv, cwd=self.cluster.directory, capture_output=True, text=True, timeout=30)
        said = done.stdout + done.stderr
        self.assertNotEqual(done.returncode, 0, said)
        self.assertNotIn("Traceback", said)
        return said

    def test_ports_in_use(self) -> None:
        """If this failed, a node would run half: alive for its peers, absent for clients, or the other way round."""
        port = self.cluster.port("n1")
        for kind, taken in (
            (socket.SOCK_DGRAM, port),
            (socket.SOCK_STREAM, port + 1000),
            (socket.SOCK_STREAM, port + 2000),
        ):
            with socket.socket(type=kind) as holder:
                if kind == socket.SOCK_STREAM:  # an earlier test's closed connections may still be remembered
                    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                holder.bind(("127.0.0.1", taken))
                if kind == socket.SOCK_STREAM:
                    holder.listen()
                said = self.refused()
                self.assertIn("NEB-1202", said)
                self.assertIn(str(taken), said)

    def test_a_second_process_on_one_directory(self) -> None:
        """If this failed, two processes would write one log."""
        self.cluster.start()
        said = self.refused("--port", str(self.cluster.port("n1") + 100))
        self.assertIn("NEB-1207", said)
        self.assertIn("in use by process", said)
        self.assertIn(str(self.cluster.processes["n1"].pid), said)
        self.cluster.wait_ready("n1")

    def test_a_file_where_the_directory_should_be(self) -> None:
        """If this failed, a mistyped --data-dir would end in a traceback."""
        path = os.path.join(self.cluster.directory, "a-file")
        with open(path, "w") as file:
            file.write("precious")
        for place in (path, os.path.join(path, "below")):
            self.assertIn("NEB-1201", self.refused("--data-dir", place))
        with open(path) as file:
            self.assertEqual(file.read(), "precious")

    def test_partitions_without_an_identity(self) -> None:
        """If this failed, a node would give a full disk a new identity, and vote as if it had forgotten nothing."""
        self.cluster.start()
        self.cluster.leader_of("kept", 0)
        self.cluster.stop("n1")
        os.unlink(os.path.join(self.cluster.data_dir("n1"), "identity.json"))
        self.assertIn("NEB-1204", self.refused())

    def test_stop_and_start_again(self) -> None:
        """If this failed, a planned restart would lose records, or be refused by what the last run left behind."""
        self.cluster.start()
        self.cluster.leader_of("kept", 0)
        with self.cluster.any_client() as client:
            self.assertEqual(client.produce("kept", 0, [(None, b"value")])["error_code"], 0)
        self.cluster.stop("n1")
        self.cluster.restart("n1")
        self.cluster.leader_of("kept", 0)
        with self.cluster.any_client() as client:
            self.assertEqual(client.fetch("kept", 0, 0, 2000)["values"], [(0, b"value")])
