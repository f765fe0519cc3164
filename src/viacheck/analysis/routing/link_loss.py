"""The routing of a namespace after one of its interfaces is set down: its routes go, the rules stay.

Follows fib_disable_ip (net/ipv4/fib_frontend.c, fib_semantics.c), fib6_ifdown (net/ipv6/route.c) and addrconf_ifdown
(net/ipv6/addrconf.c). With the routing model it shows whether packets would leave by another interface.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from operator import attrgetter

from viacheck.model.namespace_state import Address, NetworkState
from viacheck.model.route import Nexthop, Route

GONE = ("dead", "linkdown")
RUNNING_FLAGS = frozenset({"UP", "LOWER_UP", "NO-CARRIER"})


def without_interface(state: NetworkState, name: str) -> NetworkState:
    """Return the state after the kernel set an interface administratively down.

    Interfaces stacked on it keep the carrier that the state shows. A name that the state does not have changes nothing.
    """
    up = {link.name for link in state.links if link.up and link.name != name}

    def gone(hop: Nexthop) -> bool:
        # With ignore_routes_with_linkdown, a nexthop without a carrier is shown as dead too: it does not count.
        return hop.interface == name or ("dead" in hop.flags and hop.interface not in up)

    def after(route: Route) -> Route | None:
        if route.family == 4 and route.type == "local":
            # The host still answers to the addresses of an interface that is down.
            return route
        if all(gone(hop) for hop in route.nexthops):
            return None
        return replace(
            route,
            nexthops=tuple(
                replace(hop, flags=(*(flag for flag in hop.flags if flag not in GONE), *GONE))
                if hop.interface == name
                else hop
                for hop in route.nexthops
            ),
        )

    routes: list[Route] = []
    # On a large table many routes in a row have the same nexthops.
    for nexthops, run in groupby(state.routes, attrgetter("nexthops")):
        if all(hop.interface != name for hop in nexthops):
            routes.extend(run)
        else:
            routes.extend(kept for kept in map(after, run) if kept is not None)

    def stays(address: Address) -> bool:
        if address.interface != name or address.family == 4:
            return True
        kept = any(
            state.sysctls.get(f"net/ipv6/conf/{scope}/keep_addr_on_down", "0").strip() == "1" for scope in ("all", name)
        )
        return kept and address.scope == "global" and "dynamic" not in address.flags

    return replace(
        state,
        links=tuple(
            replace(link, flags=tuple(flag for flag in link.flags if flag not in RUNNING_FLAGS), operstate="DOWN")
            if link.name == name
            else link
            for link in state.links
        ),
        addresses=tuple(address for address in state.addresses if stays(address)),
        routes=tuple(routes),
        neighbours=tuple(neighbour for neighbour in state.neighbours if neighbour.interface != name),
    )
