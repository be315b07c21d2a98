"""News to pass on: the latest claim about each name, each sent a bounded number of times."""

from __future__ import annotations

import math

from nebula.gossip.member import Claim
from nebula.gossip.messages import MAX_CLAIMS, encode_claim
from nebula.model import NodeName


class Broadcasts:
    """Bounded by the number of members: a newer claim replaces the older one about the same name."""

    def __init__(self, retransmit: int) -> None:
        self._retransmit = retransmit
        self._news: dict[NodeName, tuple[int, bytes]] = {}
        """Name → (times sent, the encoded claim)."""

    def __bool__(self) -> bool:
        return bool(self._news)

    def put(self, claim: Claim) -> None:
        self._news[claim.member.name] = (0, encode_claim(claim))

    def drop(self, name: NodeName) -> None:
        self._news.pop(name, None)

    def clear(self) -> None:
        self._news.clear()

    def take(self, room: int, members: int, at_most: int = MAX_CLAIMS) -> list[bytes]:
        """The news sent least often, as many as fit `room` bytes; after its last time an item is forgotten."""
        limit = self._retransmit * max(1, math.ceil(math.log2(members + 1)))
        taken: list[bytes] = []
        for name, (sent, encoded) in sorted(self._news.items(), key=lambda item: item[1][0]):
            if len(taken) == at_most:
                break
            if len(encoded) > room:
                continue
            room -= len(encoded)
            taken.append(encoded)
            if sent + 1 >= limit:
                del self._news[name]
            else:
                self._news[name] = (sent + 1, encoded)
        return taken
