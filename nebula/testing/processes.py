"""Real `twistd` processes on this machine: start them, hurt them, and leave none behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from nebula.model import NebulaError
from nebula.testing.wireclient import WireClient


class ClusterFailed(NebulaError):
    """A node did not start, or the cluster did not do something in time."""

    code = "NEB-9001"


def free_base(count: int) -> int:
    """A port P so that P+i, P+1000+i and P+2000+i are free for i in range(count)."""
    for base in range(21001, 60000, 10):
        ports = [base + lane + i for lane in (0, 1000, 2000) for i in range(count)]
        if all(_is_free(port) for port in ports):
            return base
    raise ClusterFailed("no free ports on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def eventually(what: str, check: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Poll until `check` gives something true; errors of the network count as "not yet".

    :raises ClusterFailed: not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    error: Exception | None = None
    while time.monotonic() < deadline:
        try:
            found = check()
            if found:
                return found
        except (OSError, LookupError) as not_yet:
            error = not_yet
        time.sleep(0.02)
    raise ClusterFailed(f"not within {seconds} s: {what}" + (f" (last: {error})" if error else ""))


class ProcessCluster:
    """`size` nodes n1, n2 … as child processes, with data directories in one folder."""

    def __init__(
        self,
        size: int = 3,
        base: int | None = None,
        directory: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are passed to every node as NEBULA_ variables: {"GROUP_INITIAL_DELAY": "0"}, say."""
        self.wrapper: list[str] = []
        """What every node's command is given to: ["fiu-run", "-x"], say."""
        self._environ = {**os.environ, **{f"NEBULA_{name}": value for name, value in (settings or {}).items()}}
        self.base = base if base is not None else free_base(size)
        self._own = directory is None
        self.directory = directory or tempfile.mkdtemp(prefix="nebula-")
        self.names = [f"n{i}" for i in range(1, size + 1)]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> ProcessCluster:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def port(self, name: str) -> int:
        return self.base + self.names.index(name)

    def client_address(self, name: str) -> tuple[str, int]:
        return "127.0.0.1", self.port(name) + 2000

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{self.port(name) + 2000}" for name in self.names)

    def data_dir(self, name: str) -> str:
        return os.path.join(self.directory, f"data_{name}")

    def command(self, name: str) -> list[str]:
        peers = ",".join(f"{n}:127.0.0.1:{self.port(n)}" for n in self.names if n != name)
        argv = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "nebula"]
        argv += ["--id", name, "--port", str(self.port(name)), "--data-dir", self.data_dir(name)]
        return argv + (["--peers", peers] if peers else [])

    def spawn(self, name: str) -> None:
        """Start one node's process; does not wait."""
        with open(os.path.join(self.directory, f"{name}.log"), "ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self.wrapper, *self.command(name)],
                cwd=self.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._environ,
            )

    def start(self) -> ProcessCluster:
        """Start all nodes and wait until each lists all of them."""
        for name in self.names:
            self.spawn(name)
        for name in self.names:
            self.wait_ready(name)
        return self

    def wait_ready(self, name: str, seconds: float = 30.0) -> None:
        def ready() -> bool:
            if self.processes[name].poll() is not None:
                raise ClusterFailed(f"{name} ended with {self.processes[name].returncode}:\n{self.log(name)[-2000:]}")
            with WireClient(self.client_address(name)) as client:
                answer = client.metadata([])
                return len(answer["brokers"]) == len(self.names) and answer["controller_id"] > 0

        eventually(f"{name} ready", ready, seconds)

    def log(self, name: str) -> str:
        with open(os.path.join(self.directory, f"{name}.log"), errors="replace") as log:
            return log.read()

    def rss_bytes(self, name: str) -> int:
        """Resident memory of a node's process. :raises OSError: it has ended, or this system has no /proc."""
        with open(f"/proc/{self.processes[name].pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def node_of(self, broker_id: int) -> str:
        """The name of the node with a Kafka node id."""
        with self.any_client() as client:
            ports = {b["node_id"]: b["port"] for b in client.metadata([])["brokers"]}
        return self.names[int(ports[broker_id]) - 2000 - self.base]

    def controller(self, seconds: float = 20.0) -> str:
        """The name of the node that leads group 0 and is up."""

        def led() -> str | None:
            with self.any_client() as client:
                name = self.node_of(client.metadata([])["controller_id"])
            return name if self.processes[name].poll() is None else None

        return str(eventually("a controller", led, seconds))

    def any_client(self) -> WireClient:
        """A connection to some node that is up."""
        for name, process in self.processes.items():
            if process.poll() is None:
                try:
                    return WireClient(self.client_address(name))
                except OSError:
                    continue
        raise ClusterFailed("no node is up")

    def leader_of(self, topic: str, partition: int, seconds: float = 20.0) -> str:
        """The name of the node that leads; the topic is created if need be."""

        def led() -> str | None:
            with self.any_client() as client:
                rows = client.metadata([topic])["topics"][0]["partitions"]
            leaders = [row["leader_id"] for row in rows if row["partition_index"] == partition]
            name = self.node_of(leaders[0]) if leaders and leaders[0] > 0 else None
            return name if name is not None and self.processes[name].poll() is None else None

        return str(eventually(f"a leader of {topic}-{partition}", led, seconds))

    def kill(self, name: str, how: int = signal.SIGKILL) -> int:
        """Signal a node and wait for its end; its exit code."""
        process = self.processes[name]
        if process.poll() is None:
            process.send_signal(how)
        return process.wait(20)

    def stop(self, name: str) -> int:
        """End a node the way a supervisor does; its exit code."""
        return self.kill(name, signal.SIGTERM)

    def restart(self, name: str) -> None:
        """Start a node that has ended, and wait until it is ready."""
        self.spawn(name)
        self.wait_ready(name)

    def wipe(self, name: str) -> None:
        """Take a dead node's disk away."""
        shutil.rmtree(self.data_dir(name))

    def close(self) -> None:
        """End every process that was started, and remove the folder if it was made here."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        for process in self.processes.values():
            process.wait(20)
        if self._own:
            shutil.rmtree(self.directory, ignore_errors=True)
