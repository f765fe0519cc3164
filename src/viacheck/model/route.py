"""A route of a table, and its text as ip(8) writes it: the line that it prints and the arguments that it takes.

Every report, remedy and comparison gets its text here. The module needs the standard library alone, because the
watchdog runs without site-packages.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Literal

from viacheck.model.address_family import Family, IPNetwork, ip_command
from viacheck.model.routing_names import TABLE_MAIN

_IMPLIED_SCOPES = {"local": "host", "nat": "host", "broadcast": "link", "multicast": "link", "anycast": "link"}
"""Scopes that ``ip route add`` gives to an IPv4 route of these types when none is written."""
_LOCAL_TABLE_TYPES = frozenset({"local", "broadcast", "anycast", "nat"})
"""Types of routes that ``ip route add`` puts in the local table when no table is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nexthop:
    """A nexthop of a route: a gateway, an interface, or both."""

    gateway: str | None = None
    interface: str | None = None
    weight: int = 1
    flags: tuple[str, ...] = ()
    """``linkdown``, ``dead``, ``onlink`` …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route of a table (ip-route(8))."""

    family: Family
    table: int
    destination: str
    """Prefix in CIDR form; the default route is ``0.0.0.0/0`` or ``::/0``."""
    type: str = "unicast"
    """``unicast``, ``local``, ``broadcast``, ``multicast``, ``anycast``, ``unreachable``, ``blackhole``, ``prohibit``
    or ``throw``."""
    nexthops: tuple[Nexthop, ...] = ()
    """Empty for a route that refuses packets (unreachable, blackhole …)."""
    metric: int = 0
    scope: str = "global"
    tos: int = 0
    protocol: str | None = None
    source: str | None = None
    """Preferred source address (RTA_PREFSRC)."""
    mtu: int | None = None
    source_prefix: str | None = None
    """IPv6 only: the packets' sources that the route is for (RTA_SRC); None for all."""
    preference: Literal["low", "medium", "high"] = "medium"
    """IPv6 only: the router's preference (RFC 4191)."""
    nexthop_id: int | None = None
    """Id of the route's nexthop object (ip-nexthop(8)), which the kernel removes together with the carrier."""

    @property
    def network(self) -> IPNetwork:
        """The destination as a network."""
        return ip_network(self.destination)

    @property
    def is_default(self) -> bool:
        """Whether the route covers every destination of its family."""
        return self.destination in ("0.0.0.0/0", "::/0")

    def __str__(self) -> str:
        """The route as a person writes it for ``ip route``, without the family, its origin and its scope."""
        return route_text(self)


def route_text(route: Route) -> str:
    """Return a route as a person writes it for ``ip route``, without the family, its origin and its scope."""
    return " ".join([*_key(route), *_several(route)])


def route_details(route: Route) -> str:
    """Return a route as ``ip -details route`` shows it, without the family: with its origin, scope and metrics."""
    details = ["proto", route.protocol] if route.protocol is not None else []
    if route.scope != "global":
        details += ["scope", route.scope]
    if route.nexthop_id is not None:
        details += ["nhid", str(route.nexthop_id)]
    return " ".join([*_key(route), *details, *_metrics(route), *_several(route)])


def route_arguments(route: Route) -> list[str]:
    """Return a route as ``ip route add`` and its like take it, with nothing of it left out."""
    origin = ["proto", route.protocol] if route.protocol not in (None, "boot") else []
    if route.family == 4 and route.scope != implied_scope(route):
        origin += ["scope", route.scope]
    several = [] if route.nexthop_id is not None else _several(route)
    return [*_key(route, by_nexthop_object=True), *map(str, origin), *_metrics(route), *several]


def route_argv(verb: Literal["add", "append", "del", "replace"], route: Route) -> list[str]:
    """Return the command that adds, replaces or deletes a route, as an argument list."""
    family = ip_command(route.family)
    if route.family == 4 and any(":" in (hop.gateway or "") for hop in route.nexthops):
        # Without -4, ip takes the family of a default route from its gateway.
        family.append("-4")
    return [*family, "route", verb, *route_arguments(route)]


def route_command(verb: Literal["add", "append", "del", "replace"], route: Route) -> str:
    """Return the command that adds, replaces or deletes a route, as shell text."""
    return shlex.join(route_argv(verb, route))


def _key(route: Route, *, by_nexthop_object: bool = False) -> Iterator[str]:
    if route.type != "unicast":
        yield route.type
    yield "default" if route.is_default else route.destination
    if route.source_prefix:
        yield from ("from", route.source_prefix)
    if route.tos:
        yield from ("tos", f"0x{route.tos:x}")
    if by_nexthop_object and route.nexthop_id is not None:
        yield from ("nhid", str(route.nexthop_id))
    elif len(route.nexthops) == 1:
        yield from _nexthop(route.nexthops[0], route.family)
    if route.source:
        yield from ("src", route.source)
    if route.metric:
        yield from ("metric", str(route.metric))
    if route.table != TABLE_MAIN or route.type in _LOCAL_TABLE_TYPES:
        yield from ("table", str(route.table))


def _metrics(route: Route) -> Iterator[str]:
    if route.mtu is not None:
        yield from ("mtu", str(route.mtu))
    if route.preference != "medium":
        yield from ("pref", route.preference)


def _several(route: Route) -> list[str]:
    # ip-route(8) takes several nexthops last.
    if len(route.nexthops) < 2:
        return []
    return [
        word for hop in route.nexthops for word in ("nexthop", *_nexthop(hop, route.family), "weight", str(hop.weight))
    ]


def _nexthop(hop: Nexthop, family: int) -> Iterator[str]:
    if hop.gateway:
        yield "via"
        if family == 4 and ":" in hop.gateway:
            yield "inet6"
        yield hop.gateway
    if hop.interface:
        yield from ("dev", hop.interface)
    if "onlink" in hop.flags:
        yield "onlink"


def implied_scope(route: Route) -> str:
    """Return the scope that ``ip route add`` gives to an IPv4 route when none is written."""
    if route.type == "unicast":
        leads_on = route.nexthop_id is not None or len(route.nexthops) > 1 or any(h.gateway for h in route.nexthops)
        return "global" if leads_on else "link"
    return _IMPLIED_SCOPES.get(route.type, "global")
