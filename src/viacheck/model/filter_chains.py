"""The packet filter of a namespace: chains of nftables and iptables, their rules, and the conditions of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PACKET_TYPES = ("unicast", "broadcast", "multicast", "otherhost")
"""PACKET_* of linux/if_packet.h, by number: to whom the frame of a packet was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterMatch:
    """One condition of a packet filter rule.

    ``field`` is one of ``source``, ``destination`` (CIDR values), ``iif``, ``oif`` (interface names; a wildcard ends in
    ``*``), ``protocol`` (numbers as text), ``sport``, ``dport`` (``N`` or ``N-M``), ``th-sport``, ``th-dport`` (the
    same octets in any protocol: ports where it has some), ``mark`` (``VALUE/MASK`` in hex), ``ctstate`` (``new``,
    ``established``, ``related``, ``invalid``, and ``snat``, ``dnat`` for iptables), ``ctstatus`` (``dnat``, ``snat``,
    ``seen-reply`` …; any of them), ``icmp-type``, ``icmp-code`` (numbers; ``protocol`` says whether of ICMP or ICMPv6),
    ``limit`` (``within`` or ``over`` a rate), ``dst-type``, ``src-type`` (``local`` …), ``random`` (``N/M`` or
    ``N-K/M``: these of M numbers from 0 on, one of which is drawn at random or by a hash of the flow, once for each
    rule), ``set`` (``FIELD=VALUE …``: one element of a set of ipset, or of concatenations of nft, whose conditions all
    hold), ``tcp-flags`` (``VALUE/MASK`` in hex), ``pkttype`` (:data:`PACKET_TYPES`), ``owner`` (of the socket that
    sends: a forwarded packet has none), or ``unknown``: a condition that the reader does not know, whose text is the
    only value.
    """

    field: str
    values: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRule:
    """One rule of nftables or iptables, with its conditions decoded as far as this tool needs."""

    matches: tuple[FilterMatch, ...] = ()
    verdict: str | None = None
    """``accept``, ``drop``, ``reject``, ``return``, ``jump``, ``goto``, ``masquerade``, ``snat``, ``dnat``,
    ``redirect``, ``queue``; None when the rule decides nothing (a counter, a log line, a mark); ``unknown`` for a
    target that the reader does not know."""
    argument: str | None = None
    """The chain of ``jump`` and ``goto``; the address of ``snat`` and ``dnat``."""
    set_mark: str | None = None
    """``VALUE/MASK`` in hex, when the rule sets the packet's mark; ``copy BITS/MASK`` when it copies bits of the flow's
    mark; ``drawn VALUE/MASK …`` for one of several; ``unknown`` when the reader cannot compute it."""
    set_ctmark: str | None = None
    """The same for the mark of the flow, which conntrack keeps; it is set after the packet's."""
    untracks: bool = False
    """The rule keeps conntrack from tracking the packet (``notrack``), where conntrack has not seen it yet."""
    set_ttl: str | None = None
    """``=N``, ``+N`` or ``-N``, when the rule sets or changes the packet's TTL (IPv6: hop limit)."""
    packets: int | None = None
    bytes: int | None = None
    handle: int | None = None
    text: str = ""
    """The rule as its tool prints it, for people."""

    def is_part_of(self, other: FilterRule) -> bool:
        """Whether both are the same rule of the kernel, which may have a map with several entries."""
        return self is other or (self.handle is not None and self.handle == other.handle)

    @property
    def changes_packet(self) -> bool:
        """Whether the rule changes what later rules and routing see of the packet, besides its addresses."""
        return self.untracks or any(change is not None for change in (self.set_mark, self.set_ctmark, self.set_ttl))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterChain:
    """One chain with its rules in order. A base chain has a hook; others are reached by jump or goto."""

    backend: Literal["nft", "iptables", "iptables-legacy"]
    family: Literal["ip", "ip6", "inet", "arp", "bridge", "netdev"]
    table: str
    name: str
    type: str | None = None
    """``filter``, ``nat``, ``route`` for base chains."""
    hook: str | None = None
    """``prerouting``, ``input``, ``forward``, ``output``, ``postrouting``."""
    priority: int | None = None
    policy: str | None = None
    rules: tuple[FilterRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketFilter:
    """All chains of a namespace, and the parts that could not be read."""

    chains: tuple[FilterChain, ...] = ()
    read_with: tuple[str, ...] = ()
    """``netlink``, ``iptables-nft-save`` …: how the chains were read."""
    unread: tuple[str, ...] = ()
    """The parts that could not be read, with the reason. While this is not empty, a missing rule proves nothing."""
