"""Default routes: one route to everywhere, or the same in pieces, and gateways that no subnet of an interface holds.

OpenVPN's ``redirect-gateway def1`` adds 0.0.0.0/1 and 128.0.0.0/1 rather than replace the default route. Such pieces
cover every destination together, and are a default.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, collapse_addresses

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.snapshot import Nexthop, Route

LONGEST_PIECE = 4
"""The longest prefix of a piece of a default route: longer prefixes name networks."""
EVERYWHERE = IPv4Network("0.0.0.0/0")


def default_pieces(routes: Iterable[Route]) -> tuple[Route, ...]:
    """Return the IPv4 routes that together lead to every destination by one interface, without the default itself."""
    by_interface: dict[frozenset[str | None], list[Route]] = {}
    for route in routes:
        if route.family == 4 and route.type == "unicast" and not route.is_default:
            length = int(route.destination.rpartition("/")[2])
            if length <= LONGEST_PIECE:
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


def reaches_gateway(resolved: ResolvedIntent, nexthop: Nexthop) -> bool:
    """Return whether a nexthop's gateway is a neighbour on its interface.

    It is in a subnet of the interface, the route says ``onlink``, or a route without gateway leads to it.
    """
    gateway, interface = nexthop.gateway, nexthop.interface
    if gateway is None or interface is None:
        return False
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
