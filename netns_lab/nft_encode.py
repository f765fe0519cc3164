"""The expressions of nftables rules, as the kernel takes them (linux/netfilter/nf_tables.h).

A rule is a list of small expressions that work on registers. These functions return the expressions that nft(8) makes
from the text of a rule; :mod:`viacheck.netlink.nft_expressions` decodes them.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal

from viacheck.netlink.codec import attribute, nested, string
from viacheck.netlink.nfnetlink import NftFamily, number

DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5
EQ, NEQ = 0, 1
_REGISTER_VERDICT, REGISTER_1, _REGISTER_2, _REGISTER_3 = 0, 1, 2, 3
LINK, NETWORK, TRANSPORT = 0, 1, 2
"""The headers from which the offset of a payload is counted."""
META_ETHERTYPE, META_MARK, META_IIFNAME, META_OIFNAME, META_NFPROTO, META_PROTOCOL = 1, 3, 6, 7, 15, 16
META_PKTTYPE = 19
_CT_STATE, _CT_STATUS, _CT_MARK = 0, 2, 3
_CHECKSUM_INET = 1
_NAME_SIZE = 16
_FIB_TYPE, _FIB_SOURCE, _FIB_DESTINATION = 3, 1, 2


def rule(*expressions: bytes) -> bytes:
    """Return the expressions of a rule, in order."""
    return nested(4, *expressions)


def expression(name: str, *parts: bytes) -> bytes:
    """Return an expression with its attributes."""
    return nested(1, string(1, name), nested(2, *parts))


def _constant(kind: int, octets: bytes) -> bytes:
    return nested(kind, attribute(1, octets))


def payload(base: int, offset: int, length: int) -> bytes:
    """Load octets of the packet at an offset in a header."""
    return expression("payload", number(1, REGISTER_1), number(2, base), number(3, offset), number(4, length))


def meta(key: int) -> bytes:
    """Load a field of the kernel's metadata about the packet."""
    return expression("meta", number(1, REGISTER_1), number(2, key))


def compare(octets: bytes, operator: int = EQ) -> bytes:
    """Require that the register equals some octets, or with NEQ that it does not."""
    return expression("cmp", number(1, REGISTER_1), number(2, operator), _constant(3, octets))


def between(first: bytes, last: bytes, operator: int = EQ) -> bytes:
    """Require that the register lies between two bounds, both included."""
    return expression("range", number(1, REGISTER_1), number(2, operator), _constant(3, first), _constant(4, last))


def mask(octets: bytes, flip: bytes | None = None) -> bytes:
    """Clear the bits of the register outside a mask, then flip some bits."""
    length = len(octets)
    parts = (number(1, REGISTER_1), number(2, REGISTER_1), number(3, length))
    return expression("bitwise", *parts, _constant(4, octets), _constant(5, flip or bytes(length)))


def immediate(octets: bytes, register: int = REGISTER_1) -> bytes:
    """Load a constant."""
    return expression("immediate", number(1, register), _constant(2, octets))


def verdict(code: int, chain: str | None = None) -> bytes:
    """End the rule with a verdict; ``chain`` is the target of a jump or goto."""
    decided = [number(1, code)] + ([string(2, chain)] if chain is not None else [])
    return expression("immediate", number(1, _REGISTER_VERDICT), nested(2, nested(2, *decided)))


def counter() -> bytes:
    """Count the packets that reach this expression, from zero."""
    return expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))


def version(address: str, *, by_ethertype: bool = False) -> Iterator[bytes]:
    """Require that the packet has an address's IP version."""
    six = ":" in address
    if by_ethertype:
        yield meta(META_ETHERTYPE)
        yield compare(struct.pack(">H", 0x86DD if six else 0x0800))
    else:
        yield meta(META_NFPROTO)
        yield compare(bytes((NftFamily.IP6 if six else NftFamily.IP,)))


def prefix(
    side: Literal["source", "destination"],
    text: str | None,
    operator: int = EQ,
    *,
    by_ethertype: bool = False,
    one_version: bool = False,
) -> Iterator[bytes]:
    """Require that an address lies in a prefix of any length, or with NEQ that it does not.

    With ``one_version`` the table sees packets of that IP version only, so that no condition asks for the version.
    """
    if text is None:
        return
    network = ip_network(text, strict=False)
    if not one_version:
        yield from version(text, by_ethertype=by_ethertype)
    if not network.prefixlen and operator == EQ:
        return
    width, offset = (4, 12) if network.version == 4 else (16, 8)
    yield payload(NETWORK, offset if side == "source" else offset + width, width)
    if network.prefixlen < 8 * width:
        yield mask(network.netmask.packed)
    yield compare(network.network_address.packed, operator)


def interface(side: Literal["iif", "oif"], name: str | None, operator: int = EQ) -> Iterator[bytes]:
    """Require an interface by its name: the interface may be deleted and created again, with another index.

    A name that ends in ``*`` stands for every name with that beginning.
    """
    if name is not None:
        yield meta(META_IIFNAME if side == "iif" else META_OIFNAME)
        octets = name.encode()
        yield compare(octets[:-1] if octets.endswith(b"*") else octets.ljust(_NAME_SIZE, b"\0"), operator)


def protocol(code: int | None, operator: int = EQ) -> Iterator[bytes]:
    """Require the protocol above IP."""
    if code is not None:
        yield meta(META_PROTOCOL)
        yield compare(bytes((code,)), operator)


def port(side: Literal["sport", "dport"], first: int, last: int, operator: int = EQ) -> Iterator[bytes]:
    """Require that a port lies between two others, both included."""
    yield payload(TRANSPORT, 0 if side == "sport" else 2, 2)
    ends = first.to_bytes(2, "big"), last.to_bytes(2, "big")
    yield compare(ends[0], operator) if first == last else between(*ends, operator)


def ttl(first: int, last: int, operator: int = EQ, *, version: Literal[4, 6]) -> Iterator[bytes]:
    """Require a TTL (IPv6: hop limit) between two bounds, both included."""
    yield payload(NETWORK, 8 if version == 4 else 7, 1)
    yield between(bytes((first,)), bytes((last,)), operator)


def set_ttl(value: int, *, version: Literal[4, 6]) -> Iterator[bytes]:
    """Set the TTL, as nft does: within the two octets that the checksum of IPv4 is counted over."""
    offset = 8 if version == 4 else 6
    yield payload(NETWORK, offset, 2)
    yield mask(*((b"\0\xff", bytes((value, 0))) if version == 4 else (b"\xff\0", bytes((0, value)))))
    written = (number(5, REGISTER_1), number(2, NETWORK), number(3, offset), number(4, 2))
    checksum = (number(6, _CHECKSUM_INET), number(7, 10)) if version == 4 else ()
    yield expression("payload", *written, *checksum)


def mark(value: int, bits: int, operator: int = EQ) -> Iterator[bytes]:
    """Require the bits of the packet's mark."""
    yield meta(META_MARK)
    if bits != 0xFFFFFFFF:
        yield mask(_host_order(bits))
    yield compare(_host_order(value), operator)


_AT_RANDOM = 1
"""NFT_NG_RANDOM."""


def set_mark(value: int, bits: int) -> Iterator[bytes]:
    """Clear the bits of the packet's mark that are set in ``bits``, then flip the bits of ``value``."""
    if bits == 0xFFFFFFFF:
        yield immediate(_host_order(value))
    else:
        yield meta(META_MARK)
        yield mask(_host_order(bits ^ 0xFFFFFFFF), _host_order(value))
    yield expression("meta", number(2, META_MARK), number(3, REGISTER_1))


def draw_mark(lowest: int, count: int) -> Iterator[bytes]:
    """Set the packet's mark to one of so many numbers from the lowest on, at random for each packet."""
    yield expression("numgen", number(1, REGISTER_1), number(2, count), number(3, _AT_RANDOM), number(4, lowest))
    yield expression("meta", number(2, META_MARK), number(3, REGISTER_1))


def flow_mark(value: int, bits: int, operator: int = EQ) -> Iterator[bytes]:
    """Require the bits of the mark of the packet's flow."""
    yield _load_flow_mark()
    if bits != 0xFFFFFFFF:
        yield mask(_host_order(bits))
    yield compare(_host_order(value), operator)


def set_flow_mark(value: int, bits: int) -> Iterator[bytes]:
    """Change the mark of the packet's flow as :func:`set_mark` does the packet's."""
    if bits == 0xFFFFFFFF:
        yield immediate(_host_order(value))
    else:
        yield _load_flow_mark()
        yield mask(_host_order(bits ^ 0xFFFFFFFF), _host_order(value))
    yield expression("ct", number(2, _CT_MARK), number(4, REGISTER_1))


def restore_mark(bits: int) -> Iterator[bytes]:
    """Set the packet's mark to these bits of its flow's."""
    yield _load_flow_mark()
    yield mask(_host_order(bits))
    yield expression("meta", number(2, META_MARK), number(3, REGISTER_1))


def save_mark(bits: int) -> Iterator[bytes]:
    """Set the mark of the packet's flow to these bits of the packet's."""
    yield meta(META_MARK)
    yield mask(_host_order(bits))
    yield expression("ct", number(2, _CT_MARK), number(4, REGISTER_1))


def _load_flow_mark() -> bytes:
    return expression("ct", number(1, REGISTER_1), number(2, _CT_MARK))


def connection_state(bits: int, negated: bool = False) -> Iterator[bytes]:
    """Require that conntrack has the packet in one of the states whose bits are set."""
    yield from _conntrack_bits(_CT_STATE, bits, negated)


def connection_status(bits: int, negated: bool = False) -> Iterator[bytes]:
    """Require that conntrack has set one of these status bits of the packet's flow."""
    yield from _conntrack_bits(_CT_STATUS, bits, negated)


def _conntrack_bits(key: int, bits: int, negated: bool) -> Iterator[bytes]:
    yield expression("ct", number(1, REGISTER_1), number(2, key))
    yield mask(_host_order(bits))
    yield compare(bytes(4), EQ if negated else NEQ)


def address_type(side: Literal["src-type", "dst-type"], code: int, operator: int = EQ) -> Iterator[bytes]:
    """Require the type of the route to an address (RTN_* of rtnetlink(7))."""
    flags = _FIB_SOURCE if side == "src-type" else _FIB_DESTINATION
    yield expression("fib", number(1, REGISTER_1), number(2, _FIB_TYPE), number(3, flags))
    yield compare(_host_order(code), operator)


def nat(kind: Literal["snat", "dnat"], to: str, to_port: int | None = None) -> Iterator[bytes]:
    """Translate to an address, or to an address of ``FIRST-LAST``."""
    first, _, last = to.partition("-")
    address: IPv4Address | IPv6Address = ip_address(first)
    family = NftFamily.IP if address.version == 4 else NftFamily.IP6
    yield immediate(address.packed)
    parts = [number(1, 0 if kind == "snat" else 1), number(2, family), number(3, REGISTER_1)]
    if last:
        yield immediate(ip_address(last).packed, _REGISTER_3)
        parts.append(number(4, _REGISTER_3))
    if to_port is not None:
        yield immediate(to_port.to_bytes(2, "big"), _REGISTER_2)
        parts.append(number(5, _REGISTER_2))
    yield expression("nat", *parts)


def redirect(to_port: int | None) -> Iterator[bytes]:
    """Translate the destination to this host, at another port."""
    if to_port is None:
        yield expression("redir")
        return
    yield immediate(to_port.to_bytes(2, "big"))
    yield expression("redir", number(1, REGISTER_1))


def reject(code: int, kind: int) -> bytes:
    """Refuse with an ICMP error: the code is the family's own for ``kind`` 0, and shared by both families for 2."""
    return expression("reject", number(1, kind), attribute(2, bytes((code,))))


def _host_order(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)
