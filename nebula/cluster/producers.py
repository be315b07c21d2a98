"""Idempotent producers (KIP-98, KIP-360): what a replica remembers of each producer id, and what it makes of a batch.

Kept by every replica as it appends, so a new leader knows what the old one knew. Per producer the last five batches: a
client has at most five in flight, so a retry is always among them.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from nebula.model import NebulaError, Offset, Position
from nebula.records.batch import Header

KEPT = 5
"""max.in.flight.requests.per.connection of an idempotent client."""
MAX_PRODUCERS = 100_000
"""Least recently seen ids are forgotten first; a forgotten producer starts over when the log is not empty."""
SEQUENCES = 1 << 31


class ProducerError(NebulaError):
    """A batch whose sequence or epoch does not fit; nothing is appended."""

    code = "NEB-1010"


class OutOfOrderSequence(ProducerError):
    """A batch before this one is missing."""

    code = "NEB-1011"


class InvalidProducerEpoch(ProducerError):
    """A producer that a newer epoch has fenced."""

    code = "NEB-1012"


class Duplicate(NamedTuple):
    """A retry of a batch that is in the log already."""

    base_offset: Offset
    end: Position
    """Its answer waits until this is committed."""
    timestamp: int


class Kept(NamedTuple):
    """One of a producer's last batches."""

    first: int
    last: int
    base_offset: Offset
    end: Position
    timestamp: int


@dataclass(slots=True)
class Producer:
    """One producer id."""

    epoch: int
    batches: deque[Kept]


class ProducerState:
    """All producers of one partition, as of the end of its log."""

    def __init__(self) -> None:
        self._producers: dict[int, Producer] = {}

    def __len__(self) -> int:
        return len(self._producers)

    def check(self, header: Header, log_is_empty: bool) -> Duplicate | None:
        """May this batch be appended? A duplicate says where the original is.

        :raises InvalidProducerEpoch: an older epoch than known.
        :raises OutOfOrderSequence: a gap, or a first sequence that is not 0 where it must be.
        """
        if header.producer_id < 0:
            return None
        known = self._producers.get(header.producer_id)
        first = header.base_sequence
        if known is None:
            # An unknown id may have been forgotten, but never in a log that holds nothing (KAFKA-15591).
            if first != 0 and log_is_empty:
                raise OutOfOrderSequence(f"producer {header.producer_id} is new here and starts at sequence {first}")
            return None
        if header.producer_epoch < known.epoch:
            raise InvalidProducerEpoch(
                f"producer {header.producer_id} has epoch {header.producer_epoch}; epoch {known.epoch} has fenced it"
            )
        if header.producer_epoch > known.epoch:
            if first != 0:
                raise OutOfOrderSequence(
                    f"epoch {header.producer_epoch} of producer {header.producer_id} starts at {first}"
                )
            return None
        return self._in_epoch(known, header)

    def _in_epoch(self, known: Producer, header: Header) -> Duplicate | None:
        first = header.base_sequence
        last = (first + header.last_offset_delta) % SEQUENCES
        for kept in known.batches:
            if kept.first == first and kept.last == last:
                return Duplicate(kept.base_offset, kept.end, kept.timestamp)
        expected = (known.batches[-1].last + 1) % SEQUENCES if known.batches else 0
        if first != expected:
            raise OutOfOrderSequence(
                f"producer {header.producer_id} sent sequence {first} where {expected} was expected"
            )
        return None

    def append(self, header: Header, end: Position) -> None:
        """The batch is in the log; `header` is stamped."""
        if header.producer_id < 0 or header.is_control:
            return
        known = self._producers.pop(header.producer_id, None)
        if known is None or header.producer_epoch > known.epoch:
            known = Producer(header.producer_epoch, deque(maxlen=KEPT))
        last = (header.base_sequence + header.last_offset_delta) % SEQUENCES
        known.batches.append(Kept(header.base_sequence, last, header.base_offset, end, header.max_timestamp))
        self._producers[header.producer_id] = known
        if len(self._producers) > MAX_PRODUCERS:
            del self._producers[next(iter(self._producers))]

    def encode(self) -> bytes:
        """A snapshot."""
        rows = [[pid, p.epoch, [list(k) for k in p.batches]] for pid, p in self._producers.items()]
        return json.dumps(rows).encode()

    @classmethod
    def decode(cls, data: bytes) -> ProducerState:
        """The state a snapshot holds; its file's checksum has been checked."""
        state = cls()
        for pid, epoch, batches in json.loads(data) if data else []:
            kept = (Kept(f, la, b, Position(*e), t) for f, la, b, e, t in batches)
            state._producers[pid] = Producer(epoch, deque(kept, maxlen=KEPT))
        return state
