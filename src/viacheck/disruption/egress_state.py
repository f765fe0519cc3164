"""Reads what makes the agent's way: rules, the routes of the table that decides, the uplink's addresses.

It is read again and again through an event, since the kernel does not announce the IPv4 routes that it flushes with a
link; so only this much is asked for, and each table by itself, which the kernel filters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.host.namespace import Namespace
from viacheck.model.measurements import EgressState
from viacheck.model.snapshot import TABLE_MAIN, Family, Route, Rule
from viacheck.parsers import iproute

_NO_TABLE = "FIB table does not exist"


class EgressUnreadable(Exception):
    """The state could not be read; the message has the command and what it said."""


def read_egress(
    host: Namespace,
    agent: Namespace | None,
    resolved: ResolvedIntent,
    families: Sequence[Family],
    *,
    time: float,
    moment: str,
) -> EgressState:
    """Read the state as it is now, of a bridged agent that is away nothing; ``time`` and ``moment`` say when that is.

    A NATed agent's way is made of the host's rules and the deciding table; a bridged one's of its own main table. The
    addresses are those that its packets are to carry: the uplink's, or where it holds a lease itself, its own.

    Raises:
        EgressUnreadable: when ``ip`` fails.
    """
    rules: list[Rule] = []
    routes: list[Route] = []
    bridged = resolved.intent.mode != "nat"
    for family in families:
        if bridged:
            routes += _routes(agent, family, TABLE_MAIN) if agent is not None else []
            continue
        routes += [one for one in _routes(host, family, resolved.table) if _matters(one, resolved)]
        text = _ip(host, f"-{family}", "rule", "show")
        rules += [rule for rule in iproute.parse_rules(text, family) if not rule.kernels_own]
    addresses = read_addresses(host, agent, resolved)
    return EgressState(time=time, moment=moment, rules=tuple(rules), routes=tuple(routes), addresses=addresses)


def read_addresses(host: Namespace, agent: Namespace | None, resolved: ResolvedIntent) -> tuple[str, ...]:
    """The addresses that the agent's packets may leave with: the uplink's, or those of its own lease.

    Raises:
        EgressUnreadable: when ``ip`` fails.
    """
    if resolved.intent.mode == "pipework-dhcp":
        own = resolved.agent_link
        return _addresses(agent, own.name) if agent is not None and own is not None else ()
    return _addresses(host, resolved.uplink)


def _addresses(namespace: Namespace, interface: str) -> tuple[str, ...]:
    found = iproute.parse_addresses(_ip(namespace, "address", "show"))
    return tuple(a.address for a in found if a.interface == interface and a.scope == "global")


def _routes(namespace: Namespace, family: Family, table: int) -> list[Route]:
    try:
        text = _ip(namespace, f"-{family}", "route", "show", "table", str(table))
    except EgressUnreadable as error:
        if _NO_TABLE in str(error):
            return []
        raise
    # Asked for one table, ip does not name it again.
    return [dataclasses.replace(route, table=table) for route in iproute.parse_routes(text, family)]


def _matters(route: Route, resolved: ResolvedIntent) -> bool:
    """In a table of its own everything; in the main table what leads out by the uplink, or nowhere."""
    if resolved.intent.policy_routed:
        return True
    return not route.nexthops or any(hop.interface == resolved.uplink for hop in route.nexthops)


def _ip(namespace: Namespace, *words: str) -> str:
    result = namespace.run(["ip", "-N", "-j", "-d", *words])
    if not result.ok:
        raise EgressUnreadable(f"{result.command} ended with exit code {result.exit_code}: {result.stderr.strip()}")
    return result.stdout
