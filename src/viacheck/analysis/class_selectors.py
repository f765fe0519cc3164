"""What the rules on the agent's paths select packets by, besides addresses: protocol, destination ports, ICMP type."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from socket import IPPROTO_ICMP

from viacheck.analysis.packet_filter.icmp import ECHO_REQUEST, REQUESTS
from viacheck.model.filter_chains import FilterChain, FilterMatch

PROTOCOL_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
WITH_PORTS = frozenset({6, 17})
UNNAMED_PORT = 33434
"""A port that stands for all ports that no selector names."""
LAST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Protocol and destination ports of a class; None stands for all that no other selector names."""

    protocol: int | None = None
    dport: int | None = None
    last_dport: int | None = None
    """The last port of a range that begins with ``dport``; None for one port."""
    icmp_type: int | None = None
    """The type of requests of ICMP; None: all that no other selector names."""

    @property
    def ports(self) -> range:
        """The destination ports; empty for all that no other selector names."""
        return range(0) if self.dport is None else range(self.dport, (self.last_dport or self.dport) + 1)

    @property
    def ports_text(self) -> str | None:
        """The ports as text: ``443``, ``5000-6000``; None for all that no other selector names."""
        last = f"-{self.last_dport}" if self.last_dport is not None else ""
        return None if self.dport is None else f"{self.dport}{last}"


def disjoint(selectors: Iterable[Selector]) -> Iterator[Selector]:
    """Yield selectors of which no two of a protocol share a port, and whose borders are those of the given ones."""
    by_protocol: dict[int | None, set[Selector]] = {}
    for selector in selectors:
        by_protocol.setdefault(selector.protocol, set()).add(selector)
    for protocol, given in by_protocol.items():
        begin_less_end = Counter[int]()
        for ports in (selector.ports for selector in given if selector.ports):
            begin_less_end[ports.start] += 1
            begin_less_end[ports.stop] -= 1
        if any(selector == Selector(protocol=protocol) for selector in given):
            yield Selector(protocol=protocol)
        yield from (selector for selector in given if selector.icmp_type is not None)
        ranges_here = 0
        for first, stop in pairwise(sorted(begin_less_end)):
            ranges_here += begin_less_end[first]
            if ranges_here:
                yield port_selector(protocol, first, stop - 1)


def port_selector(protocol: int | None, first: int | None, last: int | None) -> Selector:
    """Return the selector of a protocol, and of a range of destination ports where there is one."""
    return Selector(protocol=protocol, dport=first, last_dport=last if last != first else None)


def port_of(selector: Selector, selectors: Iterable[Selector]) -> int | None:
    """Return the destination port that stands for one of some selectors; None for a protocol without ports."""
    if selector.protocol not in WITH_PORTS or selector.dport is not None:
        return selector.dport
    # No two of them share a port.
    named = [other.ports for other in selectors if other.protocol == selector.protocol and other.ports]
    named.sort(key=lambda ports: ports.start)
    beginnings = [ports.start for ports in named]

    def is_free(port: int) -> bool:
        before = bisect_right(beginnings, port)
        return port <= LAST_PORT and not (before and port in named[before - 1])

    candidates = (UNNAMED_PORT, *(ports.stop for ports in named), 1)
    return next(filter(is_free, candidates), UNNAMED_PORT)


def icmp_type_of(selector: Selector, selectors: Iterable[Selector]) -> int | None:
    """Return the type of request that stands for one of some selectors; None for another protocol than ICMP."""
    if selector.icmp_type is not None or selector.protocol != IPPROTO_ICMP:
        return selector.icmp_type
    named = {other.icmp_type for other in selectors}
    return next((number for number in REQUESTS[IPPROTO_ICMP] if number not in named), ECHO_REQUEST)


def values_of(match: FilterMatch, field: str) -> Iterator[str]:
    """Yield the values of a field that a condition, or an element of its set, distinguishes."""
    if match.field in (field, f"th-{field}"):
        yield from match.values
    elif match.field == "set":
        for part in {part.removeprefix("!") for element in match.values for part in element.split()}:
            if part.startswith(f"{field}="):
                yield part.partition("=")[2]


def selectors_of_chain(chain: FilterChain) -> Iterator[Selector]:
    """Yield what a chain's rules distinguish by protocol, destination port, and type of a request of ICMP."""
    if chain.family not in ("ip", "inet"):
        return
    for rule in chain.rules:
        types = {int(value) for match in rule.matches for value in values_of(match, "icmp-type")}
        # A flow begins with a request: other types are answers and errors.
        requests = types & REQUESTS[IPPROTO_ICMP].keys()
        yield from (Selector(protocol=IPPROTO_ICMP, icmp_type=number) for number in requests)
        numbers = [int(value) for match in rule.matches for value in values_of(match, "protocol")]
        ports = [value for match in rule.matches for value in values_of(match, "dport")]
        for number in numbers or ([6, 17] if ports else []):
            yield Selector(protocol=number)
            if number in WITH_PORTS:
                for port in ports:
                    first, _, last = port.partition("-")
                    yield port_selector(number, int(first), int(last or first))
