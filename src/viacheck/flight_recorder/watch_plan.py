"""What is watched of a host: the classes of the agent's traffic, where each must go, what marks the agent's packets.

The plan is made of a snapshot. It is made again when the agent comes back, or when an interface appears that could lead
out of the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal

from viacheck.analysis.class_selectors import PROTOCOL_NAMES
from viacheck.analysis.classes import EVERYTHING, ClassVerdict, TrafficClass, class_partition
from viacheck.analysis.packet_filter.icmp import ECHO_REQUEST
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.routing.packet import Packet
from viacheck.model.intent import TransportProtocol
from viacheck.model.namespace_state import Link
from viacheck.packets.passive_count import MOST_DESTINATIONS, NEVER_ELSEWHERE, ExpectedTraffic, Sender

Place = Literal["host", "agent"]
MOST_CLASSES = 16
"""Classes of traffic that are watched, so that a round of probes stays small; the widest are taken first."""
_WATCHED = frozenset({ClassVerdict.INTENDED, ClassVerdict.ALLOWED, ClassVerdict.ELSEWHERE, ClassVerdict.DEPENDS})


@dataclass(frozen=True, slots=True)
class RoutingStage:
    """One routing decision on the way of a class: in the agent's namespace, then on the host."""

    place: Place
    packet: Packet
    interface: str
    """The interface by which the packet must go on."""


@dataclass(frozen=True, slots=True)
class WatchedClass:
    """One class of the agent's traffic."""

    number: int
    text: str
    protocol: TransportProtocol
    destination: str
    port: int | None
    uplink: str
    """The uplink by which the intent wants it to leave."""
    stages: tuple[RoutingStage, ...]


@dataclass(frozen=True, slots=True)
class WatchPlan:
    """What is watched."""

    classes: tuple[WatchedClass, ...]
    remarks: tuple[str, ...]
    """What the watch leaves out, a line for each."""
    uplink: str
    interfaces: tuple[str, ...]
    """Every interface that leads out of the host, the intended uplink first."""
    agent_interface: str | None
    agent_ports: tuple[str, ...]
    """The host's ends of the agent's veth interfaces."""
    senders: dict[str, Sender]
    """What marks the agent's packets, by interface; an interface on which nothing marks them is left out."""
    not_counted: dict[str, str]
    """Why the agent's packets are not counted, by interface."""
    count_remark: str | None
    """What the counts hold beside the agent's own packets."""
    expected: dict[str, tuple[ExpectedTraffic, ...]]
    """By interface, the packets of the agent that may leave by it."""


def watch_plan(resolved: ResolvedIntent) -> WatchPlan:
    """Return the plan for a host in its present state."""
    astray = _known_astray(resolved)
    classes = _classes(resolved, astray)
    others = [name for name in resolved.egress_interfaces if name != resolved.uplink]
    interfaces = (resolved.uplink, *others)
    senders, not_counted = _senders(resolved, interfaces)
    expected = {name: tuple(_expected(resolved, name, astray)) for name in interfaces}
    for name in [name for name in senders if len(expected[name]) > MOST_DESTINATIONS]:
        del senders[name]
        not_counted[name] = f"more than {MOST_DESTINATIONS} kinds of packets may leave by it"
    remarks = [f"{each.text} did not leave as intended when the watch began, and is not watched" for each in astray]
    if len(classes) > MOST_CLASSES:
        remarks.append(f"{len(classes) - MOST_CLASSES} of {len(classes)} classes of traffic are not watched")
    return WatchPlan(
        classes=tuple(classes[:MOST_CLASSES]),
        remarks=tuple(remarks),
        uplink=resolved.uplink,
        interfaces=interfaces,
        agent_interface=resolved.agent_link.name if resolved.agent_link is not None else None,
        agent_ports=resolved.agent_ports,
        senders=senders,
        not_counted=not_counted,
        count_remark=_count_remark(resolved),
        expected=expected,
    )


def _known_astray(resolved: ResolvedIntent) -> list[TrafficClass]:
    """Return the special classes that leave elsewhere already: EGRESS-08 reports them, and they are no change."""
    return [
        traffic_class
        for traffic_class in class_partition(resolved).astray()
        if (traffic_class.prefix != EVERYTHING or traffic_class.selector.ports)
        and traffic_class.traffic.destination != resolved.target
    ]


def _classes(resolved: ResolvedIntent, astray: list[TrafficClass]) -> list[WatchedClass]:
    """Return the classes that leave the host; of those with the same path, the probe target's own, else the widest."""
    alike: dict[tuple[object, ...], TrafficClass] = {}
    for traffic_class in class_partition(resolved).classes:
        if traffic_class.verdict not in _WATCHED or traffic_class.selector.protocol not in PROTOCOL_NUMBERS.values():
            continue
        if any(
            traffic_class.selector == known.selector and traffic_class.prefix.subnet_of(known.prefix)
            for known in astray
        ):
            continue
        path = tuple((hop.place, hop.interface, hop.stage, hop.decides) for hop in traffic_class.path.out)
        key = (traffic_class.selector, traffic_class.intended, path)
        if key not in alike or traffic_class.traffic.destination == resolved.target:
            alike[key] = traffic_class
    return [_watched(resolved, number, traffic_class) for number, traffic_class in enumerate(alike.values())]


def _watched(resolved: ResolvedIntent, number: int, traffic_class: TrafficClass) -> WatchedClass:
    traffic = traffic_class.traffic
    names = {number: name for name, number in PROTOCOL_NUMBERS.items()}
    protocol = names[traffic.protocol or 0]
    destination = traffic.destination
    own = Packet(source=None, destination=destination, protocol=traffic.protocol, dport=traffic.dport)
    stages = []
    if resolved.agent_link is not None and not resolved.shares_host_network:
        stages.append(RoutingStage("agent", own, resolved.agent_link.name))
    if not resolved.bridged or resolved.shares_host_network:
        base = resolved.agent_packet(protocol, destination)
        packet = Packet(
            source=base.source, destination=destination, iif=base.iif, mark=base.mark,
            protocol=traffic.protocol, dport=traffic.dport,
        )  # fmt: skip
        stages.append(RoutingStage("host", packet, traffic_class.intended))
    text = traffic_class.text
    if destination == resolved.target:
        port = f" port {traffic.dport}" if traffic.dport is not None else ""
        text = f"{PROTOCOL_NAMES[traffic.protocol or 0]}, as to {destination}{port}"
    return WatchedClass(number, text, protocol, destination, traffic.dport, traffic_class.intended, tuple(stages))


def _senders(resolved: ResolvedIntent, interfaces: tuple[str, ...]) -> tuple[dict[str, Sender], dict[str, str]]:
    """Return what marks the agent's packets on each interface, and why nothing does on the others."""
    if resolved.shares_host_network:
        reason = "the agent shares the host's network: nothing distinguishes its packets from the host's own"
        return {}, dict.fromkeys(interfaces, reason)
    if resolved.snapshot.carrier is not None:
        reason = (
            f"{resolved.snapshot.carrier} sends the agent's packets: nothing distinguishes them from the host's own"
        )
        return {}, dict.fromkeys(interfaces, reason)
    host = resolved.snapshot.host
    arrived_on = set()
    for name in (resolved.bridge, *resolved.agent_ports):
        link = host.link(name) if name is not None else None
        if link is not None:
            arrived_on.add(link.index)
            master = host.link(link.master) if link.master is not None else None
            arrived_on.update([master.index] if master is not None else [])
    macs: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    if resolved.bridged_link is not None:
        if resolved.bridged_link.kind == "ipvlan":
            addresses = (resolved.agent_address,) if resolved.agent_address is not None else ()
        else:
            macs = (resolved.bridged_link.mac,) if resolved.bridged_link.mac is not None else ()
    senders, not_counted = {}, {}
    for name in interfaces:
        uppers = [host.link(upper) for upper in resolved.layers.above.get(name, ())]
        shared = [upper.name for upper in uppers if upper is not None and upper.kind == "ipvlan"]
        if shared:
            not_counted[name] = f"{', '.join(shared)} on top of it has the same MAC address"
            continue
        # Frames of a VLAN have a tag here, and those of a bridge are counted on the bridge.
        not_macs = [upper.mac for upper in uppers if _is_macvlan(upper) and upper is not None and upper.mac]
        senders[name] = Sender(tuple(sorted(arrived_on)), macs, addresses, tuple(not_macs))
    return senders, not_counted


def _is_macvlan(link: Link | None) -> bool:
    return link is not None and link.kind in ("macvlan", "macvtap")


def _count_remark(resolved: ResolvedIntent) -> str | None:
    """Return what else is counted: packets of other machines on the agent's bridge arrive on it as well."""
    if resolved.bridge is None or resolved.shares_host_network:
        return None
    ports = [link.name for link in resolved.snapshot.host.links if link.master == resolved.bridge]
    others = sorted(set(ports) - set(resolved.agent_ports))
    if not others:
        return None
    return f"the counts hold the packets of every container on {resolved.bridge}: {len(others)} beside the agent"


def _expected(resolved: ResolvedIntent, name: str, astray: list[TrafficClass]) -> Iterator[ExpectedTraffic]:
    """Yield the packets of the agent that may leave by an interface.

    Those are packets to networks on it, those that the intent excepts, and those that left by it from the beginning.
    """
    yield from (ExpectedTraffic(network) for network in NEVER_ELSEWHERE)
    seen: set[IPv4Network | IPv6Network] = set()
    for address in resolved.snapshot.host.addresses:
        network = ip_network(str(address.network))
        if address.interface == name and network.prefixlen > 0 and network not in seen:
            seen.add(network)
            yield ExpectedTraffic(network)
    for exception in resolved.intent.egress.except_:
        if exception.uplink == name:
            to = exception.to if exception.to is not None else IPv4Network("0.0.0.0/0")
            protocol = PROTOCOL_NUMBERS[exception.protocol] if exception.protocol is not None else None
            for ports in _ranges(exception.ports) if exception.ports is not None else (None,):
                yield ExpectedTraffic(to, protocol, ports)
    for traffic_class in astray:
        # Frames are selected by protocol, and not by the type of ICMP: pings are what is watched for.
        is_rare = traffic_class.traffic.message_type not in (None, ECHO_REQUEST)
        if name in traffic_class.path.egress and not is_rare:
            selected = traffic_class.selector.ports
            span = (selected.start, selected.stop - 1) if selected else None
            yield ExpectedTraffic(traffic_class.prefix, traffic_class.selector.protocol, span)


def _ranges(ports: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last port of each run of ports without a gap."""
    first = last = None
    for port in sorted(set(ports)):
        if last is not None and first is not None and port > last + 1:
            yield first, last
            first = port
        first, last = port if first is None else first, port
    if first is not None and last is not None:
        yield first, last
