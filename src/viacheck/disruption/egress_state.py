"""Read the state that decides the agent's egress: rules, the routes of its table, the uplink's addresses.

The state is read after each step of an event, because the kernel does not announce the IPv4 routes that it flushes with
a link. To be fast, only one table is read, which the kernel filters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from viacheck.analysis.container_facts import own_address_varies
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.host.namespace import Namespace
from viacheck.model.address_family import Family
from viacheck.model.egress_changes import EgressState
from viacheck.model.route import Route
from viacheck.model.routing_names import TABLE_MAIN
from viacheck.netlink.routing_reader import RoutingReader

T = TypeVar("T")


class EgressUnreadable(Exception):
    """The state could not be read; the message holds the kernel's error."""


def read_egress(
    host: Namespace,
    agent: Namespace | None,
    resolved: ResolvedIntent,
    families: Sequence[Family],
    *,
    time: float,
    moment: str,
) -> EgressState:
    """Read the present state; of a bridged agent that is away, nothing. ``time`` and ``moment`` are the state's own.

    The host's rules and one table decide the egress of a NATed agent, its own main table that of a bridged agent. The
    addresses are the intended sources of its packets: the uplink's, or its own if that varies.

    Raises:
        EgressUnreadable: the kernel refuses.
    """
    if resolved.intent.mode != "nat":
        routes: list[Route] = []
        if agent is not None:
            routes = _read(agent, lambda kernel: [r for family in families for r in kernel.routes(family, TABLE_MAIN)])
        addresses = read_addresses(host, agent, resolved)
        return EgressState(time=time, moment=moment, routes=tuple(routes), addresses=addresses)

    def read(kernel: RoutingReader) -> EgressState:
        routes = (route for family in families for route in kernel.routes(family, resolved.table))
        rules = (rule for family in families for rule in kernel.rules(family))
        return EgressState(
            time=time,
            moment=moment,
            rules=tuple(rule for rule in rules if not rule.kernels_own),
            routes=tuple(route for route in routes if _decides(route, resolved)),
            addresses=kernel.global_addresses(resolved.uplink),
        )

    return _read(host, read)


def read_addresses(host: Namespace, agent: Namespace | None, resolved: ResolvedIntent) -> tuple[str, ...]:
    """Return the intended sources of the agent's packets: the uplink's addresses, or the agent's own that varies.

    Raises:
        EgressUnreadable: the kernel refuses.
    """
    if own_address_varies(resolved):
        own = resolved.agent_link
        if agent is None or own is None:
            return ()
        return _read(agent, lambda kernel: kernel.global_addresses(own.name))
    return _read(host, lambda kernel: kernel.global_addresses(resolved.uplink))


def read_agent_default(agent: Namespace) -> Route | None:
    """Return the agent's own IPv4 default route, the one with the lowest metric; None without one.

    Raises:
        EgressUnreadable: the kernel refuses.
    """
    routes = _read(agent, lambda kernel: kernel.routes(4, TABLE_MAIN))
    return min((route for route in routes if route.is_default), key=lambda route: route.metric, default=None)


def _read(namespace: Namespace, reading: Callable[[RoutingReader], T]) -> T:
    def inside() -> T:
        with RoutingReader() as kernel:
            return reading(kernel)

    try:
        return namespace.call(inside)
    except OSError as error:
        raise EgressUnreadable(f"rules, routes and addresses of {namespace.name}: {error.strerror}") from None


def _decides(route: Route, resolved: ResolvedIntent) -> bool:
    """Return whether a route concerns the agent: all routes of its own table, in the main table those by the uplink."""
    if resolved.intent.policy_routed:
        return True
    return not route.nexthops or any(hop.interface == resolved.uplink for hop in route.nexthops)
