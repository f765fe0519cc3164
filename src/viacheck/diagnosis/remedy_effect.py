"""The effect of a remedy, by the model: a fix that would send packets astray is not printed.

Only commands that add rules and routes of the host are applied to the snapshot; a remedy with any other command has no
prediction.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from viacheck.analysis.classes import ClassVerdict, TrafficClass, class_partition, classes_text
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.table_names import number_of, table_entries
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.remedy import NO_REMEDY, Remedy, Step
from viacheck.model.config_entry import TableNumberOf
from viacheck.model.snapshot import NetworkState, Route, Rule, Snapshot
from viacheck.parsers.ip_command import IPCommand, ip_commands, route_of, rule_of
from viacheck.parsers.shell import ShellError

CLASSES_NAMED = 3
_UNPREDICTED = "delete", "append", "prepend", "change"


@dataclass(frozen=True, slots=True)
class RemedyEffect:
    """What the model shows after a remedy."""

    reaches_intended: bool
    """Whether the probe target's packets leave as intended then."""
    sent_astray: tuple[TrafficClass, ...]
    """The classes that leave as intended now, and elsewhere or not at all after the remedy."""


def withheld(cause: Cause, resolved: ResolvedIntent) -> Cause:
    """Return a cause without its remedy if the model shows that the remedy sends packets astray."""
    effect = remedy_effect(resolved, cause.remedy)
    if effect is None or not effect.sent_astray:
        return cause
    first = effect.sent_astray[0]
    interfaces = " or ".join(sorted(first.path.egress)) or "no interface"
    usual = "; ".join(cause.remedy.lines)
    return replace(
        cause,
        remedy=NO_REMEDY,
        decision=f"the usual fix ({usual}) would send {classes_text(effect.sent_astray, CLASSES_NAMED)} by "
        f"{interfaces} ({first.path.reason}): correct that rule or route first",
    )


@lru_cache(maxsize=32)
def remedy_effect(resolved: ResolvedIntent, remedy: Remedy) -> RemedyEffect | None:
    """Return the effect of a remedy on the classes of the agent's traffic; None when the model cannot apply it."""
    if resolved.bridged or not remedy.steps:
        return None
    snapshot = _with_steps(resolved.snapshot, remedy.steps)
    if snapshot is None:
        return None
    after = class_partition(replace(resolved, snapshot=snapshot))
    verdicts = {(then.prefix, then.selector): then for then in after.classes}
    astray = [
        then
        for now in class_partition(resolved).classes
        if now.verdict in (ClassVerdict.INTENDED, ClassVerdict.ALLOWED)
        and (then := verdicts.get((now.prefix, now.selector))) is not None
        and then.verdict in (ClassVerdict.ELSEWHERE, ClassVerdict.DEPENDS, ClassVerdict.BLOCKED)
    ]
    return RemedyEffect(not after.target_is_astray, tuple(astray))


def _with_steps(snapshot: Snapshot, steps: Iterable[Step]) -> Snapshot | None:
    """Return the snapshot after commands that add rules or routes; None for any other step."""
    host, entries = snapshot.host, table_entries(snapshot)

    def table_number(name: str) -> int | None:
        return int(name) if name.isdecimal() else number_of(entries, name)

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
        return _with_rule(host, rule) if "priority" in command.arguments else None
    route, _, late = route_of(command, table_number)
    return None if late else _with_route(host, route)


def _with_rule(host: NetworkState, rule: Rule) -> NetworkState:
    """Insert a rule behind those of lower or equal priority, as the kernel does (fib_nl_newrule)."""
    rules = sorted([*host.rules, rule], key=lambda entry: (entry.family, entry.priority))
    return replace(host, rules=tuple(rules))


def _with_route(host: NetworkState, route: Route) -> NetworkState:
    """Replace the route of the same table, destination, metric and TOS, or add it."""
    others = [
        entry
        for entry in host.routes
        if (entry.family, entry.table, entry.destination, entry.metric, entry.tos)
        != (route.family, route.table, route.destination, route.metric, route.tos)
    ]
    return replace(host, routes=(*others, route))
