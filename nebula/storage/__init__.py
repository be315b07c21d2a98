"""Files: the segmented log that is also the Raft log, and the ballot journal.

A partition's directory holds ``start`` (the start record), segments ``TERM-OFFSET.log`` of Kafka record batches byte for
byte, and an ``.index`` beside each sealed one, which is a cache: missing or damaged, it is rebuilt from its segment.
`log.py` says what each kind of crash leaves behind. The file work is done through the `Disk` it is given.
"""

from nebula.storage.ballots import BallotJournal
from nebula.storage.log import NebulaLog

__all__ = ["BallotJournal", "NebulaLog"]
