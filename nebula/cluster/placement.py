"""Where a new topic's replicas go: leaders spread over the nodes that lead least, followers behind them in a ring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nebula.model import NodeName


def place(
    nodes: Sequence[NodeName], partitions: int, factor: int, load: Mapping[NodeName, int]
) -> tuple[tuple[NodeName, ...], ...]:
    """Replicas of each partition, preferred leader first. `load`: partitions each node is preferred leader of already."""
    leads = {name: load.get(name, 0) for name in nodes}
    rows = []
    for index in range(partitions):
        leader = min(nodes, key=lambda name: (leads[name], nodes.index(name)))
        leads[leader] += 1
        at = nodes.index(leader)
        others = [nodes[(at + 1 + i) % len(nodes)] for i in range(len(nodes) - 1)]
        turn = index % len(others) if others else 0
        rows.append((leader, *(others[turn:] + others[:turn])[: factor - 1]))
    return tuple(rows)
