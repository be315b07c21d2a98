"""SWIM membership over datagrams, sans I/O (Das, Gupta, Motivala 2002; suspicion and refutation included).

Gossip advises: it spreads addresses and says who seems dead. Nothing here changes voters, terms, topics or permissions
(RELIABILITY rule 8). Every datagram is JSON of at most 1,400 bytes with version and cluster name; whatever does not fit
is dropped, and costs one parse.

Not done here: encryption of datagrams; Lifeguard's dynamic suspicion time-outs (the local health multiplier is there).
"""

from nebula.gossip.cluster import GossipCluster
from nebula.gossip.messages import Member, MemberState

__all__ = ["GossipCluster", "Member", "MemberState"]
