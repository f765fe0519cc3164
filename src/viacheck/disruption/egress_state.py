"""Read the state that decides the agent's egress: rules, the routes of its table, the uplink's addresses.

The state is read after each step of an event, because the kernel does not announce the IPv4 routes that it flushes with
a link. To be fast, only one table is read, which the kernel filters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from viacheck.analysis.container_facts import own_address_varies
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.host.namespace import Namespace
from viacheck.model.egress_changes import EgressState
from viacheck.model.snapshot import TABLE_MAIN, Family, Route, Rule
from viacheck.parsers import iproute

_NO_TABLE = "FIB table does not exist"


class EgressUnreadable(Exception):
    """The state could not be read; the message holds the command and its error."""


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
        EgressUnreadable: ``ip`` fails.
    """
    rules: list[Rule] = []
    routes: list[Route] = []
    bridged = resolved.intent.mode != "nat"
    for family in families:
        if bridged:
            routes += _routes(agent, family, TABLE_MAIN) if agent is not None else []
            continue
        routes += [route for route in _routes(host, family, resolved.table) if _decides(route, resolved)]
        text = _ip(host, f"-{family}", "rule", "show")
        rules += [rule for rule in iproute.parse_rules(text, family) if not rule.kernels_own]
    addresses = read_addresses(host, agent, resolved)
    return EgressState(time=time, moment=moment, rules=tuple(rules), routes=tuple(routes), addresses=addresses)


def read_addresses(host: Namespace, agent: Namespace | None, resolved: ResolvedIntent) -> tuple[str, ...]:
    """Return the intended sources of the agent's packets: the uplink's addresses, or the agent's own that varies.

    Raises:
        EgressUnreadable: ``ip`` fails.
    """
    if own_address_varies(resolved):
        own = resolved.agent_link
        return _addresses(agent, own.name) if agent is not None and own is not None else ()
    return _addresses(host, resolved.uplink)


def read_agent_default(agent: Namespace) -> Route | None:
    """Return the agent's own IPv4 default route, the one with the lowest metric; None without one.

    Raises:
        EgressUnreadable: ``ip`` fails.
    """
    defaults = [route for route in _routes(agent, 4, TABLE_MAIN) if route.is_default]
    return min(defaults, key=lambda route: route.metric, default=None)


def _addresses(namespace: Namespace, interface: str) -> tuple[str, ...]:
    addresses = iproute.parse_addresses(_ip(namespace, "address", "show"))
    return tuple(
        address.address for address in addresses if address.interface == interface and address.scope == "global"
    )


def _routes(namespace: Namespace, family: Family, table: int) -> list[Route]:
    try:
        text = _ip(namespace, f"-{family}", "route", "show", "table", str(table))
    except EgressUnreadable as error:
        if _NO_TABLE in str(error):
            return []
        raise
    # When asked for one table, ip does not print its number.
    return [dataclasses.replace(route, table=table) for route in iproute.parse_routes(text, family)]


def _decides(route: Route, resolved: ResolvedIntent) -> bool:
    """Return whether a route concerns the agent: all routes of its own table, in the main table those by the uplink."""
    if resolved.intent.policy_routed:
        return True
    return not route.nexthops or any(hop.interface == resolved.uplink for hop in route.nexthops)


def _ip(namespace: Namespace, *arguments: str) -> str:
    result = namespace.run(["ip", "-N", "-j", "-d", *arguments])
    if not result.ok:
        raise EgressUnreadable(f"{result.command} ended with exit code {result.exit_code}: {result.stderr.strip()}")
    return result.stdout
