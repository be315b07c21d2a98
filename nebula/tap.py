"""`twistd nebula`: the options and the service. Thin on purpose; what it starts is `nebula.broker.node`."""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from nebula.broker.settings import load_settings
from nebula.model import StartRefused


class Options(usage.Options):  # type: ignore[misc]
    """Flags of one node; each is also a TOML key of --config and a NEBULA_ variable."""

    synopsis = "--id n1 [--port 5001] [--peers n2:127.0.0.1:5002,n3:127.0.0.1:5003] [options]"
    longdesc = "Start one Nebula node: gossip on UDP port P, Raft on TCP P+1000, Kafka clients on TCP P+2000."
    optParameters = [
        ["id", "i", None, "This node's name in the cluster."],
        ["port", "p", None, "Port P (default 5001)."],
        ["host", None, None, "Address to bind (default 127.0.0.1)."],
        ["peers", None, None, "The other nodes: name:host:port,... Without it the node is a cluster of one."],
        ["data-dir", "d", None, "Where everything is kept (default ./data_<id>)."],
        ["config", "c", None, "A TOML file; flags and NEBULA_* variables win over it."],
    ]

    def postOptions(self) -> None:
        flags = {k.replace("-", "_"): v for k, v in self.items()}
        flags["node"] = flags.pop("id")
        try:
            self.settings = load_settings(flags, os.environ)
        except StartRefused as refused:
            raise usage.UsageError(str(refused)) from refused
        self._pidfile()
        if "twisted.internet.reactor" not in sys.modules:  # no --reactor was given
            _choose_reactor()

    def _pidfile(self) -> None:
        """Two nodes may start in one folder: twistd's pidfile belongs into the data directory, unless one was named."""
        parent: Any = self.parent
        if parent is not None and parent.get("pidfile") == "twistd.pid":
            # The directory is locked by the node itself, with a message that says who holds it.
            parent["pidfile"] = ""


def _choose_reactor() -> None:
    """Install the broker's own reactor; where there is no epoll, the platform's default serves as well, more slowly."""
    from nebula.broker.reactor import install

    try:
        install()
    except ImportError:
        return


def makeService(options: Options) -> IService:
    """The node as a service; refuses to start with one clear line instead of a traceback."""
    from twisted.internet import reactor

    from nebula.broker.node import NebulaNode
    from nebula.broker.reactor import tune_process

    tune_process()
    node = NebulaNode(options.settings, reactor)
    try:
        node.begin()
    except StartRefused as refused:
        print(f"nebula: {refused}", file=sys.stderr)
        raise SystemExit(1) from refused
    reactor.addSystemEventTrigger("after", "shutdown", _exit_with, node)  # type: ignore[attr-defined]
    service: IService = node
    return service


def _exit_with(node: Any) -> None:
    """The exit code says how the node ended, not by which signal it was asked to.

    One that stopped because its disk failed must not look like a clean stop to what supervises it; and a clean stop must
    not look like a crash: twistd would end itself once more by the signal that asked for it.
    """
    from twisted.internet import reactor

    if node.exit_code:
        os._exit(node.exit_code)
    if hasattr(reactor, "_exitSignal"):
        reactor._exitSignal = None
