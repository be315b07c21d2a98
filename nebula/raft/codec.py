"""Raft messages as bytes: a fixed head per kind, then a run's batches uncopied."""

from __future__ import annotations

import struct

from nebula.model import Buffer, DecodeError, GroupID, Position
from nebula.raft import messages as m
from nebula.raft.messages import Message
from nebula.records.entries import Run
from nebula.records.start import StartRecord

HEAD = struct.Struct(">BIq")
"""Kind, group, term."""
PLACE = struct.Struct(">qq")
GRANT = struct.Struct(">?")
ROUND = struct.Struct(">qqq")
APPEND = struct.Struct(">qqqqqqq")
PREVOTE, PREVOTE_REPLY, VOTE, VOTE_REPLY, APPEND_, REPLY, REJECT, HEARTBEAT, HEARTBEAT_REPLY, INSTALL, TIMEOUT = range(
    11
)
_LASTS: dict[type, int] = {m.PreVote: PREVOTE, m.Vote: VOTE}
_GRANTS: dict[type, int] = {m.PreVoteReply: PREVOTE_REPLY, m.VoteReply: VOTE_REPLY}


def encode(group: GroupID, message: Message) -> list[Buffer]:
    """Chunks of one message; record bytes are the run's own buffers."""
    if isinstance(message, m.Append):
        head = HEAD.pack(APPEND_, group, message.term) + APPEND.pack(
            *message.prev, *message.commit, *message.run.end, message.round
        )
        return [head, *message.run.chunks]
    if isinstance(message, m.AppendReply):
        return [HEAD.pack(REPLY, group, message.term) + ROUND.pack(*message.match, message.round)]
    if isinstance(message, m.Heartbeat):
        return [HEAD.pack(HEARTBEAT, group, message.term) + ROUND.pack(*message.commit, message.round)]
    if isinstance(message, m.HeartbeatReply):
        return [HEAD.pack(HEARTBEAT_REPLY, group, message.term) + ROUND.pack(*message.match, message.round)]
    return [_rare(group, message)]


def _rare(group: GroupID, message: Message) -> bytes:
    if isinstance(message, (m.PreVote, m.Vote)):
        return HEAD.pack(_LASTS[type(message)], group, message.term) + PLACE.pack(*message.last)
    if isinstance(message, (m.PreVoteReply, m.VoteReply)):
        return HEAD.pack(_GRANTS[type(message)], group, message.term) + GRANT.pack(message.granted)
    if isinstance(message, m.AppendReject):
        return HEAD.pack(REJECT, group, message.term) + ROUND.pack(*message.last_common, message.round)
    if isinstance(message, m.Install):
        return HEAD.pack(INSTALL, group, message.term) + message.start.encode()
    assert isinstance(message, m.TimeoutNow)
    return HEAD.pack(TIMEOUT, group, message.term)


def decode(view: memoryview) -> tuple[GroupID, Message]:
    """:raises DecodeError: whatever is wrong with the bytes."""
    try:
        kind, group, term = HEAD.unpack_from(view)
        return group, _decode(kind, term, view[HEAD.size :])
    except (struct.error, KeyError) as bad:
        raise DecodeError(f"not a Raft message: {bad}") from bad


def _decode(kind: int, term: int, body: memoryview) -> Message:
    if kind == APPEND_:
        pt, po, ct, co, et, eo, round_ = APPEND.unpack_from(body)
        data = body[APPEND.size :]
        run = Run((data,) if len(data) else (), Position(et, eo), len(data))
        return m.Append(term, Position(pt, po), run, Position(ct, co), round_)
    if kind in (REPLY, REJECT, HEARTBEAT, HEARTBEAT_REPLY):
        t, o, round_ = ROUND.unpack(body)
        kinds: dict[int, type] = {
            REPLY: m.AppendReply,
            REJECT: m.AppendReject,
            HEARTBEAT: m.Heartbeat,
            HEARTBEAT_REPLY: m.HeartbeatReply,
        }
        message: Message = kinds[kind](term, Position(t, o), round_)
        return message
    if kind in (PREVOTE, VOTE):
        last = Position(*PLACE.unpack(body))
        return m.PreVote(term, last) if kind == PREVOTE else m.Vote(term, last)
    if kind in (PREVOTE_REPLY, VOTE_REPLY):
        granted = GRANT.unpack(body)[0]
        return m.PreVoteReply(term, granted) if kind == PREVOTE_REPLY else m.VoteReply(term, granted)
    if kind == INSTALL:
        return m.Install(term, StartRecord.decode(body))
    if kind == TIMEOUT:
        return m.TimeoutNow(term)
    raise DecodeError(f"unknown Raft message kind {kind}")
