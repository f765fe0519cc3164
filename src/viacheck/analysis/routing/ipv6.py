"""The routing decision for IPv6, for packets that the host sends and for packets that arrive.

Follows ip6_route_output_flags, ip6_route_input_lookup and ip6_pol_route (net/ipv6/route.c). Whether the host
forwards IPv6 packets at all is decided elsewhere in the kernel, and not here.
"""

from __future__ import annotations

from ipaddress import IPv6Address

from viacheck.analysis.routing.decision import Decision, Exit
from viacheck.analysis.routing.packet import LOOPBACK, LookupKey, Packet
from viacheck.analysis.routing.source_address import SourceSelection
from viacheck.analysis.routing.state import FamilyRouting, outcome_of
from viacheck.model.address_family import Family
from viacheck.model.namespace_state import NetworkState
from viacheck.model.route import Nexthop


class IPv6Routing(FamilyRouting):
    """The IPv6 routing of one namespace."""

    family: Family = 6

    def __init__(self, state: NetworkState, sources: SourceSelection) -> None:
        """Hold a state, which must not change afterwards."""
        super().__init__(state, sources)
        self._failed = {
            (neighbour.interface, neighbour.address) for neighbour in state.neighbours if neighbour.state == "FAILED"
        }

    def ignores_linkdown(self, interface: str) -> bool:
        """Return the sysctl of the interface: writing the sysctl of all interfaces writes each of them."""
        return bool(self.sysctl(f"net/ipv6/conf/{interface}/ignore_routes_with_linkdown"))

    def decide(self, packet: Packet, key: LookupKey) -> Decision:
        """Decide the route of one packet."""
        near = _needs_interface(key.destination)
        device = key.oif if key.local else key.iif
        only_device = near or (key.local and key.oif is not None and key.source is None)
        router = self.sysctl("net/ipv6/conf/all/forwarding")
        lookup = self.rules.ask(
            key,
            lambda number: self.table(number).search_ipv6(
                key, self.alive, device=device, only_device=only_device, reachable=None if router else self._reachable
            ),
        )
        hit = lookup.hit
        if hit is None or hit.rejects:
            return self.decision(packet, lookup)
        # The kernel's own anycast addresses of a router are delivered like local addresses; configured ones are not.
        here = hit.route.type == "local" or (hit.route.type == "anycast" and hit.route.protocol == "kernel")
        exits = tuple(
            Exit(
                interface=LOOPBACK if here else hop.interface or LOOPBACK,
                gateway=hop.gateway,
                source=packet.source
                or hit.route.source
                or self.sources.ipv6(hop.interface or LOOPBACK, key.destination),
                route=hit.route,
            )
            for hop in hit.nexthops
        )
        return self.decision(packet, lookup, outcome_of(hit.route), exits)

    def _reachable(self, hop: Nexthop) -> bool:
        return (hop.interface, hop.gateway) not in self._failed


def _needs_interface(destination: int) -> bool:
    """IPv6: only routes of the named interface count (rt6_need_strict)."""
    address = IPv6Address(destination)
    return address.is_multicast or address.is_link_local or address.is_loopback
