"""Files: the segmented log that is also the Raft log, and the ballot journal.

A partition's directory (`layout.py` draws it) holds segments of Kafka record batches, byte for byte as they are
replicated and served. There is no framing of our own around a batch: its header says how long it is, its CRC-32C covers
all but what the leader stamps, and base offset and term say what it stands behind. A segment is named after the
Position of its first byte. Three small files stand beside the segments: `start` (what lies before the log's start),
`checkpoint` (what recovery need not read) and, rarely, `quarantine` (how far the log reached before bit rot cut it).
`.index` files are caches.

The chain
    A batch may follow the place (offset, term) if its base offset is that offset and its term is not lower; a higher
    term must begin with a marker, and a marker must begin a higher term. The log ends where the chain does. A file's
    size says nothing: space is reserved ahead, and a crash may leave a size without bytes or bytes without a size.

The checkpoint
    A place that was both committed and synced here. Before it nothing was ever torn, so what fails there is bit rot;
    behind it the first thing that fails is where recovery cuts. This is the difference between the two that a checksum
    alone cannot tell (RELIABILITY rule 4).

What each crash leaves behind, and what the next start makes of it
    *append*: any subset of the sectors since the last sync. The log is cut at the first batch that is not whole; a torn
    tail is not an entry, so no offset moves.
    *roll*: the full segment with a torn tail, and its successor or not. The chain decides: a successor that does not
    begin where the chain ends is removed. A successor's name is made durable before anything in it is acknowledged.
    *truncate*: some of the later segments gone, from the end, or the file not yet cut. Raft truncates again. If the cut
    goes below the checkpoint, the checkpoint is moved back first.
    *reset*: one replacement of `start` with the next generation; older generations' segments are leftovers.
    *delete_before*: `start` is replaced first; segments wholly before it are leftovers.
    *checkpoint, start, quarantine*: the old file or the new one.
    *the process alone*: bytes that only the page cache has; they are synced before Raft may count them as persisted.

Bit rot
    Found at the checkpoint's batch, by a read that meets a broken chain, or by ``open(verify=True)``. `quarantine` says
    durably how far the log had reached; then it is cut at the rot, the leader sends the rest again, and Raft neither
    campaigns nor votes until the log is back at that place. A damaged start file or ballot snapshot stops the start.

Caveats
    Sealed segments are not read at start: rot there waits for a reader or for ``verify``. Rot behind the checkpoint
    looks like a torn tail and is cut; the checkpoint is therefore moved on every roll, at a clean stop and when
    `checkpoint` is called. Segment files are not recycled yet.

The file work is done through the `Disk` it is given; nothing here knows a clock, a thread or a real file.
"""

from nebula.storage.ballots import BallotJournal
from nebula.storage.layout import UnsafePath, partition_directory
from nebula.storage.log import NebulaLog
from nebula.storage.segment import DamagedLog

__all__ = ["BallotJournal", "DamagedLog", "NebulaLog", "UnsafePath", "partition_directory"]
