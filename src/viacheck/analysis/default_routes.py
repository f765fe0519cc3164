"""Default routes: one route to everywhere, or the same in pieces, and gateways that no subnet of an interface holds.

OpenVPN's ``redirect-gateway def1`` adds 0.0.0.0/1 and 128.0.0.0/1 rather than replace the default route. Such pieces
cover every destination together, and are a default.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, collapse_addresses

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.route import Nexthop, Route

LONGEST_PIECE = 4
"""The longest prefix of a piece of a default route: longer prefixes name networks."""
_PIECES = tuple(f"/{length}" for length in range(1, LONGEST_PIECE + 1))
EVERY_DESTINATION = "0.0.0.0/0"
EVERYWHERE = IPv4Network(EVERY_DESTINATION)
MOST_ROUTERS = 3
"""Gateways of one uplink's routes that are asked by ARP at most."""


def default_pieces(routes: Iterable[Route]) -> tuple[Route, ...]:
    """Return the IPv4 routes that together lead to every destination by one interface, without the default itself."""
    by_interface: dict[frozenset[str | None], list[Route]] = {}
    for route in routes:
        if route.destination.endswith(_PIECES) and route.family == 4 and route.type == "unicast":
            by_interface.setdefault(frozenset(hop.interface for hop in route.nexthops), []).append(route)
    return tuple(
        piece
        for pieces in by_interface.values()
        if list(collapse_addresses(IPv4Network(piece.destination) for piece in pieces)) == [EVERYWHERE]
        for piece in pieces
    )


def local_prefixlength(routes: Iterable[Route]) -> int:
    """Return the ``suppress_prefixlength`` of a rule that lets local networks through, and no default of a table."""
    return max((int(piece.destination.rpartition("/")[2]) for piece in default_pieces(routes)), default=0)


def default_route_by(resolved: ResolvedIntent, uplink: str) -> tuple[str, ...] | None:
    """Return the default route by an uplink of the intent, as arguments of ip; None without the gateway that it needs.

    The kernel refuses a gateway outside the subnets of its interface without ``onlink``.
    """
    gateway = resolved.intent.uplinks[uplink].gateway
    if gateway is None:
        return ("default", "dev", uplink) if resolved.is_point_to_point(uplink) else None
    outside = not resolved.on_link(str(gateway), uplink) and not resolved.is_point_to_point(uplink)
    return ("default", "via", str(gateway), "dev", uplink, *(("onlink",) if outside else ()))


def other_routers(resolved: ResolvedIntent, uplink: str) -> tuple[str, ...]:
    """Return the gateways of the host's IPv4 default routes by an uplink, of all tables, but the intent's gateway."""
    intended = str(resolved.intent.uplinks[uplink].gateway)
    routers = [
        hop.gateway
        for route in resolved.snapshot.host.routes
        if route.destination == EVERY_DESTINATION
        for hop in route.nexthops
        if hop.interface == uplink and hop.gateway not in (None, intended)
    ]
    return tuple(dict.fromkeys(router for router in routers if router is not None))[:MOST_ROUTERS]


def reaches_gateway(resolved: ResolvedIntent, nexthop: Nexthop) -> bool:
    """Return whether a nexthop's gateway is a neighbour on its interface.

    It is in a subnet of the interface, the route says ``onlink``, or a route without gateway leads to it. A
    point-to-point link has one neighbour, with or without a gateway in the route.
    """
    gateway, interface = nexthop.gateway, nexthop.interface
    if interface is None:
        return False
    if gateway is None or resolved.is_point_to_point(interface):
        return resolved.is_point_to_point(interface)
    return (
        resolved.on_link(gateway, interface)
        or "onlink" in nexthop.flags
        or any(
            not route.is_default
            and IPv4Network(f"{gateway}/32").subnet_of(IPv4Network(route.destination))
            and any(hop.interface == interface and hop.gateway is None for hop in route.nexthops)
            for route in resolved.snapshot.host.routes
            if ":" not in gateway and route.family == 4 and route.type == "unicast"
        )
    )
