"""The rules and the route that decide for a policy-routed agent: which exist, which comes first, what is left without.

The checks of the routing chapter, the causes of their failures and the persistence assessment all read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_network

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.routing.table import RoutingTable, read_address
from viacheck.analysis.table_names import named_rule
from viacheck.model.intent import TransportProtocol
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Route
from viacheck.model.routing_names import TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN

FIXED_PRIORITY = 1000
"""Priority of the rule that a remedy adds."""
LOCAL_PRIORITY = 990
"""Priority of the rule that keeps local networks local; it comes before the agent's rule."""
BACKSTOP_METRIC = 4278198272
"""Metric of the unreachable route in the agent's table: higher than any metric that a network manager sets."""

KERNELS_TABLES = (TABLE_LOCAL, TABLE_MAIN, TABLE_DEFAULT)
"""The tables of the rules that the kernel makes."""


@dataclass(frozen=True, slots=True)
class ShadowingRule:
    """An earlier rule that decides for the agent's packets in place of the intended one."""

    rule: Rule
    protocols: tuple[TransportProtocol, ...]
    """The protocols that it decides for; empty when it decides for all that are probed."""


def selects_agent(resolved: ResolvedIntent, rule: Rule) -> bool:
    """Whether a rule's source covers the agent's subnet or address, or the packet's mark or interface selects it."""
    if rule.iif_detached or rule.oif_detached:
        return False
    source = rule.source_network
    if source is not None and not covers_subnet(resolved, rule):
        own = resolved.agent_address
        if own is None or IPv4Address(own) not in source:
            return False
    if rule.iif is not None and rule.iif != resolved.bridge:
        return False
    if rule.fwmark is not None:
        mask = rule.fwmask if rule.fwmask is not None else 0xFFFFFFFF
        return resolved.agent_mark & mask == rule.fwmark & mask
    return rule.source is not None or rule.iif is not None


def covers_subnet(resolved: ResolvedIntent, rule: Rule) -> bool:
    """Whether a rule selects every address that the agent may get: its source covers the agent's whole subnet."""
    covered = resolved.agent_subnet or resolved.agent_source
    source = rule.source_network
    if source is None or covered is None:
        return source is None
    return ip_network(str(covered)).subnet_of(source)  # type: ignore[arg-type]


def rules_for_agent(resolved: ResolvedIntent) -> list[Rule]:
    """Return the rules that send the agent's packets to the intent's table, in order.

    A rule for a part of its packets (a destination, a port) counts only where no rule is for all of them.
    """
    selecting = [rule for rule in resolved.rules_to_the_table if selects_agent(resolved, rule)]
    return [rule for rule in selecting if not rule.narrowed] or selecting


def decided_by(resolved: ResolvedIntent) -> tuple[int, str]:
    """Return what decides for the agent's packets where no rule sends them to the intent's table.

    Returns:
        The priority up to which a rule must be added that comes before it, and a clause for people, which also names
        a rule for the agent whose table has no route for its packets.
    """
    decider = resolved.agent_decision().rule
    before = min(FIXED_PRIORITY, decider.priority - 1) if decider is not None else FIXED_PRIORITY
    before = before if before > 0 else FIXED_PRIORITY
    if decider is not None and decider.table not in KERNELS_TABLES:
        return before, f"and the rule '{named_rule(resolved, decider)}' decides for the agent's packets"
    text = "so the main table decides for the agent's packets"
    for rule in resolved.snapshot.host.rules_of(4):
        own = rule.table is not None and rule.table not in (*KERNELS_TABLES, resolved.table)
        if own and not rule.narrowed and selects_agent(resolved, rule):
            return before, f"{text}; the table of the rule '{named_rule(resolved, rule)}' has no route for them"
    return before, text


def copies(rules: Sequence[Rule]) -> list[list[Rule]]:
    """Return the rules that are there more than once, those that differ in their priority or origin alone together.

    A rule for a mark or an interface beside one for the subnet is no copy of it: each selects packets of its own.
    """
    alike: dict[Rule, list[Rule]] = {}
    for rule in rules:
        alike.setdefault(replace(rule, priority=0, protocol=None), []).append(rule)
    return [group for group in alike.values() if len(group) > 1]


def free_priority(resolved: ResolvedIntent, wanted: int) -> int:
    """Return the highest priority up to ``wanted`` that no IPv4 rule of the host has."""
    taken = {rule.priority for rule in resolved.snapshot.host.rules_of(4)}
    return next((priority for priority in range(wanted, 0, -1) if priority not in taken), wanted)


def shadowing_rule(resolved: ResolvedIntent) -> ShadowingRule | None:
    """Return the earlier rule that decides for the agent's packets; None when the intended rule decides."""
    if not rules_for_agent(resolved):
        return None
    protocols_by_rule: dict[Rule, list[TransportProtocol]] = {}
    for protocol in resolved.intent.probe.protocols:
        rule = resolved.agent_decision(protocol).rule
        if rule is not None and rule not in resolved.rules_to_the_table:
            protocols_by_rule.setdefault(rule, []).append(protocol)
    intended = rules_for_agent(resolved)[0]
    order = list(resolved.snapshot.host.rules_of(4))
    for rule, protocols in protocols_by_rule.items():
        if order.index(rule) < order.index(intended):
            decides_for_all = len(protocols) == len(resolved.intent.probe.protocols)
            return ShadowingRule(rule, () if decides_for_all else tuple(protocols))
    return None


def rule_past_main(resolved: ResolvedIntent) -> ShadowingRule | None:
    """Return the rule that takes the packets of an agent without a table of its own away from its uplink.

    None where it has a table, leaves by its uplink, or one of the kernel's own tables sends it elsewhere.
    """
    if resolved.intent.policy_routed or resolved.agent_source is None or resolved.sent_by_host:
        return None
    protocols_by_rule: dict[Rule, list[TransportProtocol]] = {}
    for protocol in resolved.intent.probe.protocols:
        decision = resolved.agent_decision(protocol)
        rule = decision.rule
        if rule is not None and rule.table not in KERNELS_TABLES and resolved.uplink not in decision.interfaces:
            protocols_by_rule.setdefault(rule, []).append(protocol)
    for rule, protocols in protocols_by_rule.items():
        decides_for_all = len(protocols) == len(resolved.intent.probe.protocols)
        return ShadowingRule(rule, () if decides_for_all else tuple(protocols))
    return None


def deciding_route(resolved: ResolvedIntent) -> Route | None:
    """Return the route of the intent's table to the probe target: the longest prefix, then the lowest metric."""
    target = read_address(resolved.target, 4)
    for routes in RoutingTable(resolved.table_routes, 4).covering(target):
        deciding = [route for route in routes if route.type != "throw"]
        if deciding:
            return min(deciding, key=lambda route: route.metric)
    return None


def egress_without_uplink(resolved: ResolvedIntent) -> str | None:
    """Return the interface by which the agent's packets would leave while the intended uplink is down.

    None when they would leave by no interface, or when the agent's address is not known.
    """
    if resolved.agent_source is None:
        return None
    decision = resolved.decision_without_uplink
    return decision.interface if decision.outcome == "unicast" else None
