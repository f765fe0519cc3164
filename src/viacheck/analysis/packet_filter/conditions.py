"""The conditions of a packet filter rule, and the packet that they are about."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from socket import IPPROTO_TCP

from viacheck.analysis.packet_filter.draws import MOST_NUMBERS, Draws
from viacheck.model.address_family import Family
from viacheck.model.filter_chains import FilterChain, FilterMatch, FilterRule
from viacheck.model.mark_change import MOST_DRAWN, UNKNOWN, drawn_changes, value_and_mask
from viacheck.model.set_element import PORTS_OF_ANY_PROTOCOL, PROTOCOLS_WITH_PORTS

NUMBERS_WITH_PORTS = frozenset(map(int, PROTOCOLS_WITH_PORTS))
_ICMP = frozenset({1, 58})
_SYN = 0x02
_AFTER_SYN = (0x12, 0x10, 0x18, 0x11, 0x14, 0x04)
"""Flags of the later packets of a TCP flow, in both directions: SYN-ACK, ACK, PSH-ACK, FIN-ACK, RST-ACK, RST."""
NO_FLOW = frozenset({"invalid", "untracked"})
"""States of packets that conntrack has no entry for."""
_BY_CHANCE = frozenset({"random", "limit"})
"""Fields that hold for a part of the packets."""
_OF_FLOW = frozenset({"ctmark", "ctstatus"})
"""Fields that a packet without an entry does not have: a rule with a condition on them never matches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilteredPacket:
    """A forwarded packet as the chains of one hook see it: the first of its flow, unless ``ctstate`` says otherwise."""

    family: Family
    source: str
    destination: str
    iif: str | None
    """None for a packet that the host sends."""
    oif: str | None
    """None when it is not known yet, as before routing."""
    protocol: int | None = None
    """None, as for ports and mark: not given, and a condition on it cannot be evaluated."""
    sport: int | None = None
    dport: int | None = None
    mark: int | None = 0
    ctmark: int | None = 0
    """The mark of its flow: 0 for the first packet."""
    ctstate: str | None = "new"
    """As conntrack says it: ``untracked`` and ``invalid`` packets have no flow; None where it is unknown."""
    icmp_type: int | None = None
    icmp_code: int | None = None
    mac: str | None = None
    """The source MAC address of the frame that it came in; None: not known."""
    ttl: int | None = None
    """The TTL as the hook sees it; None: not given."""
    destination_translated: bool | None = None
    """Whether the flow has destination NAT; None until it is evaluated."""
    source_translated: bool | None = None
    draws: Draws | None = field(default=None, compare=False)
    """What random conditions draw; None: they cannot be evaluated."""
    untracked_by: tuple[FilterChain, FilterRule] | None = field(default=None, compare=False)
    """The rule that keeps conntrack from tracking it."""
    within_limits: bool = True
    """The packet is one of few: it stays within the rate of every limit."""
    mark_unknown_by: tuple[FilterChain, FilterRule] | None = field(default=None, compare=False)
    """The first rule that makes its mark unknown."""
    ttl_set_by: tuple[FilterChain, FilterRule] | None = field(default=None, compare=False)
    """The latest rule that changed its TTL."""

    @property
    def has_flow(self) -> bool | None:
        """Whether conntrack has an entry for the packet; None where that is unknown."""
        return None if self.ctstate is None else self.ctstate not in NO_FLOW

    def to(self, destination: str) -> FilteredPacket:
        """Return the same packet to another address."""
        return replace(self, destination=destination)


def matches(rule: FilterRule, packet: FilteredPacket) -> bool | None:
    """Return whether every condition of a rule holds for a packet; None when that cannot be evaluated."""
    if packet.has_flow is False and any(match.field in _OF_FLOW for match in rule.matches):
        return False
    answers: list[bool | None] = []
    for match in rule.matches:
        if match.field != "random":
            answers.append(_holds(match, packet))
            if answers[-1] is False:
                return False
    answers += [_draw_holds(rule, match, packet) for match in rule.matches if match.field == "random"]
    if False in answers:
        return False
    if rule.verdict in ("drop", "reject") and any(match.field == "limit" for match in rule.matches):
        # A rule that drops up to a rate drops some packets and lets the others pass.
        return None
    return None if None in answers else True


def drops_a_part(rule: FilterRule, packet: FilteredPacket) -> bool:
    """Return whether a rule drops some packets like this one for certain, and lets others pass."""
    by_chance = {match.field for match in rule.matches} & _BY_CHANCE
    others = (match for match in rule.matches if match.field not in _BY_CHANCE)
    return rule.verdict in ("drop", "reject") and bool(by_chance) and all(_holds(match, packet) for match in others)


def forwarded(packet: FilteredPacket, oif: str | None) -> FilteredPacket:
    """Return a routed packet as the forward hook sees it: the host has counted its TTL down."""
    return replace(packet, oif=oif, ttl=None if packet.ttl is None else packet.ttl - 1)


def expires(packet: FilteredPacket) -> bool:
    """Return whether the host drops a packet instead of forwarding it, because its TTL ends here (RFC 1812, 5.3.1)."""
    return packet.ttl is not None and packet.ttl <= 1


def drawn_change(rule: FilterRule, change: str, packet: FilteredPacket) -> str:
    """Return the change of a mark that a rule makes in the outcome at hand; as it is where nothing is drawn."""
    changes, draws = drawn_changes(change), packet.draws
    if not changes or draws is None:
        return change
    if len(changes) > MOST_DRAWN:
        # No reader of rules holds that many: it is a bundle of a stranger.
        return UNKNOWN
    for number, candidate in enumerate(changes[:-1]):
        if draws.is_drawn((*_draw(rule, packet), change), frozenset({number}), len(changes), rule.text):
            return candidate
    return changes[-1]


def _draw(rule: FilterRule, packet: FilteredPacket) -> tuple[object, ...]:
    """Return what is the same for all alternatives of one verdict map, which draw once for a packet."""
    return (packet.ctstate, id(rule)) if rule.handle is None else (packet.ctstate, rule.handle, rule.text)


def _draw_holds(rule: FilterRule, match: FilterMatch, packet: FilteredPacket) -> bool | None:
    draws = packet.draws
    if draws is None:
        return None
    ranges = [value.partition("/")[0].partition("-") for value in match.values]
    modulus = int(match.values[0].partition("/")[2])
    if modulus > MOST_NUMBERS:
        return None
    drawn = (range(int(first), min(int(last or first), modulus - 1) + 1) for first, _, last in ranges)
    numbers = frozenset(number for part in drawn for number in part)
    return draws.is_drawn(_draw(rule, packet), numbers, modulus, rule.text) != match.negated


def _holds(match: FilterMatch, packet: FilteredPacket) -> bool | None:
    if match.field in ("source", "destination"):
        return (
            _is_within(packet.source if match.field == "source" else packet.destination, match.values) != match.negated
        )
    answer = _any(_value_holds(match.field, value, packet) for value in match.values)
    return answer if answer is None else answer != match.negated


def _is_within(text: str, networks: tuple[str, ...]) -> bool:
    """Return whether an address is in one of many networks: a set may hold 100,000."""
    version, address = address_number(text)
    first, last = _blocks(networks)[version]
    place = bisect_right(first, address) - 1
    return place >= 0 and address <= last[place]


@lru_cache(maxsize=1024)
def address_number(address: str) -> tuple[int, int]:
    """Return the IP version of an address, and the address as a number."""
    parsed = ip_address(address)
    return parsed.version, int(parsed)


@lru_cache(maxsize=1 << 17)
def _blocks(networks: tuple[str, ...]) -> dict[int, tuple[list[int], list[int]]]:
    """Return the first addresses of networks, in order, and the last address of all up to each; by IP version."""
    blocks: dict[int, tuple[list[int], list[int]]] = {4: ([], []), 6: ([], [])}
    bounds = {(n.version, int(n.network_address), int(n.broadcast_address)) for n in map(ip_network, networks)}
    for version, low, high in sorted(bounds):
        first, last = blocks[version]
        first.append(low)
        last.append(max(high, last[-1]) if last else high)
    return blocks


def _element_holds(element: str, packet: FilteredPacket) -> bool | None:
    """Return whether all conditions of an element of a set hold."""
    answers = []
    for part in element.split():
        field_, _, value = part.removeprefix("!").partition("=")
        answer = _value_holds(field_, value, packet)
        answers.append(answer if answer is None else answer != part.startswith("!"))
    return False if False in answers else None if None in answers else True


def _any(answers: Iterable[bool | None]) -> bool | None:
    listed = list(answers)
    if True in listed:
        return True
    return None if None in listed else False


def _value_holds(field: str, value: str, packet: FilteredPacket) -> bool | None:
    if field == "set":
        return _element_holds(value, packet)
    if field in ("source", "destination"):
        return _is_within(packet.source if field == "source" else packet.destination, (value,))
    if field == "iif":
        return packet.iif is not None and _is_named(packet.iif, value)
    if field == "oif":
        return None if packet.oif is None else _is_named(packet.oif, value)
    if field == "protocol":
        return None if packet.protocol is None else packet.protocol == int(value)
    if field in ("sport", "dport"):
        return _port_holds(packet.protocol, packet.sport if field == "sport" else packet.dport, value)
    if field in PORTS_OF_ANY_PROTOCOL:
        # In a protocol without ports the same octets are something else, such as a checksum.
        if packet.protocol not in NUMBERS_WITH_PORTS:
            return None
        return _value_holds(PORTS_OF_ANY_PROTOCOL[field], value, packet)
    if field in ("mark", "ctmark"):
        number, mask = value_and_mask(value)
        mark = packet.mark if field == "mark" else packet.ctmark
        return None if mark is None else mark & mask == number
    if field == "ctstate":
        if value in ("snat", "dnat"):
            return _status_holds(value, packet)
        return None if packet.ctstate is None else packet.ctstate == value
    if field == "ctstatus":
        return _status_holds(value, packet)
    if field in ("icmp-type", "icmp-code"):
        return _icmp_holds(packet.protocol, packet.icmp_type if field == "icmp-type" else packet.icmp_code, value)
    if field == "mac":
        return None if packet.mac is None else packet.mac == value
    if field == "ttl":
        first, _, last = value.partition("-")
        return None if packet.ttl is None else int(first) <= packet.ttl <= int(last or first)
    if field == "limit":
        return (value == "within") == packet.within_limits
    if field == "tcp-flags":
        return _tcp_flags_hold(value, packet)
    if field == "pkttype":
        # The kernel forwards no other frame than one sent to the host (net/ipv4/ip_forward.c).
        return value == "unicast"
    if field == "owner":
        return None if packet.iif is None else False
    if field == "dst-type":
        return _destination_type(packet) == value
    if field == "src-type":
        return value == ("local" if packet.iif is None else "unicast")
    return None


def _status_holds(status: str, packet: FilteredPacket) -> bool | None:
    """Return whether conntrack has set a status bit of the packet's flow when the packet is forwarded."""
    if packet.ctstate not in ("new", "established"):
        return False if packet.has_flow is False else None
    is_answered = packet.ctstate == "established"
    if status == "dnat":
        return packet.destination_translated
    if status == "snat":
        # The first packet is forwarded before source NAT.
        return packet.source_translated if is_answered else False
    if status == "assured":
        return None if is_answered else False
    return {"seen-reply": is_answered, "confirmed": is_answered, "expected": False, "dying": False}.get(status)


def _icmp_holds(protocol: int | None, number: int | None, value: str) -> bool | None:
    if protocol is not None and protocol not in _ICMP:
        return False
    return None if number is None else number == int(value)


def _tcp_flags_hold(value: str, packet: FilteredPacket) -> bool | None:
    """Return whether the flags of a TCP header have a value; None where some packets of the flow have it."""
    if packet.protocol is None:
        return None
    if packet.protocol != IPPROTO_TCP:
        return False
    wanted, mask = value_and_mask(value)
    possible = {None: (_SYN, *_AFTER_SYN), "new": (_SYN,)}.get(packet.ctstate, _AFTER_SYN)
    if packet.ctstate in NO_FLOW:
        possible = (_SYN, *_AFTER_SYN)
    return _same(flags & mask == wanted for flags in possible)


def _same(answers: Iterable[bool]) -> bool | None:
    """Return the answer that all of them are; None where they differ."""
    distinct = set(answers)
    return distinct.pop() if len(distinct) == 1 else None


def _is_named(interface: str, value: str) -> bool:
    return interface.startswith(value[:-1]) if value.endswith("*") else interface == value


def _port_holds(protocol: int | None, port: int | None, value: str) -> bool | None:
    if protocol is not None and protocol not in NUMBERS_WITH_PORTS:
        return False
    if port is None:
        return None
    first, _, last = value.partition("-")
    return int(first) <= port <= int(last or first)


def _destination_type(packet: FilteredPacket) -> str:
    """Return the type of the route to the destination of a forwarded packet, which is never the host itself."""
    if ip_address(packet.destination).is_multicast:
        return "multicast"
    return "broadcast" if packet.destination == "255.255.255.255" else "unicast"
