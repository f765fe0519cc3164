"""Causes in the way that the host's own packets take: a missing default route, or one by another uplink."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.agent_rules import rule_past_main
from viacheck.analysis.default_routes import default_route_by
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.routing.packet import Packet
from viacheck.analysis.table_names import named_rule
from viacheck.diagnosis.cause import EGRESS, Cause
from viacheck.diagnosis.remedy import NO_REMEDY, Remedy, command
from viacheck.diagnosis.remedy_effect import after_steps
from viacheck.model.measurements import Measurements
from viacheck.model.route import Route, route_argv
from viacheck.model.routing_names import TABLE_DEFAULT, TABLE_MAIN

FIRST_TABLE = 200
"""The number that the guide gives to the agent's table; the next one that is free is proposed."""
_NETWORKMANAGER_PENALTY = 20000
"""What NetworkManager adds to the metrics of a connection whose connectivity check fails (NetworkManager.conf(5))."""


def default_exit_wrong(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the host's own packets leave by another uplink than intended, or have no route."""
    wanted = resolved.intent.host.default_exit
    actual = resolved.host_decision.interface
    if actual is not None and wanted in (None, actual):
        return
    also_affects = frozenset({"EGRESS-04"})
    # A rule that takes the agent's packets as well has a remedy of its own (taken_by_rule).
    if not resolved.intent.policy_routed and not resolved.bridged and rule_past_main(resolved) is None:
        also_affects |= EGRESS | {"ROUTE-05"}
    default = default_route_by(resolved, wanted or resolved.uplink)
    remedy = _set_default(resolved, default) if default else NO_REMEDY
    after = after_steps(resolved, remedy.steps)
    helps = after is not None and after.host_decision.interface == (wanted or resolved.uplink)
    if actual is None:
        why = "no default route" if helps or not resolved.host_decision.rule else str(resolved.host_decision)
        yield Cause(
            "DEFAULT_EXIT_MISSING", "HOST-06", f"the host itself has no route to {resolved.target}: {why}",
            remedy if helps else NO_REMEDY, also_affects,
            decision=None if helps else f"remove the rule '{named_rule(resolved, resolved.host_decision.rule)}' "
            "if it is a mistake",
        )  # fmt: skip
    elif wanted is not None:
        yield Cause(
            "DEFAULT_EXIT_WRONG", "HOST-06",
            f"the host's own packets leave by {actual}, not by {wanted}: {_decider(resolved, wanted)}",
            remedy if helps else NO_REMEDY, also_affects,
            decision=None if helps else f"a default route by {wanted} does not change this, because that rule or route "
            f"comes first (a VPN that takes over the default route, for one): remove it, or let the site file say "
            f"where the host's own packets must leave (host.default_exit = \"{actual}\", with a table for {actual} in "
            "[uplinks]), or leave host.default_exit out",
        )  # fmt: skip


def exit_without_carrier(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the host's own packets go to an interface without a carrier, such as a dead tunnel."""
    decision = resolved.host_decision
    link = resolved.snapshot.host.link(decision.interface) if decision.interface is not None else None
    if link is None or link.carrier or not link.up or link.name in resolved.intent.uplinks:
        return
    yield Cause(
        "NO_CARRIER", "EGRESS-04",
        f"the host's own packets go to {link.name}, which is up but has no carrier: {decision.route}",
        decision=f"start what {link.name} belongs to (a VPN's program, for one), or remove that route",
    )  # fmt: skip


def exit_silent(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the next hop of the host's own packets does not answer ARP, on an interface that is no uplink."""
    neighbour, macs = resolved.exit_neighbour, measurements.traffic.exit_macs
    if neighbour is None or macs is None or macs:
        return
    interface, address = neighbour
    yield Cause(
        "GATEWAY_SILENT", "EGRESS-04",
        f"the host's own packets go to {address} on {interface}, which does not answer ARP: "
        f"{resolved.host_decision.route}",
        decision=f"start {address}, or remove that route",
    )  # fmt: skip


def agent_without_table(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the main table, which decides for an agent without a table of its own, leads to another uplink."""
    if resolved.intent.policy_routed or resolved.bridged or resolved.shares_host_network:
        return
    decision = resolved.agent_decision(resolved.intent.probe.protocols[0])
    if decision.table != TABLE_MAIN or len(decision.interfaces) != 1 or decision.interface == resolved.uplink:
        return
    taken = {route.table for route in resolved.snapshot.host.routes}
    table = next(number for number in range(FIRST_TABLE, TABLE_DEFAULT) if number not in taken)
    yield Cause(
        "DEFAULT_EXIT_WRONG", "ROUTE-05",
        f"the site file names no table for this agent, so the main table decides for its packets, and leads to "
        f"{decision.interface} instead of {resolved.uplink}: route {decision.route}",
        also_affects=EGRESS | {"ROUTE-06", "ROUTE-07"}, site_file=("[egress]", f"table = {table}"),
        decision="give the agent a table of its own, named in the site file: the next run says which rule and route "
        f"it needs. Or let the host's default route leave by {resolved.uplink}, which moves the host's own packets and "
        "those of all other containers as well",
    )  # fmt: skip


def protocol_leaves_elsewhere(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find a rule for one protocol or port that takes the host's own packets of it."""
    for protocol in resolved.intent.probe.protocols:
        port = resolved.intent.probe.port if protocol != "icmp" else None
        packet = Packet(
            source=None, destination=resolved.target, protocol=PROTOCOL_NUMBERS[protocol], dport=port
        )  # fmt: skip
        decision = resolved.model.decide(packet)
        if decision.rule is None or decision.interface in (resolved.default_exit, resolved.host_decision.interface):
            continue
        yield Cause(
            "DEFAULT_EXIT_WRONG", "EGRESS-04",
            f"the host's own {protocol} packets do not leave by {resolved.default_exit}: {decision}",
            decision=f"remove the rule '{named_rule(resolved, decision.rule)}' if it is a mistake",
        )  # fmt: skip
        return


def _set_default(resolved: ResolvedIntent, default: tuple[str, ...]) -> Remedy:
    """Return the remedy that sets a default route of the main table with metric 0.

    The rollback restores the route of the same metric; without one, the new route is deleted.
    """
    replaced = next(
        (
            route
            for route in resolved.snapshot.host.table(TABLE_MAIN, 4)
            if route.is_default and not route.metric and not route.tos
        ),
        None,
    )
    # Of several routes by this gateway, the kernel deletes that of the lowest metric.
    delete = command("ip", "route", "del", *default)
    restore = delete if replaced is None else command(*route_argv("replace", replaced))
    return Remedy((command("ip", "route", "replace", *default),), (restore,))


def _decider(resolved: ResolvedIntent, wanted: str) -> str:
    """Return the rule and the route that decide for the host's own packets, and why the wanted one does not."""
    decision = resolved.host_decision
    past_main = decision.rule is not None and decision.table != TABLE_MAIN
    by_rule = f"rule {named_rule(resolved, decision.rule)}, " if past_main else ""
    route = decision.route
    other = _default_by(resolved, wanted)
    text = f"{by_rule}route {route}"
    if route is None or other is None or other.metric <= route.metric or not route.is_default or by_rule:
        return text
    text += f", whose metric is lower than {other.metric}, the metric of the default route by {wanted}"
    if other.metric >= _NETWORKMANAGER_PENALTY:
        text += " (NetworkManager adds 20000 while its connectivity check fails there)"
    return text


def _default_by(resolved: ResolvedIntent, uplink: str) -> Route | None:
    """Return the default route of the main table by an uplink."""
    routes = resolved.snapshot.host.table(TABLE_MAIN, 4)
    return next(
        (route for route in routes if route.is_default and any(hop.interface == uplink for hop in route.nexthops)), None
    )
