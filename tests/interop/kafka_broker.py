"""A real Apache Kafka broker (KRaft, one node), to ask what an answer should be."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile

from nebula.testing.processes import eventually
from nebula.testing.wireclient import WireClient
from tests.interop.java_tools import jars

SETTINGS = {
    "process.roles": "broker,controller", "node.id": 1, "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT", "num.partitions": 3,
    "offsets.topic.replication.factor": 1, "offsets.topic.num.partitions": 4, "group.initial.rebalance.delay.ms": 0,
    "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1,
}  # fmt: skip


def free_port() -> int:
    """One that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class KafkaBroker:
    """Started by the constructor, ended by `close`."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="kafka-")
        port, quorum = free_port(), free_port()
        self.address = ("127.0.0.1", port)
        settings = {
            **SETTINGS, "log.dirs": os.path.join(self.directory, "data"),
            "controller.quorum.voters": f"1@127.0.0.1:{quorum}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{quorum}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        }  # fmt: skip
        self._file = os.path.join(self.directory, "server.properties")
        with open(self._file, "w") as file:
            file.writelines(f"{key}={value}\n" for key, value in settings.items())
        self._java("kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", self._file).wait(60)
        self._process = self._java("kafka.Kafka", self._file)
        eventually("Kafka answers", self._answers, 60)

    def _java(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        argv = ["java", "-Xmx400m", "-cp", os.path.join(jars("broker"), "*"), name, *arguments]
        with open(os.path.join(self.directory, "log"), "ab") as log:
            return subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, cwd=self.directory)

    def _answers(self) -> bool:
        with WireClient(self.address) as client:
            return bool(client.metadata([])["brokers"])

    def close(self) -> None:
        """End it and remove what it wrote."""
        self._process.kill()
        self._process.wait(30)
        shutil.rmtree(self.directory)
