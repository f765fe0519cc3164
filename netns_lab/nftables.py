"""Packet filter rules for labs: each kind of rule is a small value, a table of them goes to the kernel in one batch.

No nft binary takes part. The values become expressions like those that nft(8) makes, so that ``nft list ruleset`` and
this project's own reader show them as they show a host's own rules.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal

from fixtures.access.namespace import Namespace
from fixtures.access.nfnetlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    MessageType,
    NfnetlinkSocket,
    Protocol,
    attribute,
    nested,
    number,
    string,
)

_DROP, _ACCEPT = 0, 1
_REGISTER_VERDICT, _REGISTER_1, _REGISTER_2 = 0, 1, 2
_EQ, _NEQ = 0, 1
_ICMP_ERRORS = ((1, (b"\3", b"\4", b"\5", b"\x0b", b"\x0c")), (58, (b"\1", b"\2", b"\3", b"\4")))
"""By IP protocol, the types of RFC 792 (unreachable, source quench, redirect, time exceeded, parameter problem) and of
RFC 4443."""
_PACKET_TOO_BIG = ((1, (b"\3\4",)), (58, (b"\2",)))
"""Type and code of "fragmentation needed", type of "packet too big"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Masquerade:
    """Source NAT to the address of the interface that a packet leaves by."""

    source: str
    """Prefix in CIDR form."""
    oif: str | None = None
    not_oif: str | None = None
    """Every interface but this one, as Docker does it with its bridge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNAT:
    """Source NAT to a fixed address."""

    source: str
    to: str
    oif: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationNAT:
    """Destination NAT of what comes in by an interface, or for an address."""

    to: str
    destination: str | None = None
    iif: str | None = None
    protocol: int | None = None
    dport: int | None = None
    to_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A counted rule of the forward hook."""

    verdict: Literal["accept", "drop"]
    source: str | None = None
    destination: str | None = None
    iif: str | None = None
    oif: str | None = None
    protocol: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPolicy:
    """What the forward hook does with packets that no rule of the table decides; ``accept`` when not said."""

    verdict: Literal["accept", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMark:
    """Mark what comes in, before it is routed."""

    mark: int
    source: str | None = None
    iif: str | None = None
    protocol: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DropICMPErrors:
    """Drop ICMP and ICMPv6 errors that a router makes itself, and those that it forwards."""

    only_packet_too_big: bool = False
    """Only those that path MTU discovery needs (RFC 1191, RFC 8201)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropFrames:
    """Drop Ethernet frames at one device, counted: what an access point or a switch with port security does.

    ``destination_not`` spares frames to group addresses: no delivery filter stops broadcasts. Who sends on a raw socket
    into an egress drop is told so with ENOBUFS; only ingress is silent.
    """

    device: str
    direction: Literal["ingress", "egress"] = "ingress"
    source: str | None = None
    source_not: str | None = None
    destination: str | None = None
    destination_not: str | None = None
    ethertype: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """Send a copy of each IP packet that passes one device out of another one as well."""

    device: str
    to: str
    direction: Literal["ingress", "egress"] = "egress"
    source: str | None = None


LabRule = (
    Masquerade
    | SourceNAT
    | DestinationNAT
    | Forward
    | ForwardPolicy
    | SetMark
    | DropICMPErrors
    | DropFrames
    | Duplicate
)


class _Hook(IntEnum):
    """NF_INET_* of linux/netfilter.h."""

    PREROUTING = 0
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4


@dataclass(frozen=True, slots=True)
class _Chain:
    """Where the rules of one kind are hooked in."""

    family: Protocol
    name: str
    hook: int
    priority: int
    type: str = "filter"
    device: str | None = None


_POSTROUTING = _Chain(Protocol.INET, "postrouting", _Hook.POSTROUTING, 100, "nat")
_PREROUTING_NAT = _Chain(Protocol.INET, "prerouting_nat", _Hook.PREROUTING, -100, "nat")
_PREROUTING = _Chain(Protocol.INET, "prerouting", _Hook.PREROUTING, -150)
_FORWARD = _Chain(Protocol.INET, "forward", _Hook.FORWARD, 0)
_OUTPUT = _Chain(Protocol.INET, "output", _Hook.OUTPUT, 0)


def apply(namespace: Namespace, table: str, rules: Sequence[LabRule]) -> None:
    """Make a table of that name with these rules, in one transaction: all of them are in force, or none.

    Rules for one hook keep their order. Rules at devices go to a table of the same name in the family netdev.

    Raises:
        FileExistsError: when there is a table of that name.
        OSError: with the kernel's errno: ENODEV for a device that does not exist; EOPNOTSUPP or ENOENT for a kernel
            without the hook or the expression.
    """
    chains: dict[_Chain, list[bytes]] = {}
    policy = _ACCEPT
    for rule in rules:
        if isinstance(rule, ForwardPolicy):
            policy = _DROP if rule.verdict == "drop" else _ACCEPT
            chains.setdefault(_FORWARD, [])
            continue
        for chain, expressions in _expressions(rule, namespace):
            chains.setdefault(chain, []).append(expressions)
    messages = [
        Message(MessageType.NEWTABLE, family, string(1, table), NLM_F_CREATE | NLM_F_EXCL)
        for family in dict.fromkeys(chain.family for chain in chains)
    ]
    for chain in chains:
        hook = [number(1, chain.hook), number(2, chain.priority)]
        if chain.device is not None:
            hook.append(string(3, chain.device))
        body = [string(1, table), string(3, chain.name), nested(4, *hook), string(7, chain.type)]
        body.append(number(5, policy if chain is _FORWARD else _ACCEPT))
        messages.append(Message(MessageType.NEWCHAIN, chain.family, b"".join(body), NLM_F_CREATE))
    for chain, listed in chains.items():
        for expressions in listed:
            body = [string(1, table), string(2, chain.name), expressions]
            messages.append(Message(MessageType.NEWRULE, chain.family, b"".join(body), NLM_F_CREATE | NLM_F_APPEND))
    with NfnetlinkSocket(namespace) as nfnetlink:
        nfnetlink.commit(messages)


def remove(namespace: Namespace, table: str) -> None:
    """Delete everything that ``apply`` made under that name; nothing happens when there is nothing.

    Raises:
        OSError: with the kernel's errno.
    """
    with NfnetlinkSocket(namespace) as nfnetlink:
        for family in (Protocol.INET, Protocol.NETDEV):
            try:
                nfnetlink.commit([Message(MessageType.DELTABLE, family, string(1, table))])
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
                    raise


def _expressions(rule: LabRule, namespace: Namespace) -> Iterator[tuple[_Chain, bytes]]:
    """The kernel rules that a value stands for, each with its chain."""
    match rule:
        case Masquerade():
            conditions = [*_prefix("source", rule.source), *_interface("oif", rule.oif)]
            conditions += _interface("oif", rule.not_oif, _NEQ)
            yield _POSTROUTING, _rule(*conditions, _counter(), _expression("masq"))
        case SourceNAT():
            conditions = [*_prefix("source", rule.source), *_interface("oif", rule.oif)]
            yield _POSTROUTING, _rule(*conditions, _counter(), *_nat("snat", rule.to))
        case DestinationNAT():
            conditions = [*_version(rule.to), *_interface("iif", rule.iif)]
            if rule.destination:
                conditions = [*_interface("iif", rule.iif), *_prefix("destination", rule.destination)]
            conditions += _protocol(rule.protocol)
            if rule.dport is not None:
                conditions += [_payload(2, 2, 2), _compare(rule.dport.to_bytes(2, "big"))]
            yield _PREROUTING_NAT, _rule(*conditions, _counter(), *_nat("dnat", rule.to, rule.to_port))
        case Forward():
            conditions = [*_interface("iif", rule.iif), *_interface("oif", rule.oif)]
            conditions += [*_prefix("source", rule.source), *_prefix("destination", rule.destination)]
            conditions += _protocol(rule.protocol)
            yield _FORWARD, _rule(*conditions, _counter(), _verdict(_DROP if rule.verdict == "drop" else _ACCEPT))
        case SetMark():
            conditions = [*_interface("iif", rule.iif), *_prefix("source", rule.source), *_protocol(rule.protocol)]
            mark = _immediate(_REGISTER_1, rule.mark.to_bytes(4, sys.byteorder))
            yield _PREROUTING, _rule(*conditions, _counter(), mark, _expression("meta", number(2, 3), number(3, 1)))
        case DropICMPErrors():
            for chain in (_FORWARD, _OUTPUT):
                for protocol, kinds in _PACKET_TOO_BIG if rule.only_packet_too_big else _ICMP_ERRORS:
                    for octets in kinds:
                        conditions = [*_protocol(protocol), _payload(2, 0, len(octets)), _compare(octets)]
                        yield chain, _rule(*conditions, _counter(), _verdict(_DROP))
        case DropFrames():
            _index(namespace, rule.device)
            yield _at_device(rule.device, rule.direction), _rule(*_frame(rule), _counter(), _verdict(_DROP))
        case Duplicate():
            _index(namespace, rule.device)
            index = _index(namespace, rule.to)
            conditions = list(_prefix("source", rule.source, by_ethertype=True)) if rule.source else []
            device = _immediate(_REGISTER_1, index.to_bytes(4, sys.byteorder))
            copy = _expression("dup", number(2, _REGISTER_1))
            yield _at_device(rule.device, rule.direction), _rule(*conditions, _counter(), device, copy)
        case ForwardPolicy():
            raise AssertionError("a policy is the chain's, not a rule's")


def _index(namespace: Namespace, device: str) -> int:
    """The device's index. Newer kernels take a chain for a device that does not exist, and wait for it to appear."""
    try:
        return namespace.call(lambda: socket.if_nametoindex(device))
    except OSError:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), device) from None


def _at_device(device: str, direction: str) -> _Chain:
    return _Chain(Protocol.NETDEV, f"{direction}_{device}", 0 if direction == "ingress" else 1, 0, device=device)


def _frame(rule: DropFrames) -> Iterator[bytes]:
    if rule.ethertype is not None:
        yield _expression("meta", number(1, _REGISTER_1), number(2, 1))
        yield _compare(rule.ethertype.to_bytes(2, "big"))
    for offset, address, operator in (
        (6, rule.source, _EQ),
        (6, rule.source_not, _NEQ),
        (0, rule.destination, _EQ),
        (0, rule.destination_not, _NEQ),
    ):
        if address is not None:
            yield _payload(0, offset, 6)
            yield _compare(bytes.fromhex(address.replace(":", "")), operator)
    if rule.destination_not is not None:
        yield _payload(0, 0, 1)
        yield _mask(b"\x01")
        yield _compare(b"\x00")


def _rule(*expressions: bytes) -> bytes:
    return nested(4, *expressions)


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, string(1, name), nested(2, *parts))


def _constant(kind: int, octets: bytes) -> bytes:
    return nested(kind, attribute(1, octets))


def _payload(base: int, offset: int, length: int) -> bytes:
    """Load octets of the packet: base 0 counts from the link, 1 from the network, 2 from the transport header."""
    return _expression("payload", number(1, _REGISTER_1), number(2, base), number(3, offset), number(4, length))


def _compare(octets: bytes, operator: int = _EQ) -> bytes:
    return _expression("cmp", number(1, _REGISTER_1), number(2, operator), _constant(3, octets))


def _mask(octets: bytes) -> bytes:
    length = len(octets)
    parts = (number(1, _REGISTER_1), number(2, _REGISTER_1), number(3, length))
    return _expression("bitwise", *parts, _constant(4, octets), _constant(5, bytes(length)))


def _immediate(register: int, octets: bytes) -> bytes:
    return _expression("immediate", number(1, register), _constant(2, octets))


def _verdict(code: int) -> bytes:
    return _expression("immediate", number(1, _REGISTER_VERDICT), nested(2, nested(2, number(1, code))))


def _counter() -> bytes:
    return _expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))


def _version(address: str, *, by_ethertype: bool = False) -> Iterator[bytes]:
    """The condition that a packet is of an address's IP version."""
    six = ":" in address
    if by_ethertype:
        yield _expression("meta", number(1, _REGISTER_1), number(2, 1))
        yield _compare(struct.pack(">H", 0x86DD if six else 0x0800))
    else:
        yield _expression("meta", number(1, _REGISTER_1), number(2, 15))
        yield _compare(bytes((Protocol.IP6 if six else Protocol.IP,)))


def _prefix(
    side: Literal["source", "destination"], prefix: str | None, *, by_ethertype: bool = False
) -> Iterator[bytes]:
    """The condition that an address lies in a prefix of any length."""
    if prefix is None:
        return
    network = ip_network(prefix)
    yield from _version(prefix, by_ethertype=by_ethertype)
    width, offset = (4, 12) if network.version == 4 else (16, 8)
    yield _payload(1, offset if side == "source" else offset + width, width)
    if network.prefixlen < 8 * width:
        yield _mask(network.netmask.packed)
    yield _compare(network.network_address.packed)


def _interface(side: Literal["iif", "oif"], name: str | None, operator: int = _EQ) -> Iterator[bytes]:
    """The condition on an interface by name: the name may come and go, a rule by index would be left behind."""
    if name is not None:
        yield _expression("meta", number(1, _REGISTER_1), number(2, 6 if side == "iif" else 7))
        yield _compare(name.encode().ljust(16, b"\0"), operator)


def _protocol(protocol: int | None) -> Iterator[bytes]:
    if protocol is not None:
        yield _expression("meta", number(1, _REGISTER_1), number(2, 16))
        yield _compare(bytes((protocol,)))


def _nat(kind: Literal["snat", "dnat"], to: str, port: int | None = None) -> Iterator[bytes]:
    address: IPv4Address | IPv6Address = ip_address(to)
    family = Protocol.IP if address.version == 4 else Protocol.IP6
    yield _immediate(_REGISTER_1, address.packed)
    parts = [number(1, 0 if kind == "snat" else 1), number(2, family), number(3, _REGISTER_1)]
    if port is not None:
        yield _immediate(_REGISTER_2, port.to_bytes(2, "big"))
        parts.append(number(5, _REGISTER_2))
    yield _expression("nat", *parts)
