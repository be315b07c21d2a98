"""Who is there: SWIM membership over UDP. Read this first, then `member.py`, `table.py`, `cluster.py`.

Gossip advises, Raft decides. What is said here is a hint: who seems alive, where they listen, what they say of
themselves. It shortens a wait or a search; it never changes voters, terms, topics or permissions.

**Probing.** Every member pings one other per interval, going round a shuffled list, so that each is probed within one
round (SWIM §4.3). No answer in time: up to three others are asked to ping it, for the path between the two may be
what is broken. Still none: it is *suspect*.

**Suspicion.** A suspect has about a second to say that it lives. Each further member that suspects it on its own
shortens the wait (Lifeguard's dynamic suspicion); whoever talks to a suspect tells it first of all. It refutes with a
higher *number*, and refutation wins. Nobody refuted: *dead*. Who says good-bye is *left*.

**Numbers.** A claim about a member is ordered by (number, alive < suspect < dead < left); the higher wins, whatever
the order of arrival. Only the member itself raises its number. A process begins at a `generation` it is given, the
wall clock in ms, so a restarted node replaces what was believed of its predecessor, at whatever address it listens.
Should its clock have gone back, the first peer it talks to tells it the number to beat.

**Local health.** Who gets no answers asks first whether it is slow itself: missed probes, missing nacks and the need
to refute raise a multiplier on its own timeouts, answers lower it (Lifeguard §3). A process that was stopped for a
while moves all its deadlines by the pause before it judges anybody.

**Dissemination.** News ride on pings and answers and in datagrams of their own, each at most `3 × ⌈log2(n+1)⌉` times.
Members that meet for the first time, or again after one was taken for dead, ask each other for the full state, sent
in several datagrams; so does everybody, soon after its start and then every ten seconds. There, "dead" counts as
"suspect": old news may be refuted first.

**Strangers.** Every datagram carries a cookie, a keyed hash of the receiver's address, and echoes the cookie last
received from there. Who echoes ours receives at the address it claims: only then is anything believed, remembered, or
answered at length. Anyone else's ping gets one answer, not longer than the question, that holds the cookie and no
news; nothing is kept. So a forged source address yields no amplification, and no claim.

**Clusters.** Every datagram names its sender's cluster; another cluster's are ignored. A node that is not born yet
has the empty name. Named members take its word about itself only, so it cannot carry the members of one cluster into
another; when it is named it forgets what it believed and meets everybody again.

**Not done here.** Encryption: who can read the datagrams on their way can forge them (and change hints). Clusters
beyond 512 members. Address changes of seeds given by name are the shell's business: it resolves them anew.
"""

from nebula.gossip.cluster import GossipCluster, GossipSettings
from nebula.gossip.member import Member, MemberState, Status
from nebula.gossip.messages import MAX_DATAGRAM

__all__ = ["MAX_DATAGRAM", "GossipCluster", "GossipSettings", "Member", "MemberState", "Status"]
