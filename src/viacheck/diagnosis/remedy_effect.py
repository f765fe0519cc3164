"""The effect of a remedy, by the model: a fix that would send packets astray is not printed.

Only commands that add or delete rules and that set routes of the host are applied to the snapshot; a remedy with any
other command has no prediction.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from viacheck.analysis.classes import ClassVerdict, TrafficClass, class_partition, classes_text
from viacheck.analysis.gateway_facts import gateway_facts
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.table_names import number_of, table_entries
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.remedy import NO_REMEDY, Remedy, Step
from viacheck.model.config_entry import TableNumberOf
from viacheck.model.measurements import TrafficMeasurements
from viacheck.model.namespace_state import NetworkState
from viacheck.model.policy_rule import Rule, rule_arguments
from viacheck.model.route import Route
from viacheck.model.snapshot import Snapshot
from viacheck.parsers.ip_command import IPCommand, ip_commands, route_of, rule_of
from viacheck.parsers.shell import ShellError

CLASSES_NAMED = 3
_KERNEL_TABLES = {"local": 255, "main": 254, "default": 253}
"""Tables whose names ip knows without a file (rtnetlink(7))."""
_UNPREDICTED = "append", "prepend", "change"


@dataclass(frozen=True, slots=True)
class RemedyEffect:
    """What the model shows after a remedy."""

    reaches_intended: bool | None
    """Whether the probe target's packets leave as intended then; None when the model cannot say."""
    sent_astray: tuple[TrafficClass, ...]
    """The classes that leave as intended now, and elsewhere or not at all after the remedy."""


def predicted(cause: Cause, resolved: ResolvedIntent, traffic: TrafficMeasurements) -> Cause:
    """Return a cause with the model's prediction for its remedy.

    A remedy that routes to a silent gateway, or by the model sends packets astray, is withheld.
    """
    silent = _silent_gateway(cause.remedy, resolved, traffic)
    if silent is not None:
        usual = "; ".join(cause.remedy.lines)
        return replace(
            cause,
            remedy=NO_REMEDY,
            decision=f"the usual fix ({usual}) would route to {silent}, which does not answer ARP: let the gateway "
            "answer, or correct its address in the site file, first",
        )
    effect = remedy_effect(resolved, cause.remedy)
    if effect is None:
        return cause
    if not effect.sent_astray:
        return replace(cause, predicted=effect.reaches_intended)
    by_way: dict[tuple[str, str], list[TrafficClass]] = {}
    for sent in effect.sent_astray:
        way = (" or ".join(sorted(sent.path.egress)) or "no interface", sent.path.reason)
        by_way.setdefault(way, []).append(sent)
    ways = [
        f"{classes_text(classes, CLASSES_NAMED)} by {interfaces} ({reason})"
        for (interfaces, reason), classes in by_way.items()
    ]
    usual = "; ".join(cause.remedy.lines)
    those = "that rule or route" if len(ways) == 1 else "those rules or routes"
    return replace(
        cause,
        remedy=NO_REMEDY,
        decision=f"the usual fix ({usual}) would send {', '.join(ways[:CLASSES_NAMED])}: correct {those} first",
    )


def _silent_gateway(remedy: Remedy, resolved: ResolvedIntent, traffic: TrafficMeasurements) -> str | None:
    """Return the gateway that a remedy routes to and that is known not to answer ARP; None without one."""
    for uplink, gateway in resolved.arp_gateways.items():
        hop = ("via", gateway, "dev", uplink)
        to_gateway = any(
            isinstance(step, tuple) and hop in zip(step, step[1:], step[2:], step[3:], strict=False)
            for step in remedy.steps
        )
        if to_gateway and gateway_facts(resolved, traffic, uplink).answers is False:
            return gateway
    return None


def after_steps(resolved: ResolvedIntent, steps: Iterable[Step]) -> ResolvedIntent | None:
    """Return the host after commands that add or delete rules or set routes; None for any other step."""
    snapshot = _with_steps(resolved.snapshot, steps)
    return replace(resolved, snapshot=snapshot) if snapshot is not None else None


@lru_cache(maxsize=32)
def remedy_effect(resolved: ResolvedIntent, remedy: Remedy) -> RemedyEffect | None:
    """Return the effect of a remedy on the classes of the agent's traffic; None when the model cannot apply it."""
    if resolved.bridged or not remedy.steps:
        return None
    changed = after_steps(resolved, remedy.steps)
    if changed is None:
        return None
    after = class_partition(changed)
    verdicts = {(then.prefix, then.selector): then for then in after.classes}
    astray = [
        then
        for now in class_partition(resolved).classes
        if now.verdict in (ClassVerdict.INTENDED, ClassVerdict.ALLOWED)
        and (then := verdicts.get((now.prefix, now.selector))) is not None
        and then.verdict in (ClassVerdict.ELSEWHERE, ClassVerdict.DEPENDS, ClassVerdict.BLOCKED)
    ]
    return RemedyEffect(after.target_leaves_as_intended, tuple(astray))


def _with_steps(snapshot: Snapshot, steps: Iterable[Step]) -> Snapshot | None:
    """Return the snapshot after commands that add rules or routes; None for any other step."""
    host, entries = snapshot.host, table_entries(snapshot)

    def table_number(name: str) -> int | None:
        return int(name) if name.isdecimal() else _KERNEL_TABLES.get(name) or number_of(entries, name)

    for step in steps:
        if not isinstance(step, tuple) or not all(isinstance(argument, str) for argument in step):
            return None
        commands = ip_commands(shlex.join([str(argument) for argument in step]))
        if len(commands) != 1 or commands[0].verb in _UNPREDICTED:
            return None
        try:
            changed = _with_command(host, commands[0], table_number)
        except ShellError:
            return None
        if changed is None:
            return None
        host = changed
    return replace(snapshot, host=host)


def _with_command(host: NetworkState, command: IPCommand, table_number: TableNumberOf) -> NetworkState | None:
    if command.kind == "rule":
        rule, _ = rule_of(command, table_number)
        if "priority" not in command.arguments:
            return None
        return _without_rule(host, rule) if command.verb == "delete" else _with_rule(host, rule)
    route, _, late = route_of(command, table_number)
    return None if late or command.verb == "delete" else _with_route(host, route)


def _with_rule(host: NetworkState, rule: Rule) -> NetworkState:
    """Insert a rule behind those of lower or equal priority, as the kernel does (fib_nl_newrule)."""
    rules = sorted([*host.rules, rule], key=lambda entry: (entry.family, entry.priority))
    return replace(host, rules=tuple(rules))


def _without_rule(host: NetworkState, rule: Rule) -> NetworkState | None:
    """Delete the first rule with the same priority, selectors and action; return None without such a rule."""
    words = rule_arguments(rule)
    place = next((number for number, other in enumerate(host.rules) if rule_arguments(other) == words), None)
    return None if place is None else replace(host, rules=(*host.rules[:place], *host.rules[place + 1 :]))


def _with_route(host: NetworkState, route: Route) -> NetworkState:
    """Replace the route of the same table, destination, metric and TOS, or add it."""
    others = [
        entry
        for entry in host.routes
        if (entry.family, entry.table, entry.destination, entry.metric, entry.tos)
        != (route.family, route.table, route.destination, route.metric, route.tos)
    ]
    return replace(host, routes=(*others, route))
