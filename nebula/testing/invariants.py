"""What must hold of a whole simulated cluster after every event."""

from __future__ import annotations

from nebula.model import InvariantBroken, NodeName, Position
from nebula.raft import RaftNode
from nebula.raft.invariants import Seen, check_state, check_step


class ClusterInvariants:
    """Remembers what was seen of every replica; the name in it is the node's, `boot` counts its starts."""

    def __init__(self) -> None:
        self._seen: dict[NodeName, tuple[int, Seen]] = {}
        self._leaders: dict[int, NodeName] = {}
        self._committed = Position(0, 0)

    def check(self, name: NodeName, boot: int, raft: RaftNode) -> bool:
        """True if the replica's state is another than when it was last looked at.

        :raises InvariantBroken: naming what does not hold.
        """
        now, before = Seen.of(raft), self._seen.get(name)
        if before == (boot, now) and raft.role != "leader":
            return False
        check_state(raft)
        if before is not None and before[0] == boot:
            check_step(before[1], raft)
        self._seen[name] = (boot, now)
        if raft.role == "leader":
            self._check_leader(name, raft)
        self._committed = max(self._committed, raft.commit)
        return before != (boot, now)

    def _check_leader(self, name: NodeName, raft: RaftNode) -> None:
        first = self._leaders.setdefault(raft.term, name)
        if first != name:
            raise InvariantBroken(f"election safety: term {raft.term} has two leaders, {first} and {name} (§5.2)")
        newest = raft.term == max(self._leaders)
        if newest and not raft.tail.contains(self._committed):
            raise InvariantBroken(
                f"leader completeness: {name} leads term {raft.term} without {self._committed}, which was committed (§5.4)"
            )
