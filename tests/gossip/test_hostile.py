"""Datagrams from anybody: nothing raises, nothing grows, nothing is believed, nobody is flooded (scenario 78)."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nebula.gossip import MAX_DATAGRAM, GossipCluster, Member, Status
from nebula.gossip.member import MAX_NUMBER, Address, Claim, Scalar, check_member, encode_meta
from nebula.gossip.messages import QUESTION_SIZE, Kind, Message, decode, encode
from nebula.model import DecodeError

STRANGER = ("203.0.113.9", 53)
PEER = ("10.0.0.1", 2)

words = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=30)
scalars: st.SearchStrategy[Scalar] = st.one_of(st.none(), st.booleans(), st.integers(-999, 999), st.text(max_size=4))
members = st.builds(
    Member, words, words, st.sampled_from(["10.0.0.1", "0.0.0.0", "", "host.example"]), st.integers(1, 65535), words,
    st.dictionaries(st.text(max_size=4), scalars, max_size=3),
)  # fmt: skip
claims = st.builds(Claim, members, st.sampled_from(list(Status)), st.integers(0, MAX_NUMBER), words)
numbers = st.integers(0, 2**64 - 1)
messages = st.builds(
    Message, kind=st.sampled_from(list(Kind)), cluster=st.sampled_from(["", "c", "other"]),
    sender=st.sampled_from(["n1", "n2", "n3", "x"]), echo=numbers, cookie=numbers, nonce=numbers,
    target=st.sampled_from(["", "n1", "n2", "x"]), proved=st.booleans(), claims=st.lists(claims, max_size=4).map(tuple),
)  # fmt: skip


def make_node() -> GossipCluster:
    return GossipCluster(Member("n1", "i1", "10.0.0.1", 1, "1"), "c", [PEER], random.Random(1), 0.0, generation=10)


def acquaint(node: GossipCluster, address: Address, name: str) -> Message:
    """Ping `node` as `name`; its answer, with the cookie that proves `address` from now on."""
    node.outgoing()
    ping = encode(Message(kind=Kind.PING, cluster="c", sender=name, cookie=7)).ljust(QUESTION_SIZE, b"\0")
    node.receive(ping, address, 0.0)
    ((answer, to),) = node.outgoing()
    assert to == address
    return decode(answer)


class Codec(SynchronousTestCase):
    """Datagrams as bytes."""

    @given(messages)
    def test_round_trip(self, message: Message) -> None:
        """A message is not what it was after the wire."""
        self.assertEqual(decode(encode(message)), message)

    @given(st.binary(max_size=MAX_DATAGRAM + 9), messages, st.integers(0, 400), st.integers(1, 255))
    def test_decode_raises_one_thing(self, junk: bytes, message: Message, at: int, change: int) -> None:
        """Bytes from outside raise something that nobody catches."""
        data = bytearray(encode(message))
        data[at % len(data)] ^= change
        for hostile in (junk, b"NBG\x01" + junk, bytes(data), bytes(data[:at])):
            try:
                decode(hostile)
            except DecodeError:
                pass

    def test_largest_fit(self) -> None:
        """A ping with the longest claims about both sides does not fit a datagram and is never sent."""
        big = Member("n" * 64, "i" * 64, "h" * 128, 65535, "v" * 32, {"m": "x" * 192})
        check_member(big)
        self.assertEqual(len(encode_meta(big.meta)), 200)
        claim = Claim(big, Status.SUSPECT, MAX_NUMBER, "b" * 64)
        message = Message(kind=Kind.PING, cluster="c" * 64, sender="s" * 64, target="t" * 64, claims=(claim, claim))
        self.assertLessEqual(len(encode(message)), MAX_DATAGRAM)

    def test_longest_answer_without_claims(self) -> None:
        """A stranger's padded ping is shorter than the shortest answer to it: it can never join."""
        answer = Message(kind=Kind.ACK, cluster="c" * 64, sender="s" * 64)
        self.assertLessEqual(len(encode(answer)), QUESTION_SIZE)

    def test_refused_members(self) -> None:
        """Names that break logs, or ports that break sockets, get into the table."""
        good = Member("n", "i", "h", 1)
        bad = [replace(good, name=name) for name in ("", "a\nb", "x" * 65)]
        bad += [replace(good, port=port) for port in (0, 65536)]
        for member in (*bad, replace(good, host="a b")):
            self.assertRaises(ValueError, check_member, member)


class Strangers(SynchronousTestCase):
    """Who has not shown that it receives at the address it claims."""

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.one_of(messages.map(encode), st.binary(max_size=200)), max_size=12))
    def test_nothing_is_believed_or_amplified(self, datagrams: list[bytes]) -> None:
        """Spoofed datagrams change the table, or turn this node into an amplifier."""
        node = make_node()
        node.tick(0.1)
        node.outgoing()
        for data in datagrams:
            node.receive(data, STRANGER, 0.1)
            out = node.outgoing()
            self.assertLessEqual(sum(len(answer) for answer, _ in out), len(data))
            self.assertTrue(all(to == STRANGER for _, to in out))
        self.assertEqual(set(node.members()), {"n1"})
        self.assertEqual(node.events(), [])

    def test_short_question_no_answer(self) -> None:
        """A question shorter than its answer is answered."""
        node = make_node()
        question = encode(Message(kind=Kind.PING, cluster="", sender="x"))
        node.receive(question, STRANGER, 0.0)
        self.assertEqual(node.outgoing(), [])
        node.receive(question.ljust(QUESTION_SIZE, b"\0"), STRANGER, 0.0)
        self.assertEqual(len(node.outgoing()), 1)

    def test_cookie_is_of_one_address(self) -> None:
        """A cookie got at one address proves another: a spoofed source is believed after all."""
        node = make_node()
        answer = acquaint(node, PEER, "n2")
        claim = Claim(Member("n2", "i2", *PEER), Status.ALIVE, 1)
        message = Message(kind=Kind.GOSSIP, cluster="c", sender="n2", echo=answer.cookie, claims=(claim,))
        node.receive(encode(message), STRANGER, 0.0)
        self.assertEqual(set(node.members()), {"n1"})
        node.receive(encode(message), PEER, 0.0)
        self.assertEqual(set(node.members()), {"n1", "n2"})

    def test_answer_nobody_asked_for(self) -> None:
        """An answer with a guessed nonce counts."""
        node = make_node()
        node.tick(0.1)
        claim = Claim(Member("n2", "i2", *PEER), Status.ALIVE, 1)
        node.receive(encode(Message(kind=Kind.ACK, cluster="c", sender="n2", nonce=1, claims=(claim,))), PEER, 0.1)
        self.assertEqual(set(node.members()), {"n1"})


class Proved(SynchronousTestCase):
    """Members that misbehave: they may change hints, and nothing else."""

    @settings(max_examples=200, deadline=None)
    @given(st.lists(messages, max_size=12))
    def test_bounded_and_silent(self, hostile: list[Message]) -> None:
        """A member's datagrams raise, or make this node believe itself dead or send without end."""
        node = make_node()
        cookie = acquaint(node, PEER, "n2").cookie
        for i, message in enumerate(hostile):
            node.receive(encode(replace(message, echo=cookie, cluster="c")), PEER, i * 0.1)
            node.tick(i * 0.1)
            out = node.outgoing()
            self.assertLessEqual(max((len(data) for data, _ in out), default=0), MAX_DATAGRAM)
            self.assertLess(len(out), 60)
            self.assertEqual(node.members()["n1"].status, Status.ALIVE)

    def test_false_death_is_refuted(self) -> None:
        """A claim that this node is dead stands."""
        for status in (Status.SUSPECT, Status.DEAD, Status.LEFT):
            node = make_node()
            cookie = acquaint(node, PEER, "n2").cookie
            me = node.members()["n1"]
            claim = Claim(me.member, status, me.number + 3)
            ping = Message(kind=Kind.PING, cluster="c", sender="n2", echo=cookie, cookie=7, claims=(claim,))
            node.receive(encode(ping), PEER, 0.0)
            (answer, _), *_ = node.outgoing()
            said = next(c for c in decode(answer).claims if c.member.name == "n1")
            self.assertEqual((said.status, said.number), (Status.ALIVE, me.number + 4))

    def test_replay_changes_nothing(self) -> None:
        """An old claim, sent again, overrides the newer one."""
        node = make_node()
        cookie = acquaint(node, PEER, "n2").cookie
        history = [(Status.ALIVE, 5), (Status.LEFT, 5), (Status.ALIVE, 6), (Status.LEFT, 5), (Status.DEAD, 5)]
        for status, number in history:
            claim = Claim(Member("n2", "i2", *PEER), status, number)
            message = Message(kind=Kind.GOSSIP, cluster="c", sender="n2", echo=cookie, claims=(claim,))
            node.receive(encode(message), PEER, 0.0)
        self.assertEqual(node.members()["n2"].status, Status.ALIVE)
        self.assertEqual(node.events(), [("n2", "alive"), ("n2", "left"), ("n2", "alive")])

    def test_pulls_are_rationed(self) -> None:
        """A member that asks for the full state in a loop gets it as often."""
        node = make_node()
        cookie = acquaint(node, PEER, "n2").cookie
        pull = encode(Message(kind=Kind.PULL, cluster="c", sender="n2", echo=cookie, cookie=7))
        for _ in range(100):
            node.receive(pull, PEER, 0.0)
        self.assertEqual(len(node.outgoing()), node.settings.pulls_per_second)

    def test_undrained_is_bounded(self) -> None:
        """A caller that does not fetch lets the queue grow with every datagram."""
        node = make_node()
        ping = encode(Message(kind=Kind.PING, cluster="c", sender="n2")).ljust(QUESTION_SIZE, b"\0")
        for _ in range(5000):
            node.receive(ping, STRANGER, 0.0)
        self.assertEqual(len(node.outgoing()), 4096)
