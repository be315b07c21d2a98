"""What committed records mean: the controller's state machine, and the producers of one partition.

Group 0's log holds *commands*. Every node applies them, in the log's order, to a `ClusterState`; so every node has the
same nodes, topics and placements at the same place of that log, and answers Metadata from its own memory. Nothing here
asks a peer, a clock or a disk: what a command means is decided by the state before it and its own bytes.

- `commands`: the five commands and their JSON form, which is what group 0's records hold.
- `state`: `ClusterState`, whose `apply` is the one way to change anything; its snapshot.
- `topics`: `TopicManager`, names, ids, partitions and configs as applied.
- `placement`: which nodes get a new topic's replicas, decided by the proposer, recorded in the command.
- `configs`: the topic configs: types, bounds, defaults, documentation.
- `producers`: sequence numbers per partition (idempotence), kept by every replica.

The rules that must not be broken:

Rule 1: `apply` is deterministic. Random ids and placements are drawn *before* a command is proposed and travel in it;
numbers that must be unique (node ids, group ids, producer ids) are drawn *by* `apply` from counters in the state.
Rule 2: `apply` never raises for a command that decodes. A refusal (topic exists) is a result, the same everywhere.
Checks made before proposing are for a clear error only: between check and apply another command may have come first.
Rule 3: an id once given is never given again, not even after its owner is deleted: a group id names files on disk, a
node id is what clients remember, a producer id is what duplicates are told by.
Rule 4: results are dicts of JSON values, because a node that forwarded a command gets its result over the peer link.

Caveats. Deleting a topic forgets its configs at once; its files go when each replica applies the deletion. There is no
command that moves replicas or adds partitions yet, and nodes are never forgotten.
"""
