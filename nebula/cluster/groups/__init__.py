"""Consumer groups, classic protocol: who is a member, who reads what, and how far each group has come.

A group is a small state machine that its coordinator, the leader of one partition of ``__consumer_offsets``, holds:

    Empty --join--> PreparingRebalance --all joined, or time is up--> CompletingRebalance
                         ^                                                   | the leader's assignment is committed
                         +---- a member joins, leaves or falls silent ---- Stable

Members ask to join; when all have (or the rebalance timeout is over) the group has a new *generation*, one member is
told everybody's subscriptions, assigns, and sends the assignment with its SyncGroup; the others' SyncGroups wait for it.
Whatever a client says later carries its generation, so that one that slept is fenced (KIP-62, KIP-345, KIP-394).

Rules:

1. Pure: time is an argument, ids and the log come from outside, answers go to the callbacks that were given.
2. What a client may rely on after its answer is committed first: assignments, and offsets.
3. A group's metadata is opaque bytes: nothing here knows what a subscription or an assignment says.
4. Every wait has an end: a session, a rebalance timeout, or the coordinator's own end.

Caveats: a member that is waiting in JoinGroup or SyncGroup counts as alive, as in Kafka. After a coordinator moved,
every member has a whole session to be heard of again.
"""

from nebula.cluster.groups.group import Group, GroupSettings
from nebula.cluster.groups.member import GroupError, Join, Joined, Member, Synced
from nebula.cluster.groups.records import Committed

__all__ = ["Committed", "Group", "GroupError", "GroupSettings", "Join", "Joined", "Member", "Synced"]
