"""Packet filter rules for labs: each kind of rule is a small value, and the kernel gets a table of rules in one batch.

The nft binary is not needed. The values become the expressions that nft(8) makes, so that ``nft list ruleset`` and this
project's own reader show them as they show a host's own rules.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from netns_lab import nft_encode as nft
from viacheck.host.namespace import Namespace
from viacheck.netlink.codec import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, nested, string
from viacheck.netlink.nfnetlink import NfnetlinkSocket, NftFamily, NftMessage, NftMessageType, number

_ICMP_ERRORS = ((1, (b"\3", b"\4", b"\5", b"\x0b", b"\x0c")), (58, (b"\1", b"\2", b"\3", b"\4")))
"""By IP protocol, the types of RFC 792 (unreachable, source quench, redirect, time exceeded, parameter problem) and of
RFC 4443."""
_PACKET_TOO_BIG = ((1, (b"\3\4",)), (58, (b"\2",)))
"""Type and code of "fragmentation needed", type of "packet too big"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Masquerade:
    """Source NAT to the address of the outgoing interface."""

    source: str
    """Prefix in CIDR form."""
    oif: str | None = None
    not_oif: str | None = None
    """Every interface except this interface, as in Docker's rule for its bridge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNAT:
    """Source NAT to a fixed address."""

    source: str
    to: str
    oif: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationNAT:
    """Destination NAT of packets that arrive by an interface, or for an address."""

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
    """The verdict of the forward hook for packets that no rule of the table decides; ``accept`` without this rule."""

    verdict: Literal["accept", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMark:
    """Mark arriving packets before they are routed."""

    mark: int
    source: str | None = None
    iif: str | None = None
    protocol: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTTL:
    """Set the TTL of IPv4 packets that arrive on an interface."""

    iif: str
    ttl: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DropICMPErrors:
    """Drop the ICMP and ICMPv6 errors that a router sends, and the errors that it forwards."""

    only_packet_too_big: bool = False
    """Only the errors that path MTU discovery needs (RFC 1191, RFC 8201)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropFrames:
    """Drop and count Ethernet frames at a device, as an access point or a switch with port security does.

    ``destination_not`` lets frames to group addresses pass: a delivery filter does not stop broadcasts. A raw socket
    that sends into an egress drop gets ENOBUFS; only ingress is silent.
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
    """Send a copy of each IP packet that passes a device by another device as well."""

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
    | SetTTL
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
    """The chain, with its hook, for rules of a kind."""

    family: NftFamily
    name: str
    hook: int
    priority: int
    type: str = "filter"
    device: str | None = None


_POSTROUTING = _Chain(NftFamily.INET, "postrouting", _Hook.POSTROUTING, 100, "nat")
_PREROUTING_NAT = _Chain(NftFamily.INET, "prerouting_nat", _Hook.PREROUTING, -100, "nat")
_PREROUTING = _Chain(NftFamily.INET, "prerouting", _Hook.PREROUTING, -150)
_FORWARD = _Chain(NftFamily.INET, "forward", _Hook.FORWARD, 0)
_OUTPUT = _Chain(NftFamily.INET, "output", _Hook.OUTPUT, 0)


def apply(namespace: Namespace, table: str, rules: Sequence[LabRule]) -> None:
    """Add a table of that name with these rules, in one transaction: all rules are in force, or none.

    Rules of the same hook keep their order. Rules at devices go to a table of the same name in the family netdev.

    Raises:
        FileExistsError: when a table of that name exists.
        OSError: with the kernel's errno: ENODEV for a device that does not exist; EOPNOTSUPP or ENOENT for a kernel
            without the hook or the expression.
    """
    chains: dict[_Chain, list[bytes]] = {}
    policy = nft.ACCEPT
    for rule in rules:
        if isinstance(rule, ForwardPolicy):
            policy = nft.DROP if rule.verdict == "drop" else nft.ACCEPT
            chains.setdefault(_FORWARD, [])
            continue
        for chain, expressions in _expressions(rule, namespace):
            chains.setdefault(chain, []).append(expressions)
    messages = [
        NftMessage(NftMessageType.NEWTABLE, family, string(1, table), NLM_F_CREATE | NLM_F_EXCL)
        for family in dict.fromkeys(chain.family for chain in chains)
    ]
    for chain in chains:
        hook = [number(1, chain.hook), number(2, chain.priority)]
        if chain.device is not None:
            hook.append(string(3, chain.device))
        body = [string(1, table), string(3, chain.name), nested(4, *hook), string(7, chain.type)]
        body.append(number(5, policy if chain is _FORWARD else nft.ACCEPT))
        messages.append(NftMessage(NftMessageType.NEWCHAIN, chain.family, b"".join(body), NLM_F_CREATE))
    for chain, listed in chains.items():
        for expressions in listed:
            body = [string(1, table), string(2, chain.name), expressions]
            messages.append(
                NftMessage(NftMessageType.NEWRULE, chain.family, b"".join(body), NLM_F_CREATE | NLM_F_APPEND)
            )
    with NfnetlinkSocket(namespace) as nfnetlink:
        nfnetlink.commit(messages)


def remove(namespace: Namespace, table: str) -> None:
    """Delete the tables that ``apply`` added under that name, if they exist.

    Raises:
        OSError: with the kernel's errno.
    """
    with NfnetlinkSocket(namespace) as nfnetlink:
        for family in (NftFamily.INET, NftFamily.NETDEV):
            try:
                nfnetlink.commit([NftMessage(NftMessageType.DELTABLE, family, string(1, table))])
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
                    raise


def _expressions(rule: LabRule, namespace: Namespace) -> Iterator[tuple[_Chain, bytes]]:
    """Yield the kernel rules that a value stands for, each with its chain."""
    match rule:
        case Masquerade():
            conditions = [*nft.prefix("source", rule.source), *nft.interface("oif", rule.oif)]
            conditions += nft.interface("oif", rule.not_oif, nft.NEQ)
            yield _POSTROUTING, nft.rule(*conditions, nft.counter(), nft.expression("masq"))
        case SourceNAT():
            conditions = [*nft.prefix("source", rule.source), *nft.interface("oif", rule.oif)]
            yield _POSTROUTING, nft.rule(*conditions, nft.counter(), *nft.nat("snat", rule.to))
        case DestinationNAT():
            conditions = [*nft.version(rule.to), *nft.interface("iif", rule.iif)]
            if rule.destination:
                conditions = [*nft.interface("iif", rule.iif), *nft.prefix("destination", rule.destination)]
            conditions += nft.protocol(rule.protocol)
            if rule.dport is not None:
                conditions += nft.port("dport", rule.dport, rule.dport)
            yield _PREROUTING_NAT, nft.rule(*conditions, nft.counter(), *nft.nat("dnat", rule.to, rule.to_port))
        case Forward():
            conditions = [*nft.interface("iif", rule.iif), *nft.interface("oif", rule.oif)]
            conditions += [*nft.prefix("source", rule.source), *nft.prefix("destination", rule.destination)]
            conditions += nft.protocol(rule.protocol)
            decided = nft.verdict(nft.DROP if rule.verdict == "drop" else nft.ACCEPT)
            yield _FORWARD, nft.rule(*conditions, nft.counter(), decided)
        case SetMark():
            conditions = [*nft.interface("iif", rule.iif), *nft.prefix("source", rule.source)]
            conditions += nft.protocol(rule.protocol)
            yield _PREROUTING, nft.rule(*conditions, nft.counter(), *nft.set_mark(rule.mark, 0xFFFFFFFF))
        case SetTTL():
            conditions = [*nft.interface("iif", rule.iif), *nft.version("0.0.0.0")]  # noqa: S104 - of IPv4
            yield _PREROUTING, nft.rule(*conditions, nft.counter(), *nft.set_ttl(rule.ttl, version=4))
        case DropICMPErrors():
            for chain in (_FORWARD, _OUTPUT):
                for protocol, kinds in _PACKET_TOO_BIG if rule.only_packet_too_big else _ICMP_ERRORS:
                    for octets in kinds:
                        conditions = [*nft.protocol(protocol), nft.payload(2, 0, len(octets)), nft.compare(octets)]
                        yield chain, nft.rule(*conditions, nft.counter(), nft.verdict(nft.DROP))
        case DropFrames():
            _index(namespace, rule.device)
            yield _at_device(rule.device, rule.direction), nft.rule(*_frame(rule), nft.counter(), nft.verdict(nft.DROP))
        case Duplicate():
            _index(namespace, rule.device)
            index = _index(namespace, rule.to)
            conditions = list(nft.prefix("source", rule.source, by_ethertype=True)) if rule.source else []
            device = nft.immediate(index.to_bytes(4, sys.byteorder))
            copy = nft.expression("dup", number(2, nft.REGISTER_1))
            yield _at_device(rule.device, rule.direction), nft.rule(*conditions, nft.counter(), device, copy)
        case ForwardPolicy():
            raise AssertionError("a policy belongs to the chain, not to a rule")


def _index(namespace: Namespace, device: str) -> int:
    """Return the device's index. Newer kernels accept a chain for a missing device, and wait for the device."""
    try:
        return namespace.call(lambda: socket.if_nametoindex(device))
    except OSError:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), device) from None


def _at_device(device: str, direction: str) -> _Chain:
    return _Chain(NftFamily.NETDEV, f"{direction}_{device}", 0 if direction == "ingress" else 1, 0, device=device)


def _frame(rule: DropFrames) -> Iterator[bytes]:
    if rule.ethertype is not None:
        yield nft.meta(nft.META_ETHERTYPE)
        yield nft.compare(rule.ethertype.to_bytes(2, "big"))
    for offset, address, operator in (
        (6, rule.source, nft.EQ),
        (6, rule.source_not, nft.NEQ),
        (0, rule.destination, nft.EQ),
        (0, rule.destination_not, nft.NEQ),
    ):
        if address is not None:
            yield nft.payload(0, offset, 6)
            yield nft.compare(bytes.fromhex(address.replace(":", "")), operator)
    if rule.destination_not is not None:
        yield nft.payload(0, 0, 1)
        yield nft.mask(b"\x01")
        yield nft.compare(b"\x00")
