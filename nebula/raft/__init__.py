"""Raft, as the replication of one partition's log. Read this first, then `node.py`, `leader.py`, `tail.py`.

**The log.** The Raft log is the partition's log of Kafka record batches. A place in it is `Position(term, offset)`, the
end offset and the term of the last entry before it; it may stand wherever the paper has (index, term). Two entries
never end at the same position, because the only zero-width entry of a term is its first, the leader's marker.

**Election.** A follower that hears no leader for one to two election timeouts asks for pre-votes (dissertation §9.6):
a question that changes nothing, refused by everyone who hears the leader. With a majority it takes the next term, votes
for itself, and asks for votes *once that ballot is on disk*. Evidence from outside that the leader's process died
shortens the wait for a pre-vote, and lets a voter grant one; it never grants a vote.

**Replication.** A leader streams runs of batches to each peer as far as a window of bytes allows, without waiting for
answers; a peer that does not agree says where its last common term may end, and is probed from there. A follower
answers with what it has *on disk* of what this leader has verified, and with nothing else.

**Commit.** What a majority of the voters has on disk, the leader counting itself by the same rule, and only positions of
the leader's own term (§5.4.2).

**Reads.** A leader serves committed state once its marker is committed, and confirms its leadership by a heartbeat
round begun after the request came (§6.4 of the dissertation); leases are not trusted.

**Membership.** One voter at a time, learners first; a change acts when it is appended and is undone when it is
truncated; none begins before the leader's marker is committed.

**Not done here.** Quiescence of idle groups; a window that adapts to the link.
"""

from nebula.raft.messages import Ballot
from nebula.raft.node import ChangeRefused, Overloaded, RaftNode, RaftSettings, Ready

__all__ = ["Ballot", "ChangeRefused", "Overloaded", "RaftNode", "RaftSettings", "Ready"]
