"""Traffic classes: a finite partition of the agent's packets by every selector on their paths.

The destinations that any rule, route or packet filter condition distinguishes are its prefixes. One address of a prefix
that lies in no longer prefix stands for all such addresses: packets to them meet the same selectors. The same holds for
protocols and ports (atomic predicates: Yang and Lam, ICNP 2013). The partition comes from the models alone and needs no
packet; one probe of a class is a witness for the whole class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv4Network
from socket import IPPROTO_ICMP

from viacheck.analysis.class_selectors import (
    PROTOCOL_NAMES,
    WITH_PORTS,
    Selector,
    disjoint,
    icmp_type_of,
    port_of,
    port_selector,
    selectors_of_chain,
    values_of,
)
from viacheck.analysis.packet_filter.icmp import ECHO_REQUEST, REQUEST_NAMES
from viacheck.analysis.paths import PathTracer
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.routing.route_groups import RouteGroup, route_groups
from viacheck.analysis.routing.table import BITS, mask, read_address, read_prefix
from viacheck.analysis.traced_path import Path, PathEnd, Traffic
from viacheck.model.filter_chains import FilterChain
from viacheck.model.intent import EgressException
from viacheck.model.namespace_state import NetworkState
from viacheck.model.path import IntendedEgress, PathClass, PathEvidence

EVERYTHING = IPv4Network("0.0.0.0/0")
PREFIXES_OF_ONE_END = 16
"""Prefixes that are traced of those routes of one table that lead the same way: all of them end alike."""
MOST_PREFIXES, MOST_SELECTORS = 256, 48
MOST_CLASSES, LEAST_PREFIXES = 1536, 32
"""Prefixes and selectors that are traced: a host with more of them is judged by the widest, and the rest is counted.

Each class costs 2 ms of CPU time where the host has 3,000 rules, so many selectors leave fewer prefixes.
"""
CLASSES_NAMED = 4
LOCAL_TYPES = frozenset({"local", "broadcast", "multicast", "anycast"})
MAX_ADDRESS = 0xFFFFFFFF
EXAMPLE = IPv4Address("192.0.2.1")
"""An address for documentation (RFC 5737), preferred as the representative of a prefix that holds it."""
NEVER_SENT = tuple(
    IPv4Network(prefix) for prefix in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)
"""Destinations that no packet of an agent has beyond its own link."""


class ClassVerdict(StrEnum):
    """How a traffic class's egress relates to the intended one."""

    INTENDED = "intended"
    LOCAL = "local"
    """To the host, its own networks or its containers."""
    ALLOWED = "allowed"
    """Leaves by the uplink that the intent names for it (egress.except)."""
    ELSEWHERE = "elsewhere"
    DEPENDS = "depends-on-the-flow"
    BLOCKED = "blocked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficClass:
    """Packets that the host treats alike, by the path of one of them."""

    prefix: IPv4Network
    selector: Selector
    traffic: Traffic
    """The packet that stands for the class."""
    path: Path
    verdict: ClassVerdict
    intended: str
    """The uplink by which the intent wants the class to leave."""

    @property
    def text(self) -> str:
        """The class as a person says it: ``tcp to port 443``, ``tcp to 203.0.113.0/24 port 443``."""
        name = PROTOCOL_NAMES.get(self.selector.protocol or -1, f"protocol {self.selector.protocol}")
        kind = self.selector.icmp_type
        protocol = "packets" if self.selector.protocol is None else f"{name}{f' {REQUEST_NAMES[kind]}' if kind else ''}"
        to = "" if self.prefix == EVERYTHING else f" {self.prefix}"
        name_of_ports = "ports" if len(self.selector.ports) > 1 else "port"
        port = f" {name_of_ports} {self.selector.ports_text}" if self.selector.ports else ""
        return f"{protocol} to{to or ('' if port else ' any destination')}{port}"

    @property
    def evidence(self) -> PathEvidence:
        """The path of the class as evidence."""
        out = list(self.path.out)
        departs = next((number for number, hop in enumerate(out) if hop.place == "wire"), len(out) - 1)
        if self.verdict in (ClassVerdict.ELSEWHERE, ClassVerdict.DEPENDS):
            routes = [number for number, hop in enumerate(out) if hop.stage == "route" and hop.place == "host"]
            departs = routes[-1] if routes else departs
        return PathEvidence(
            traffic_class=self.as_path_class,
            intended=IntendedEgress(uplink=self.intended),
            out=out,
            answer=list(self.path.answer),
            departs_at=departs if self.verdict not in (ClassVerdict.INTENDED, ClassVerdict.ALLOWED) else None,
            answer_departs_at=len(self.path.answer) - 1 if self.path.answer_returns is False else None,
        )

    @property
    def as_path_class(self) -> PathClass:
        """The selector as result.json has it."""
        protocol = self.selector.protocol
        return PathClass(
            to=str(self.prefix),
            protocol=None if protocol is None else PROTOCOL_NAMES.get(protocol, str(protocol)),
            ports=self.selector.ports_text,
            icmp_type=self.selector.icmp_type,
            source=self.traffic.source,
        )


@dataclass
class ClassPartition:
    """The classes of one host's agent, IPv4."""

    resolved: ResolvedIntent

    @cached_property
    def tracer(self) -> PathTracer:
        """The tracer over the host. Where a class leaves does not depend on its answers."""
        return PathTracer(self.resolved, answers=False)

    @cached_property
    def left_out(self) -> str | None:
        """What a very large host has too much of to be traced; None when every class is traced."""
        prefixes, selectors = len(self._all_prefixes), len(self._all_selectors)
        if prefixes <= self._most_prefixes and selectors <= MOST_SELECTORS:
            return None
        traced = f"{min(prefixes, self._most_prefixes)} and {min(selectors, MOST_SELECTORS)} are traced"
        return f"of {prefixes} prefixes and {selectors} selectors the widest {traced}"

    @property
    def _most_prefixes(self) -> int:
        """How many prefixes are traced, with each of the selectors."""
        selectors = max(min(len(self._all_selectors), MOST_SELECTORS), 1)
        return min(MOST_PREFIXES, max(LEAST_PREFIXES, MOST_CLASSES // selectors))

    @cached_property
    def classes(self) -> tuple[TrafficClass, ...]:
        """All classes, the widest prefixes first."""
        return tuple(self._classes())

    def astray(self) -> tuple[TrafficClass, ...]:
        """Return the classes that do not leave as intended, each only where a wider class does not say it already."""
        astray: list[TrafficClass] = []
        for traffic_class in self.classes:
            if traffic_class.verdict not in (ClassVerdict.ELSEWHERE, ClassVerdict.DEPENDS):
                continue
            if not any(_covers(wider, traffic_class) for wider in astray):
                astray.append(traffic_class)
        return tuple(astray)

    @property
    def astray_text(self) -> str:
        """Where the classes leave that do not leave as intended, those that one rule or route decides together."""
        by_reason: dict[str, list[TrafficClass]] = {}
        for traffic_class in self.astray():
            by_reason.setdefault(traffic_class.path.reason, []).append(traffic_class)
        return "; ".join(
            f"{classes_text(classes, CLASSES_NAMED)}: "
            f"{classes[0].path.egress_text}{_dependence_text(classes[0].path)} ({reason})"
            for reason, classes in by_reason.items()
        )

    @property
    def unknown(self) -> tuple[TrafficClass, ...]:
        """The classes whose path the model cannot evaluate."""
        return tuple(traffic_class for traffic_class in self.classes if traffic_class.verdict is ClassVerdict.UNKNOWN)

    @property
    def target_is_astray(self) -> bool:
        """Whether a class that holds the probe target's own packets does not leave as intended."""
        return any(
            traffic_class.verdict in (ClassVerdict.ELSEWHERE, ClassVerdict.DEPENDS)
            for traffic_class in self._classes_of_target()
        )

    @property
    def target_leaves_as_intended(self) -> bool | None:
        """Whether all classes that hold the probe target's own packets leave as intended; None where that is unknown.

        It is unknown of a packet that a filter may drop which the model cannot evaluate, or cannot read without root.
        """
        of_target = self._classes_of_target()
        astray = ClassVerdict.ELSEWHERE, ClassVerdict.DEPENDS, ClassVerdict.BLOCKED
        if any(traffic_class.verdict in astray for traffic_class in of_target):
            return False
        proven = of_target and all(
            traffic_class.verdict in (ClassVerdict.INTENDED, ClassVerdict.ALLOWED)
            and traffic_class.path.end is PathEnd.LEAVES
            for traffic_class in of_target
        )
        return True if proven else None

    def _classes_of_target(self) -> list[TrafficClass]:
        """Return the classes that hold the probe target's own packets."""
        protocols = {PROTOCOL_NUMBERS[protocol] for protocol in self.resolved.intent.probe.protocols}
        return [
            traffic_class
            for traffic_class in self.classes
            if traffic_class.selector.protocol in protocols
            and self._holds_probe(traffic_class.selector)
            and traffic_class.traffic.destination == self.resolved.target
        ]

    def _holds_probe(self, selector: Selector) -> bool:
        """Whether the probes' own destination port or type of ICMP is among those of a selector."""
        port = self.resolved.intent.probe.port
        if selector.protocol == IPPROTO_ICMP:
            return icmp_type_of(selector, self._all_selectors) == ECHO_REQUEST
        if selector.protocol not in WITH_PORTS or selector.ports:
            return selector.protocol not in WITH_PORTS or port in selector.ports
        return not any(port in other.ports for other in self._all_selectors if other.protocol == selector.protocol)

    @cached_property
    def _states(self) -> tuple[NetworkState, ...]:
        """The namespaces on the agent's paths."""
        agent = self.resolved.snapshot.agent
        return (self.resolved.snapshot.host, *([agent] if agent is not None else []))

    def _classes(self) -> Iterator[TrafficClass]:
        prefixes = map(str, (*self._all_prefixes, *NEVER_SENT))
        space = PrefixSpace(prefixes, self._route_groups)
        every = self._all_selectors
        selectors = [
            (selector, port_of(selector, every), icmp_type_of(selector, every)) for selector in every[:MOST_SELECTORS]
        ]
        for prefix in self._all_prefixes[: self._most_prefixes]:
            address = space.representative(prefix)
            if address is None or any(address in never for never in NEVER_SENT):
                continue
            for selector, port, icmp_type in selectors:
                traffic = Traffic(destination=str(address), protocol=selector.protocol, dport=port, icmp_type=icmp_type)
                path = self.tracer.trace(traffic)
                exception = self._exception(address, selector)
                intended = self.resolved.uplink if exception is None else exception.uplink
                verdict = self._verdict(address, path, intended)
                if verdict is ClassVerdict.INTENDED and exception is not None:
                    verdict = ClassVerdict.ALLOWED
                yield TrafficClass(
                    prefix=prefix, selector=selector, traffic=traffic, path=path, verdict=verdict, intended=intended
                )

    def _exception(self, address: IPv4Address, selector: Selector) -> EgressException | None:
        """Return the exception of the intent that covers a class; the first one counts."""
        for exception in self.resolved.intent.egress.except_:
            if exception.to is not None and address not in exception.to:
                continue
            if exception.protocol is not None and PROTOCOL_NUMBERS[exception.protocol] != selector.protocol:
                continue
            if exception.ports is None or (selector.protocol in WITH_PORTS and selector.dport in exception.ports):
                return exception
        return None

    def _verdict(self, address: IPv4Address, path: Path, intended: str) -> ClassVerdict:
        if path.end is PathEnd.UNKNOWN and not path.egress:
            return ClassVerdict.UNKNOWN
        if path.end is PathEnd.LOCAL or self._is_local(address):
            return ClassVerdict.LOCAL
        # A filter that cannot be evaluated may drop the packets; it does not send them elsewhere.
        if path.end in (PathEnd.LEAVES, PathEnd.UNKNOWN) and path.all_egress == {intended} and not path.later_dropped:
            return ClassVerdict.INTENDED
        if path.depends_on_flow:
            return ClassVerdict.DEPENDS
        return (
            ClassVerdict.ELSEWHERE
            if path.end in (PathEnd.LEAVES, PathEnd.UNKNOWN, PathEnd.TUNNEL)
            else ClassVerdict.BLOCKED
        )

    def _is_local(self, address: IPv4Address) -> bool:
        """Whether an address lies in a network that the host or the agent is attached to."""
        return any(address in network for network in self._local_networks)

    @cached_property
    def _local_networks(self) -> tuple[IPv4Network, ...]:
        return tuple(
            IPv4Network(str(address.network))
            for state in self._states
            for address in state.addresses
            if address.family == 4 and address.prefixlen > 0
        )

    @cached_property
    def _route_groups(self) -> tuple[RouteGroup, ...]:
        """The routes that the agent's packets may meet, in groups that end alike."""
        source = self.resolved.agent_source
        return tuple(group for state in self._states for group in _groups_met(state, source))

    @cached_property
    def _all_prefixes(self) -> tuple[IPv4Network, ...]:
        """Every destination prefix that a rule, a route or a filter condition distinguishes, the widest first."""
        prefixes = {EVERYTHING, IPv4Network(f"{self.resolved.target}/32")}
        for state in self._states:
            wanted = (rule.destination for rule in state.rules_of(4))
            prefixes.update(IPv4Network(destination, strict=False) for destination in wanted if destination)
            prefixes.update(_prefixes_of_filter(state.packet_filter.chains))
        for group in self._route_groups:
            prefixes.update(IPv4Network(route.destination) for route in group.widest(PREFIXES_OF_ONE_END))
        prefixes.update(exception.to for exception in self.resolved.intent.egress.except_ if exception.to is not None)
        return tuple(sorted(prefixes, key=lambda prefix: (prefix.prefixlen, int(prefix.network_address))))

    @cached_property
    def _all_selectors(self) -> tuple[Selector, ...]:
        """The protocols and ports that any selector on the path distinguishes, those for the rest first."""
        selectors = {Selector(protocol=protocol) for protocol in (1, 6, 17)}
        for state in self._states:
            for rule in state.rules_of(4):
                protocols = [rule.ipproto] if rule.ipproto else [6, 17] if rule.dport or rule.sport else []
                ports = (rule.dport.first, rule.dport.last) if rule.dport else (None, None)
                selectors.update(port_selector(number, *ports) for number in protocols)
            for chain in state.packet_filter.chains:
                selectors.update(selectors_of_chain(chain))
        for exception in self.resolved.intent.egress.except_:
            numbers = [PROTOCOL_NUMBERS[exception.protocol]] if exception.protocol else [6, 17]
            selectors.update(port_selector(number, port, port) for number in numbers for port in exception.ports or ())
        order = sorted(
            disjoint(selectors),
            key=lambda selector: (
                selector.dport is not None,
                selector.protocol or 0,
                selector.dport or 0,
                selector.icmp_type or 0,
            ),
        )
        return tuple(order)


class PrefixSpace:
    """Many prefixes, to find an address of one of them that lies in no longer prefix."""

    def __init__(self, prefixes: Iterable[str], groups: Iterable[RouteGroup] = ()) -> None:
        """Sort the prefixes, in CIDR form, and the destinations of groups of routes by their length."""
        own: dict[int, set[int]] = {}
        for prefix in prefixes:
            first, length = read_prefix(prefix, 4)
            own.setdefault(length, set()).add(first)
        self._by_length: dict[int, list[set[int]]] = {}
        for by_length in (own, *(group.by_length for group in groups)):
            for length, addresses in by_length.items():
                self._by_length.setdefault(length, []).append(addresses)
        self._lengths = sorted(self._by_length)

    def representative(self, prefix: IPv4Network) -> IPv4Address | None:
        """Return an address of a prefix that lies in no longer prefix; None when longer prefixes cover it."""
        longer = [length for length in self._lengths if length > prefix.prefixlen]
        example = int(EXAMPLE)
        if EXAMPLE in prefix and self._covering(example, longer) is None:
            return EXAMPLE
        first, last = int(prefix.network_address), int(prefix.broadcast_address)
        candidate = first + (1 if prefix.prefixlen < 31 else 0)
        while candidate <= last:
            length = self._covering(candidate, longer)
            if length is None:
                return IPv4Address(candidate)
            # Behind the widest of the longer prefixes that hold the candidate.
            candidate = (candidate | MAX_ADDRESS >> length) + 1
        return None

    def _covering(self, address: int, lengths: Iterable[int]) -> int | None:
        """Return the first of these lengths of which a prefix holds an address."""
        for length in lengths:
            prefix = address & mask(length, BITS[4])
            if any(prefix in addresses for addresses in self._by_length[length]):
                return length
        return None


@lru_cache(maxsize=4)
def class_partition(resolved: ResolvedIntent) -> ClassPartition:
    """Return the classes of a host; each failing check asks for them again."""
    return ClassPartition(resolved)


def classes_text(classes: Sequence[TrafficClass], limit: int) -> str:
    """Name traffic classes, those of one prefix together: ``all packets to 203.0.113.0/24, tcp to port 443``."""
    protocols: dict[tuple[str, str | int | None], list[TrafficClass]] = {}
    for traffic_class in classes:
        key = (str(traffic_class.prefix), traffic_class.selector.ports_text or traffic_class.selector.icmp_type)
        protocols.setdefault(key, []).append(traffic_class)
    names: list[str] = []
    for (prefix, dport), same in protocols.items():
        if dport is None and {traffic_class.selector.protocol for traffic_class in same} >= {1, 6, 17}:
            names.append("all packets" if prefix == str(EVERYTHING) else f"all packets to {prefix}")
        else:
            names += [traffic_class.text for traffic_class in same]
    more = f" and {len(names) - limit} more classes" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _dependence_text(path: Path) -> str:
    return f", depending on the {'packet' if path.depends_on_packet else 'flow'}" if path.depends_on_flow else ""


def _covers(wider: TrafficClass, narrower: TrafficClass) -> bool:
    """Whether a class that is reported already says the same of a narrower one."""
    selectors = wider.selector == narrower.selector
    if wider.selector == Selector(protocol=narrower.selector.protocol):
        # All other ports of a protocol: these ports are worth a word where something else decides for them.
        selectors = selectors or (wider.path.reason, wider.intended) == (narrower.path.reason, narrower.intended)
    same_end = (wider.verdict, wider.path.all_egress) == (narrower.verdict, narrower.path.all_egress)
    return selectors and same_end and narrower.prefix.subnet_of(wider.prefix)


def _groups_met(state: NetworkState, source: str | None) -> Iterator[RouteGroup]:
    """Yield the groups of routes that the agent's packets may meet."""
    address = None if source is None else read_address(source, 4)
    tables = {
        rule.table
        for rule in state.rules_of(4)
        if rule.source is None or address is None or _in_prefix(address, rule.source)
    }
    for group in route_groups(state.routes):
        if group.table in tables and group.type not in LOCAL_TYPES:
            yield group


def _in_prefix(address: int, prefix: str) -> bool:
    first, length = read_prefix(prefix, 4)
    return not (address ^ first) & mask(length, BITS[4])


def _prefixes_of_filter(chains: Iterable[FilterChain]) -> Iterator[IPv4Network]:
    for chain in chains:
        if chain.family not in ("ip", "inet"):
            continue
        for rule in chain.rules:
            for match in rule.matches:
                for value in values_of(match, "destination"):
                    if ":" not in value:
                        yield _network(value)


@lru_cache(maxsize=1 << 17)
def _network(prefix: str) -> IPv4Network:
    address, length = read_prefix(prefix, 4)
    return IPv4Network((address & mask(length, BITS[4]), length))
