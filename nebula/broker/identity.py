"""Who this node is: (node id, incarnation of its disk, cluster id), and the birth record that made the cluster.

`identity.json` in the data directory is replaced atomically. Rules (ARCHITECTURE §4): the cluster id is created only
when *all* peers named at a first start answer "empty" and name the same members; the member whose name sorts first
creates the record, the others take it up when they find their own incarnation in it. A node that meets an existing
cluster joins it as a learner. A foreign cluster is refused.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from typing import Any

from nebula.model import NodeName, StartRefused, Voter
from nebula.storage.disk import Disk


class Identity:
    """What `identity.json` says."""

    def __init__(self, disk: Disk, path: str, node: NodeName, incarnation: str) -> None:
        self._disk = disk
        self._path = path
        self.node = node
        self.incarnation = incarnation
        self.cluster = ""
        """Empty until the cluster is born or joined."""
        self.voters: tuple[Voter, ...] = ()
        """Group 0's voters at birth; empty on a node that joined later."""

    @classmethod
    def load(cls, disk: Disk, directory: str, node: NodeName) -> Identity:
        """Read the identity, or make a new incarnation for an empty directory.

        :raises StartRefused: the directory belongs to another node, or has partitions and no identity.
        """
        path = os.path.join(directory, "identity.json")
        if not disk.exists(path):
            if any(name.startswith("partitions") for name in disk.listdir(directory)):
                raise StartRefused(
                    f"NEB-1204 {directory} holds partitions but no identity.json: restore that file, or name an empty"
                    " --data-dir. Nothing was changed."
                )
            identity = cls(disk, path, node, uuid.uuid4().hex)
            identity.save()
            return identity
        stored = json.loads(disk.read_file(path))
        if stored["node"] != node:
            raise StartRefused(
                f"NEB-1203 data directory {directory} belongs to node {stored['node']} of cluster"
                f" {stored['cluster'] or '(none yet)'}: start it with --id {stored['node']}, or name another"
                " --data-dir. Nothing was changed."
            )
        identity = cls(disk, path, node, stored["incarnation"])
        identity.cluster = stored["cluster"]
        identity.voters = tuple(Voter(*v) for v in stored["voters"])
        return identity

    @property
    def me(self) -> Voter:
        return Voter(self.node, self.incarnation)

    def save(self) -> None:
        """Make it durable before anything is built on it."""
        stored = {
            "node": self.node,
            "incarnation": self.incarnation,
            "cluster": self.cluster,
            "voters": [list(v) for v in self.voters],
        }
        self._disk.replace_file(self._path, json.dumps(stored, indent=1).encode())

    def adopt(self, cluster: str, voters: tuple[Voter, ...]) -> None:
        """Take up a birth record, or (with no voters) membership of an existing cluster."""
        self.cluster, self.voters = cluster, voters
        self.save()


def decide_birth(me: Identity, members: frozenset[NodeName], hellos: Mapping[NodeName, Mapping[str, Any]]) -> str:
    """What an empty node does now: "join", "take NAME", "create", or "wait: why" (pure; see the rules above).

    :param members: the names that this node was started with, its own among them.
    :param hellos: the last hello of every peer that is connected.
    """
    for name, hello in sorted(hellos.items()):
        if hello["cluster"]:
            mine = list(me.me) in hello["voters"]
            return f"take {name}" if mine else "join"
    missing = members - {me.node} - set(hellos)
    if missing:
        return f"wait: {', '.join(sorted(missing))} not reached yet"
    for name, hello in sorted(hellos.items()):
        if name in members and frozenset(hello["members"]) != members:
            return f"wait: {name} was started with members {', '.join(hello['members'])}"
    return "create" if me.node == min(members) else f"wait: {min(members)} creates the cluster"
