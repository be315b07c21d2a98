"""The controller: group 0's committed records applied to ClusterState, and commands submitted from any node.

Every node has group 0's log, as voter or learner, and applies it; so every node answers Metadata from its own state. A
command is submitted at group 0's leader: a node that is not it forwards over the control link. Its result is known
when it is committed *and* applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from nebula.broker.partition import Partition
from nebula.cluster import commands
from nebula.cluster.state import ClusterState
from nebula.model import NebulaError, NodeName, NotLeader, Offset, Position
from nebula.records.batch import read_header
from nebula.records.record import build_batch, read_records

CONTROLLER_TOPIC = "controller"
"""Directory name of group 0; it is no topic, clients cannot name it."""
APPLY_BYTES = 1 << 20
"""Read this much of the controller's log at a time; commands are small, so a turn stays short."""


class ControllerUnavailable(NebulaError):
    """Group 0 has no reachable leader right now; the caller tries again."""

    code = "NEB-2301"


class Controller:
    """Applies group 0 and submits to it."""

    log = Logger()

    def __init__(
        self,
        partition: Partition,
        forward: Callable[[NodeName, str, Any], Deferred[Any]],
        any_peer: Callable[[], NodeName | None],
    ) -> None:
        self.partition = partition
        partition.raft.announce_commits = True  # every node answers Metadata from what it has applied
        self._any_peer = any_peer
        self.state = ClusterState()
        self.applied: Offset = partition.log.log_start
        self._forward = forward
        self._results: dict[Offset, Deferred[Any]] = {}
        self.on_applied: Callable[[Any, Any], None] | None = None
        partition.on_commit = self._committed

    @property
    def leader(self) -> NodeName | None:
        leader = self.partition.raft.leader
        return leader.node if leader is not None else None

    def submit(self, command: Any) -> Deferred[Any]:
        """Fires with what `ClusterState.apply` returned, here or at the leader.

        :raises ControllerUnavailable: (as failure) no leader, or it went away; whether the command took effect is unknown.
        """
        if self.partition.leads:
            return self.submit_here(commands.encode(command))
        # A node that has just joined hears no leader before it is registered: any peer passes its command on.
        return self._pass_on(self.leader or self._any_peer(), "submit", commands.encode(command).decode())

    def relay(self, encoded: str) -> Deferred[Any]:
        """A peer's command: take it here, or pass it to the leader, once."""
        if self.partition.leads:
            return self.submit_here(encoded.encode())
        return self._pass_on(self.leader, "submit_here", encoded)

    def _pass_on(self, name: NodeName | None, method: str, encoded: str) -> Deferred[Any]:
        if name is None:
            unknown: Deferred[Any] = Deferred()
            unknown.errback(ControllerUnavailable("the cluster has no controller right now; try again"))
            return unknown
        return self._forward(name, method, encoded)

    def submit_here(self, encoded: bytes) -> Deferred[Any]:
        """As the leader: append the command; the result comes when it is applied."""
        result: Deferred[Any] = Deferred()
        batch = build_batch([(None, encoded, (), 0)])
        try:
            done = self.partition.append(batch, read_header(batch))
        except NotLeader:
            result.errback(ControllerUnavailable("the controller moved; try again"))
            return result
        # The batch is already placed; register before anything can be applied.
        offset = self.partition.raft.end().offset - 1
        self._results[offset] = result

        def lost(_failure: Any) -> None:
            waiting = self._results.pop(offset, None)
            if waiting is not None:
                waiting.errback(ControllerUnavailable("the controller moved before the command was committed"))

        done.addErrback(lost)
        return result

    def _committed(self, commit: Position) -> None:
        while self.applied < commit.offset:
            chunks = self.partition.log.read_records_at(self.applied, APPLY_BYTES, commit.offset)
            if not chunks:
                return
            for chunk in chunks:
                self._apply_chunk(chunk)
        self.partition.raft.applied(commit)

    def _apply_chunk(self, chunk: Any) -> None:
        at = 0
        while at < len(chunk):
            header = read_header(chunk, at)
            if not header.is_control and header.end_offset > self.applied:
                for record in read_records(chunk, at):
                    if record.offset >= self.applied and record.value is not None:
                        self._apply(record.offset, bytes(record.value))
            self.applied = max(self.applied, header.end_offset)
            at += header.size

    def _apply(self, offset: Offset, encoded: bytes) -> None:
        outcome = self.state.apply(encoded)
        if self.on_applied is not None:
            self.on_applied(commands.decode(encoded), outcome)
        waiting = self._results.pop(offset, None)
        if waiting is not None:
            waiting.callback(outcome)
