"""The networks that are local to the host, and the way of the agent's packets to them by the routing model."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.packet_filter.conditions import forwarded
from viacheck.analysis.packet_filter.evaluate import Passage, forwarding, possible_drops
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.routing.packet import Packet


def local_addresses(resolved: ResolvedIntent) -> dict[str, str]:
    """Return an address of each network that is local to the host, by interface: its own on the bridge comes first."""
    addresses = {
        name: str(uplink.gateway) for name, uplink in resolved.intent.uplinks.items() if uplink.gateway is not None
    }
    if resolved.bridge is not None and (own := resolved.snapshot.host.addresses_of(resolved.bridge)):
        addresses = {resolved.bridge: own[0].address, **addresses}
    return addresses


def led_away(resolved: ResolvedIntent) -> Iterator[str]:
    """Yield the local networks to which a rule or route sends the agent's packets, or the host's replies, elsewhere."""
    if resolved.agent_source is None:
        return
    for name, address in local_addresses(resolved).items():
        packet = resolved.agent_packet("icmp", destination=address)
        if name == resolved.bridge:
            packet = Packet(source=address, destination=resolved.agent_source, protocol=packet.protocol)
        decision = resolved.model.decide(packet)
        if decision.certain and decision.interfaces != {name}:
            yield name


def drops_of_own(resolved: ResolvedIntent) -> list[Passage]:
    """Return the rules and policies of the host's input hook that drop, or may drop, pings to its bridge's address."""
    own = local_addresses(resolved).get(resolved.bridge or "")
    if own is None:
        return []
    probe = resolved.arriving_probe("icmp").to(own)
    return possible_drops(resolved.snapshot.host.packet_filter, probe, "input")[0]


def drops_to_uplinks(resolved: ResolvedIntent) -> list[Passage]:
    """Return what the forward hook does to the agent's pings to the uplinks' gateways, where it drops them."""
    filters, ping = resolved.snapshot.host.packet_filter, resolved.routed_probe("icmp")
    passages = (
        forwarding(filters, forwarded(ping.to(str(uplink.gateway)), name))
        for name, uplink in resolved.intent.uplinks.items()
        if uplink.gateway is not None
    )
    return [passage for passage in passages if passage.drops]
