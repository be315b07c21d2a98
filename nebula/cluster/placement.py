"""Where a new topic's replicas go: evenly, leaders first, with no randomness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nebula.model import NodeName


def place(
    nodes: Sequence[NodeName], partitions: int, rf: int, load: Mapping[NodeName, int]
) -> tuple[tuple[NodeName, ...], ...]:
    """The replicas of each partition, preferred leader first.

    `load` counts the partitions a node leads already. Each partition's leader is the node that then leads fewest, its
    followers those that hold fewest replicas of this topic; ties go by the order of `nodes`, turned by one place per
    partition, so that the followers of one leader are not always the same nodes (its death would fall on those alone).

    :raises ValueError: `rf` is not between 1 and the number of nodes.
    """
    if not 1 <= rf <= len(nodes):
        raise ValueError(f"replication factor {rf} does not fit {len(nodes)} nodes")
    leads = {name: load.get(name, 0) for name in nodes}
    holds = dict.fromkeys(nodes, 0)
    placed = []
    for index in range(partitions):
        leader = min(nodes, key=lambda name: (leads[name], holds[name]))
        start = nodes.index(leader) + 1 + index // len(nodes)
        ring = [nodes[(start + i) % len(nodes)] for i in range(len(nodes))]
        others = sorted((name for name in ring if name != leader), key=lambda name: holds[name])
        replicas = (leader, *others[: rf - 1])
        leads[leader] += 1
        for name in replicas:
            holds[name] += 1
        placed.append(replicas)
    return tuple(placed)
