"""Who is at the address it claims: cookies, kept by those who want to be believed, not by us."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from random import Random

from nebula.gossip.member import Address


class Cookies:
    """Ours, computed from the address alone; theirs, remembered for the addresses that proved themselves."""

    def __init__(self, rng: Random, most: int) -> None:
        self._secret = rng.getrandbits(256).to_bytes(32, "big")
        self._most = most
        self._theirs: OrderedDict[Address, int] = OrderedDict()

    def ours(self, address: Address) -> int:
        """What `address` has to echo. Never 0, which stands for none."""
        digest = hashlib.blake2b(repr(address).encode(errors="replace"), key=self._secret, digest_size=8).digest()
        return int.from_bytes(digest, "big") | 1

    def theirs(self, address: Address) -> int:
        """What `address` wants echoed; 0 if it never said."""
        return self._theirs.get(address, 0)

    def remember(self, address: Address, cookie: int) -> None:
        self._theirs[address] = cookie
        self._theirs.move_to_end(address)
        if len(self._theirs) > self._most:
            self._theirs.popitem(last=False)
