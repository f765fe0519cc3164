"""Netlink messages survive a round trip, and octets that are not messages end in the one declared error."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns_lab import nft_encode as nft
from viacheck.model.filter_chains import FilterMatch, FilterRule
from viacheck.netlink import codec
from viacheck.netlink.codec import MalformedMessage, attribute, nested, string
from viacheck.netlink.monitor import announced
from viacheck.netlink.nfnetlink import NftFamily, NftMessage, NftMessageType, number
from viacheck.netlink.nft_decode import decode_chain, decode_comment
from viacheck.netlink.nft_rule import filter_rules, read_rule
from viacheck.netlink.nft_sets import NftSet, SetDescription, decode_set
from viacheck.netlink.rtnetlink import BODY_SIZE, RTM_NEWROUTE, MultipathHop, RtnetlinkMessage, multipath_hops

KINDS = st.integers(0, codec.NLA_TYPE_MASK)
ATTRIBUTES = st.lists(st.tuples(KINDS, st.binary(max_size=40)), max_size=6)
ADDRESSES = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32))
MARK_BITS = st.integers(1, 2**32 - 1)
SET = SetDescription(table="lab", name="lans", flags=4, key_length=4)


def expressions(*parts: Iterable[bytes]) -> bytes:
    """Return the expressions of a rule, as NFTA_RULE_EXPRESSIONS holds them."""
    octets = nft.rule(*(part for group in parts for part in group))
    return codec.attribute_table(octets)[4]


RULES = (
    expressions(nft.prefix("source", "172.17.0.0/16"), nft.interface("oif", "docker0", nft.NEQ), [nft.counter()]),
    expressions(nft.prefix("destination", "2001:db8::/47"), nft.protocol(17), nft.port("dport", 53, 99)),
    expressions(nft.connection_state(6), nft.mark(0x200, 0xFF00), nft.set_mark(0x300, 0xFF00)),
    expressions(nft.address_type("dst-type", 2), nft.nat("dnat", "10.0.0.1-10.0.0.9", 80)),
    expressions(nft.protocol(6), nft.redirect(80), [nft.reject(3, 0), nft.verdict(nft.JUMP, "chain")]),
    expressions([nft.meta(nft.META_NFPROTO), nft.compare(b"\2"), nft.payload(1, 12, 4)],
                [nft.expression("lookup", string(1, "lans"), number(2, 1))]),
    expressions([nft.expression("match", string(1, name), number(2, revision), attribute(3, bytes(200)))
                 for name, revision in (("tcp", 0), ("udp", 0), ("mark", 1), ("conntrack", 3), ("addrtype", 1))]),
    expressions([nft.expression("target", string(1, name), number(2, 2), attribute(3, bytes(40)))
                 for name in ("SNAT", "MARK", "MASQUERADE", "CONNMARK", "NFQUEUE", "LOG", "OTHER")]),
    expressions([nft.expression("limit"), nft.expression("dup", number(2, 1)), nft.expression("fwd")]),
)  # fmt: skip


def mutated(originals: Iterable[bytes]) -> st.SearchStrategy[bytes]:
    """Return octets that are nearly one of the originals: some of them changed, or the end cut off."""

    def change(octets: bytes, changes: list[tuple[int, int]], end: int) -> bytes:
        array = bytearray(octets)
        for position, value in changes:
            array[position % len(array)] = value
        return bytes(array[: max(1, len(array) - end)])

    changes = st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=4)
    return st.builds(change, st.sampled_from(tuple(originals)), changes, st.integers(0, 8))


def one_error(decode: Callable[[], Any]) -> None:
    """Decode, and accept no other error than the declared one."""
    try:
        result = decode()
        if not isinstance(result, str | NftSet | NftMessage | RtnetlinkMessage):
            list(result)
    except MalformedMessage:
        pass


def rules_of(version: int | None, octets: bytes, members: NftSet | None = None) -> list[FilterRule]:
    """Read one rule, in a ruleset whose only set is ``lans``."""
    state = read_rule(version, octets, lambda index: f"if{index}", lambda name: members if name == "lans" else None)
    return list(filter_rules(state, 1, ""))


@given(ATTRIBUTES)
def test_attributes_survive_a_round_trip(pairs: list[tuple[int, bytes]]) -> None:
    octets = b"".join(attribute(kind, value) for kind, value in pairs)
    assert list(codec.attributes(octets)) == pairs
    assert codec.attribute_table(nested(1, octets)) == {1: octets}


@given(st.sampled_from(sorted(BODY_SIZE)), ATTRIBUTES, st.integers(0, 2**32 - 1))
def test_a_routing_message_survives_a_round_trip(kind: int, pairs: list[tuple[int, bytes]], sequence: int) -> None:
    message = RtnetlinkMessage(kind, bytes(range(BODY_SIZE[kind])), tuple(pairs))
    datagram = codec.encode_message(kind, codec.NLM_F_REQUEST, 0, message.encode())
    (decoded,) = codec.decode_messages(codec.numbered(datagram, sequence))
    assert decoded[:3] == (kind, codec.NLM_F_REQUEST, sequence)
    assert RtnetlinkMessage.decode(decoded.type, decoded.payload) == message


@given(st.lists(st.builds(MultipathHop, st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31 - 1),
                          ATTRIBUTES.map(tuple)), max_size=4))  # fmt: skip
def test_next_hops_survive_a_round_trip(hops: list[MultipathHop]) -> None:
    assert list(multipath_hops(b"".join(hop.encode() for hop in hops))) == hops


@given(ADDRESSES, st.booleans())
def test_a_prefix_of_any_length_is_read_as_it_was_written(address: tuple[int, int], negated: bool) -> None:
    value, length = address
    text = f"{socket.inet_ntoa((value >> 32 - length << 32 - length).to_bytes(4, 'big'))}/{length}"
    operator = nft.NEQ if negated else nft.EQ
    (rule,) = rules_of(4, expressions(nft.prefix("source", text, operator, one_version=True)))
    assert rule.matches == (FilterMatch(field="source", values=(text,), negated=negated),)


@given(MARK_BITS, MARK_BITS)
def test_a_mark_is_read_as_it_was_written(value: int, bits: int) -> None:
    (rule,) = rules_of(4, expressions(nft.mark(value & bits, bits), nft.set_mark(value & bits, bits)))
    text = f"0x{value & bits:x}/0x{bits:x}"
    assert (rule.matches, rule.set_mark) == ((FilterMatch(field="mark", values=(text,)),), text)


def test_a_rule_with_an_empty_set_matches_nothing() -> None:
    octets = RULES[5]
    (rule,) = rules_of(None, octets, NftSet(SET, ()))
    assert rule.matches[-1] == FilterMatch(field="source", values=())


def test_a_look_up_of_a_field_without_octets_is_unknown() -> None:
    length = b"\x08\x00\x04\x00\x00\x00\x00"
    octets = RULES[5].replace(length + b"\x04", length + b"\x00")
    assert octets != RULES[5]
    (rule,) = rules_of(None, octets, NftSet(SET, ()))
    assert rule.matches[-1].field == "unknown"


@given(st.binary(max_size=200) | mutated(RULES), st.sampled_from((None, 4, 6)), st.binary(max_size=80))
def test_octets_that_are_no_rule_end_in_the_declared_error(octets: bytes, version: int | None, dumped: bytes) -> None:
    members = None
    with contextlib.suppress(MalformedMessage):
        members = decode_set(SET, [dumped])
    one_error(lambda: rules_of(version, octets, members))


@pytest.mark.parametrize("octets", RULES, ids=range(len(RULES)))
def test_a_changed_length_is_never_a_shorter_rule(octets: bytes) -> None:
    """An attribute that does not fit was once the silent end of a rule: its last conditions were lost."""
    with pytest.raises(MalformedMessage):
        rules_of(4, octets[:-1])


DATAGRAMS = tuple(
    codec.encode_message(kind, 0, 1, RtnetlinkMessage(kind, bytes(size), ((1, bytes(4)), (9, bytes(8)))).encode())
    for kind, size in BODY_SIZE.items()
)
ELEMENTS = nested(3, nested(1, nested(1, attribute(1, b"\x0a\0\0\0")), number(3, 0)), nested(1, number(3, 1)))


SIZED = st.sampled_from((0, 1, 2, 3, 4, 8, 12, 16)).flatmap(lambda size: st.binary(min_size=size, max_size=size))


@given(
    st.sampled_from(sorted(BODY_SIZE)),
    st.sampled_from((socket.AF_INET, socket.AF_INET6, 0)),
    st.binary(min_size=16, max_size=16),
    st.lists(st.tuples(st.integers(1, 30), SIZED), max_size=5),
)
def test_any_attributes_are_announced_or_end_in_the_declared_error(
    kind: int, family: int, body: bytes, pairs: list[tuple[int, bytes]]
) -> None:
    message = RtnetlinkMessage(kind, bytes([family]) + body[1 : BODY_SIZE[kind]], tuple(pairs))
    one_error(lambda: announced(codec.encode_message(kind, 0, 1, message.encode()), {1: "eth0"}))


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "messages": codec.decode_messages,
    "attributes": codec.attributes,
    "next hops": multipath_hops,
    "announcements": lambda octets: announced(octets, {}),
    "route": lambda octets: RtnetlinkMessage.decode(RTM_NEWROUTE, octets),
    "unknown nftables object": lambda octets: NftMessage.decode(codec.NetlinkMessage(0xFF, 0, 0, octets)),
    "nftables rule": lambda octets: NftMessage.decode(codec.NetlinkMessage(NftMessageType.NEWRULE, 0, 0, octets)),
    "set elements": lambda octets: decode_set(SET, [octets]),
    "set": lambda octets: decode_set(SetDescription.decode(octets), [ELEMENTS]),
    "hook": lambda octets: decode_chain((NftFamily.INET, "t", "c"), {4: octets}, (), dormant=False).name,
    "comment": decode_comment,
}


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@given(octets=st.binary(max_size=120) | mutated((*DATAGRAMS, ELEMENTS)))
def test_other_octets_end_in_the_declared_error(decode: Callable[[bytes], Any], octets: bytes) -> None:
    one_error(lambda: decode(octets))
