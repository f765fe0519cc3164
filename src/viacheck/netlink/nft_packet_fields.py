"""Fields of the packet that a rule loads into its registers: of the headers, of the kernel's metadata, of conntrack."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from viacheck.model.filter_chains import FilterMatch
from viacheck.model.set_element import PROTOCOLS_WITH_PORTS
from viacheck.netlink.nft_expressions import (
    HASH_SYMMETRIC,
    CtExpression,
    FibExpression,
    HashExpression,
    MetaExpression,
    NumgenExpression,
    PayloadExpression,
)


@dataclass(frozen=True, slots=True)
class PacketField:
    """A field of the packet in a register."""

    field: str
    """As in :class:`FilterMatch`, or ``nfproto`` or ``ethertype``."""
    text: str
    """The field as nft prints it."""
    width: int
    """Octets of the whole field; a register may hold fewer, from its beginning."""
    held: int
    host_order: bool = False
    mask: int | None = None
    """In the field's own order."""
    xor: int = 0
    modulus: int = 0
    """Of a drawn number: how many numbers it is among."""
    offset: int = 0
    """Of a drawn number: the lowest."""

    def value(self, octets: bytes) -> int:
        """Return the number that some octets of the register are."""
        return int.from_bytes(octets, sys.byteorder if self.host_order else "big")


def unknown_field(text: str, width: int, *, host_order: bool = False) -> PacketField:
    """Return a field that no condition can name."""
    return PacketField("unknown", text, width, width, host_order)


_L4_PROTOCOLS = {
    1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 50: "esp", 51: "ah", 58: "ipv6-icmp", 132: "sctp",
}  # fmt: skip
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_BASES = ("ll", "nh", "th", "ih")
_ADDRESS_FIELDS = {
    4: {12: PacketField("source", "ip saddr", 4, 4), 16: PacketField("destination", "ip daddr", 4, 4)},
    6: {8: PacketField("source", "ip6 saddr", 16, 16), 24: PacketField("destination", "ip6 daddr", 16, 16)},
}
"""By IP version and offset in the network header."""
_PROTOCOL_FIELDS = {
    4: (9, PacketField("protocol", "ip protocol", 1, 1)),
    6: (6, PacketField("protocol", "ip6 nexthdr", 1, 1)),
}
_TTL_FIELDS = {4: (8, PacketField("ttl", "ip ttl", 1, 1)), 6: (7, PacketField("ttl", "ip6 hoplimit", 1, 1))}
TTL_IN_WORD = {
    4: (8, PacketField("ttl-in-word", "@nh,64,16", 2, 2), 0x00FF, 8),
    6: (6, PacketField("ttl-in-word", "@nh,48,16", 2, 2), 0xFF00, 0),
}
"""By IP version, the two octets that hold the TTL, as nft sets it by writing both.

Their offset, their field, the mask that keeps the other octet, and how far the TTL is shifted.
"""
_LINK_FIELDS = {
    (0, 6): unknown_field("ether daddr", 6),
    (6, 6): PacketField("mac", "ether saddr", 6, 6),
    (12, 2): PacketField("ethertype", "ether type", 2, 2),
}
"""By offset and length in the link header."""
META_MARK = 3
_META_FIELDS = {
    1: PacketField("ethertype", "meta protocol", 2, 2),
    3: PacketField("mark", "meta mark", 4, 4, host_order=True),
    4: PacketField("iif", "iif", 4, 4, host_order=True),
    5: PacketField("oif", "oif", 4, 4, host_order=True),
    6: PacketField("iif", "iifname", 16, 16),
    7: PacketField("oif", "oifname", 16, 16),
    8: PacketField("iiftype", "meta iiftype", 2, 2, host_order=True),
    10: PacketField("owner", "meta skuid", 4, 4, host_order=True),
    11: PacketField("owner", "meta skgid", 4, 4, host_order=True),
    15: PacketField("nfproto", "meta nfproto", 1, 1),
    16: PacketField("protocol", "meta l4proto", 1, 1),
    19: PacketField("pkttype", "meta pkttype", 1, 1),
}
_FIB_TYPE = 3
_FIB_FIELDS = {1: ("src-type", "saddr"), 2: ("dst-type", "daddr")}
_CT_STATE_KEY, _CT_STATUS_KEY, CT_MARK = 0, 2, 3
_PORTS_OF_ANY_PROTOCOL = {
    (0, 2): PacketField("th-sport", "th sport", 2, 2),
    (2, 2): PacketField("th-dport", "th dport", 2, 2),
}
"""By offset and length in the transport header; the fields are those of :mod:`viacheck.model.set_element`."""
ICMP_TYPE_AND_CODE = "icmp-type-and-code"
_ICMP = {("1",): "icmp", ("58",): "icmpv6"}


def payload_field(load: PayloadExpression, version: int | None, protocol: FilterMatch | None) -> PacketField:
    """Return the field of the packet that some octets of a header are.

    Args:
        load: which octets of which header.
        version: the IP version that the rule is about so far.
        protocol: the latest condition on the protocol above IP.
    """
    offset, length = load.offset, load.length
    key: PacketField | None = None
    if load.base == _LINK:
        key = _LINK_FIELDS.get((offset, length))
    elif load.base == _NETWORK and version:
        address = _ADDRESS_FIELDS[version].get(offset)
        protocol_offset, protocol_field = _PROTOCOL_FIELDS[version]
        if address is not None and length <= address.width:
            key = replace(address, held=length)
        elif (offset, length) == (protocol_offset, 1):
            key = protocol_field
        elif (offset, length) == (_TTL_FIELDS[version][0], 1):
            key = _TTL_FIELDS[version][1]
        elif (offset, length) == (TTL_IN_WORD[version][0], 2):
            key = TTL_IN_WORD[version][1]
    elif load.base == _TRANSPORT:
        key = _transport_field(protocol, offset, length)
    base = _BASES[load.base] if load.base < len(_BASES) else str(load.base)
    return key or unknown_field(f"@{base},{offset * 8},{length * 8}", length)


def _transport_field(protocol: FilterMatch | None, offset: int, length: int) -> PacketField | None:
    """Return the field of the transport header; nft puts the condition on the protocol before it."""
    if protocol is None:
        # A concatenation has the protocol beside the port.
        return _PORTS_OF_ANY_PROTOCOL.get((offset, length))
    if length == 2 and offset in (0, 2) and not protocol.negated and PROTOCOLS_WITH_PORTS.issuperset(protocol.values):
        name = "sport" if offset == 0 else "dport"
        text = protocol_text(protocol.values) if len(protocol.values) == 1 else "th"
        return PacketField(name, f"{text} {name}", 2, 2)
    if (offset, length) == (13, 1) and not protocol.negated and protocol.values == ("6",):
        return PacketField("tcp-flags", "tcp flags", 1, 1)
    if (offset, length) == (0, 2) and not protocol.negated and protocol.values in _ICMP:
        # nft and iptables load type and code at once.
        return PacketField(ICMP_TYPE_AND_CODE, "@th,0,16", 2, 2)
    if length == 1 and offset in (0, 1) and protocol.values in _ICMP:
        part = ("type", "code")[offset]
        return PacketField(f"icmp-{part}", f"{_ICMP[protocol.values]} {part}", 1, 1)
    return None


def meta_field(meta: MetaExpression) -> PacketField:
    """Return the field of the kernel's metadata."""
    return _META_FIELDS.get(meta.key) or unknown_field(f"meta {meta.key}", 4, host_order=True)


def tracking_field(tracking: CtExpression) -> PacketField:
    """Return the field of conntrack."""
    if tracking.key == _CT_STATE_KEY:
        return PacketField("ctstate", "ct state", 4, 4, host_order=True)
    if tracking.key == _CT_STATUS_KEY:
        return PacketField("ctstatus", "ct status", 4, 4, host_order=True)
    if tracking.key == CT_MARK:
        return PacketField("ctmark", "ct mark", 4, 4, host_order=True)
    return unknown_field(f"ct {tracking.key}", 4, host_order=True)


def lookup_field(lookup: FibExpression) -> PacketField:
    """Return the result of a look-up in the routing tables."""
    name, text = _FIB_FIELDS.get(lookup.flags, ("unknown", f"flags {lookup.flags}"))
    if lookup.result != _FIB_TYPE:
        name, text = "unknown", f"flags {lookup.flags} result {lookup.result}"
    return PacketField(name, f"fib {text} type", 4, 4, host_order=True)


def drawn_field(draw: NumgenExpression | HashExpression, hashed: PacketField | None = None) -> PacketField:
    """Return the number that a rule draws.

    Args:
        draw: what draws it.
        hashed: the first field that a hash is of. A hash of the source alone is the same for all packets of an agent,
            and which one it is depends on a seed: no draw, and not known.
    """
    text = f"numgen {'random' if isinstance(draw, NumgenExpression) and draw.kind else 'inc'}"
    if isinstance(draw, HashExpression):
        text = "symhash" if draw.kind == HASH_SYMMETRIC else "jhash"
        if text == "jhash" and hashed is not None and hashed.field == "source" and draw.length <= hashed.width:
            return unknown_field(f"jhash {hashed.text} mod {draw.modulus}", 4, host_order=True)
    text += f" mod {draw.modulus}" + (f" offset {draw.offset}" if draw.offset else "")
    return PacketField("random", text, 4, 4, host_order=True, modulus=draw.modulus, offset=draw.offset)


def protocol_text(values: tuple[str, ...]) -> str:
    """Return protocol numbers by name where they have a name."""
    return ", ".join(_L4_PROTOCOLS.get(int(value), value) for value in values)
