"""Facts about an agent behind NAT that a snapshot alone decides: its bridge, its subnet, forwarding and translation.

The checks of the chapters host and NAT and the causes of their failures both read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from viacheck.analysis.default_routes import default_pieces
from viacheck.analysis.packet_filter.conditions import FilteredPacket, forwarded
from viacheck.analysis.packet_filter.evaluate import (
    Passage,
    Translation,
    after_prerouting,
    forwarding,
    mark_of_flow,
    possible_drops,
    source_nat,
    state_of_answer,
)
from viacheck.analysis.packet_filter.icmp import type_of_answer
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent, subnets_overlap
from viacheck.analysis.routing.table import read_prefix, route_index
from viacheck.analysis.sightings import departures
from viacheck.model.filter_chains import PacketFilter
from viacheck.model.intent import NatAttach, TransportProtocol
from viacheck.model.measurements import TrafficMeasurements
from viacheck.model.routing_names import TABLE_MAIN

MOST_OVERLAPS = 8
"""How many overlapping subnets and routes are named."""


def enslaved_uplinks(resolved: ResolvedIntent) -> list[str]:
    """Return the uplinks that are ports of the agent's bridge."""
    links = (resolved.snapshot.host.link(name) for name in resolved.intent.uplinks)
    return [link.name for link in links if link is not None and link.master == resolved.bridge is not None]


@lru_cache(maxsize=4)
def overlapping_networks(resolved: ResolvedIntent) -> tuple[str, ...]:
    """Return the subnets and routes that the agent's subnet overlaps, described for a person."""
    subnet = resolved.agent_subnet
    if subnet is None or not isinstance(resolved.intent.agent.attach, NatAttach):
        return ()
    state = resolved.snapshot.host
    own = {resolved.bridge}
    overlaps = [
        f"{address.interface}'s subnet {address.network}"
        for address in state.addresses
        if address.family == 4 and address.interface not in own and subnets_overlap(str(subnet), str(address.network))
    ]
    routes = state.table(TABLE_MAIN)
    pieces = default_pieces(routes)
    # Found in the table's index: a large host has 100,000 routes, and nearly all of them are elsewhere.
    table = route_index(state.routes, 4).table(TABLE_MAIN)
    overlapping = set(map(id, table.overlapping(*read_prefix(str(subnet), 4))))
    for route in routes:
        if id(route) not in overlapping or route.is_default or route in pieces:
            continue
        interfaces = {hop.interface for hop in route.nexthops}
        is_connected = any(f"{hop.interface}'s subnet {route.destination}" in overlaps for hop in route.nexthops)
        if not interfaces & own and not is_connected:
            overlaps.append(f"the route {route}")
    more = len(overlaps) - MOST_OVERLAPS
    return tuple(overlaps) if more <= 0 else (*overlaps[:MOST_OVERLAPS], f"{more} more routes")


def forwarding_sysctls_off(resolved: ResolvedIntent) -> list[str]:
    """Return the forwarding sysctls that are off between the agent's bridge and the uplink, as paths."""
    sysctls = resolved.snapshot.host.sysctls
    paths = ["net/ipv4/ip_forward"]
    paths += [f"net/ipv4/conf/{name}/forwarding" for name in (resolved.bridge, resolved.uplink) if name]
    return [path for path in paths if sysctls.get(path) == "0"]


def internal_network(resolved: ResolvedIntent) -> str | None:
    """Return the agent's Docker network if it is internal: Docker isolates it from everything outside the host."""
    attach, engine = resolved.intent.agent.attach, resolved.snapshot.engine
    if not isinstance(attach, NatAttach) or engine is None:
        return None
    network = engine.network(attach.network)
    return network.name if network is not None and network.internal else None


def agent_flow(resolved: ResolvedIntent, uplink: str) -> FilteredPacket:
    """Return the agent's packet as it crosses the host towards an uplink."""
    routed = [resolved.routed_probe(protocol) for protocol in resolved.intent.probe.protocols]
    tracked = next((probe for probe in routed if not probe.has_flow), routed[0])
    return FilteredPacket(
        family=4, source=resolved.agent_source or "0.0.0.0", destination=resolved.target,  # noqa: S104
        iif=resolved.bridge, oif=uplink, mark=resolved.agent_mark, ctstate=tracked.ctstate,
        untracked_by=tracked.untracked_by,
    )  # fmt: skip


class Direction(StrEnum):
    """A direction in which the host forwards the agent's traffic."""

    OUT = "packets"
    """From the agent to the uplink."""
    ANSWER = "answers"
    """From the uplink to the agent."""


@dataclass(frozen=True, slots=True)
class ForwardedProbe:
    """One probe, or its answer, at the forward hook: whether it passes, and the rule that decides."""

    direction: Direction
    protocol: TransportProtocol
    passage: Passage


def forwarded_probes(resolved: ResolvedIntent, packet_filter: PacketFilter | None = None) -> Iterator[ForwardedProbe]:
    """Yield what the forward hook does to a probe of each protocol towards the uplink, then to each answer.

    Args:
        resolved: the intent and the snapshot.
        packet_filter: the packet filter to ask in place of the host's own.
    """
    if packet_filter is None:
        packet_filter = resolved.snapshot.host.packet_filter
    for direction in Direction:
        for protocol in resolved.intent.probe.protocols:
            packet = _probe(resolved, protocol) if direction is Direction.OUT else _answer(resolved, protocol)
            yield ForwardedProbe(direction, protocol, forwarding(packet_filter, packet))


def _probe(resolved: ResolvedIntent, protocol: TransportProtocol) -> FilteredPacket:
    return forwarded(resolved.routed_probe(protocol), resolved.uplink)


def _answer(resolved: ResolvedIntent, protocol: TransportProtocol) -> FilteredPacket:
    filters = resolved.snapshot.host.packet_filter
    return forwarded(after_prerouting(filters, _arriving_answer(resolved, protocol)), resolved.bridge)


def _arriving_answer(resolved: ResolvedIntent, protocol: TransportProtocol) -> FilteredPacket:
    filters, probe = resolved.snapshot.host.packet_filter, _probe(resolved, protocol)
    return FilteredPacket(
        family=4, source=probe.destination, destination=probe.source, iif=resolved.uplink, oif=None,
        protocol=probe.protocol, sport=probe.dport, ctmark=mark_of_flow(filters, probe),
        ctstate=state_of_answer(probe),
        icmp_type=type_of_answer(probe.protocol, probe.icmp_type), icmp_code=probe.icmp_code,
        mac=resolved.snapshot.mac_of(resolved.uplink, resolved.agent_decision(protocol).gateway),
    )  # fmt: skip


def drops_on_the_way(
    resolved: ResolvedIntent,
    direction: Direction,
    protocols: Iterable[TransportProtocol],
    packet_filter: PacketFilter | None = None,
) -> list[tuple[str, Passage]]:
    """Return the rules and policies that may drop the agent's packets, or the answers, of some protocols.

    Each comes with its hook. That they drop them is not certain, so that only packets can show it.

    Args:
        resolved: the intent and the snapshot.
        direction: the packets or their answers.
        protocols: those of the probes.
        packet_filter: the packet filter to ask in place of the host's own.
    """
    filters = packet_filter if packet_filter is not None else resolved.snapshot.host.packet_filter
    drops_found: dict[tuple[str, str, str | None], tuple[str, Passage]] = {}
    for protocol in protocols:
        packet, oif = resolved.arriving_probe(protocol), resolved.uplink or None
        if direction is Direction.ANSWER:
            packet, oif = _arriving_answer(resolved, protocol), resolved.bridge
        for hook in ("prerouting", "forward", "postrouting"):
            if hook == "forward":
                packet = forwarded(packet, oif)
            drops, packet = possible_drops(filters, packet, hook)
            for drop in drops:
                assert drop.chain is not None
                drops_found[drop.chain.table, drop.chain.name, drop.decider] = (hook, drop)
    return list(drops_found.values())


def subnet_is_routed(resolved: ResolvedIntent, traffic: TrafficMeasurements) -> bool:
    """Return whether probes with the agent's own address were answered: the network upstream routes its subnet."""
    if resolved.snapshot.subnet_routed:
        return True
    return not resolved.bridged and any(
        packets.answered
        and any(sighting.source == resolved.agent_source for sighting in departures(packets, resolved.uplink))
        for name, packets in traffic.packets.items()
        if name in PROTOCOL_NUMBERS
    )


def source_translation(resolved: ResolvedIntent) -> Translation:
    """Return what the packet filter does to the source of the agent's packets at the intended uplink."""
    return source_nat(resolved.snapshot.host.packet_filter, agent_flow(resolved, resolved.uplink))
