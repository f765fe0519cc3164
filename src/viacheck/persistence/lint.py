"""Faults of the configured lines: each must run twice, in the order of a boot, and beside other managers (PERSIST-02).

Each finding names file, line, code and consequence, and the line to write instead. A replay in a lab proves that the
lines can run twice (:mod:`.replay_result`); :func:`replay_findings` turns its fault into findings as well. The faults
that come from systemd-networkd alone are in :mod:`.networkd_lint`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.config_entry import Place, WrittenRemoval, WrittenRoute, WrittenRule
from viacheck.model.measurements import ReplayResult
from viacheck.model.policy_rule import Rule, rule_command
from viacheck.model.route import route_command
from viacheck.persistence import ifupdown, netplan, networkd_lint
from viacheck.persistence.assess import Persistence, is_the_table
from viacheck.persistence.config_writer import Recipe, recipe_for
from viacheck.persistence.finding import Finding
from viacheck.persistence.manager_config import OWN_NAMES, ManagerConfig

_FLUSHED = ("dhcp", "static")
"""Methods of ifupdown that take the interface down, which removes its routes (interfaces(5))."""
_LEASE_VARIABLE = re.compile(r"\$\{?(?:new|old)_\w+\}?")
"""Variables of dhclient-script(8)."""
_ADDS_ADDRESS = re.compile(r"\bip\s+(?:-\S+\s+)*a[a-z]*\s+(?:a|add|replace)\s")
_BACKSTOP_TYPES = ("unreachable", "blackhole", "prohibit")


def findings_of(resolved: ResolvedIntent, persistence: Persistence) -> list[Finding]:
    """Return the faults of the agent's configured rule and route, the breaking findings first."""
    recipe = recipe_for(resolved)
    if recipe is None or persistence.manager is None:
        return []
    config = persistence.configs[persistence.manager]
    findings = [
        *_unregistered(persistence, config, recipe),
        *(finding for rule in persistence.rules for finding in _rule(persistence.config_of(rule), rule, recipe)),
        *(finding for route in persistence.routes for finding in _route(resolved, config, route, recipe)),
        *_repeated(config),
        *_refused(config),
        *networkd_lint.purged_rules(resolved, persistence),
        *networkd_lint.rules_lost_with_link(resolved, persistence, recipe),
        *_backstop(resolved, persistence, config, recipe),
    ]
    return sorted(findings, key=lambda finding: not finding.breaks)


def replay_findings(replay: ReplayResult, persistence: Persistence, recipe: Recipe) -> list[Finding]:
    """Return the fault of a replay that no line reads like, at the lines that it concerns."""
    if replay.fault is None:
        return []
    corrections: list[tuple[Place, str]] = []
    if replay.fault in ("RULES_ACCUMULATE", "NOT_IDEMPOTENT"):
        # Lint finds the other lines without a replay: here a guard is never true, or a removal never matches.
        doubtful = [rule for rule in persistence.rules if rule.typed and (rule.guarded or not rule.has_priority)]
        corrections += [(rule.place, _idempotent_rule(rule, recipe)) for rule in doubtful]
    if replay.fault in ("ROUTE_NOT_RESTORED", "NOT_IDEMPOTENT"):
        routes = [route for route in persistence.routes if route.typed and (route.guarded or route.verb != "replace")]
        corrections += [(route.place, _idempotent_route(route, recipe)) for route in routes]
    findings = [Finding(replay.fault, place, replay.sentence, line) for place, line in corrections]
    return findings or [Finding(replay.fault, persistence.places[0], replay.sentence)]


def _unregistered(persistence: Persistence, config: ManagerConfig, recipe: Recipe) -> Iterator[Finding]:
    """Find table names that the program which reads the line does not know."""
    for entry in persistence.entries:
        if entry.table_known:
            continue
        if entry.typed:
            sentence = f"no rt_tables file has {entry.table}: ip refuses the name, and the commands after it do not run"
        elif config.manager == "networkd":
            sentence = (
                f"systemd-networkd knows the name {entry.table} only from RouteTable= in networkd.conf: it ignores this"
            )
        else:
            sentence = f"{OWN_NAMES[config.manager]} takes a table by number, not by the name {entry.table}"
        line = entry.place.text.replace(entry.table, str(recipe.table))
        yield Finding("TABLE_NAME_MISSING", entry.place, sentence, line, by_line=line != entry.place.text)


def _rule(config: ManagerConfig, rule: WrittenRule, recipe: Recipe) -> Iterator[Finding]:
    if not rule.typed:
        if not rule.has_priority:
            yield Finding(
                "NOT_IDEMPOTENT", rule.place,
                "no priority: the kernel puts the rule before the existing ones, so its position depends on the order "
                "in which the interfaces come up",
                _with_priority(config, rule, recipe), breaks=False, by_line=config.manager == "networkd",
            )  # fmt: skip
        return
    removals = list(_removals(config, rule))
    line = _idempotent_rule(rule, recipe)
    if not rule.has_priority and not removals and not rule.guarded:
        yield Finding(
            "RULES_ACCUMULATE", rule.place, "no fixed priority: each run adds one more rule, and each succeeds", line
        )  # fmt: skip
    elif not rule.has_priority:
        yield Finding(
            "NOT_IDEMPOTENT", rule.place, "no fixed priority: the kernel puts the rule before the existing ones", line,
            breaks=False,
        )  # fmt: skip
    elif not removals and not rule.guarded and not rule.failure_tolerated:
        yield Finding(
            "NOT_IDEMPOTENT", rule.place,
            "'add' of an existing rule prints 'File exists' and ends with 2: the commands after it do not run", line,
        )  # fmt: skip

    for removal, before in removals:
        if before and removal.interface is not None and not removal.failure_tolerated and removal.rule is not None:
            yield Finding(
                "NOT_IDEMPOTENT", removal.place,
                "'del' of a missing rule prints 'No such file or directory' and ends with 2: at the first ifup the "
                "commands after it do not run", f"{removal.place.text} 2>/dev/null || true",
            )  # fmt: skip


def _repeated(config: ManagerConfig) -> Iterator[Finding]:
    """Find a command that adds a rule which another command of the same interface has just added."""
    added: list[WrittenRule] = []
    for entry in config.entries:
        if isinstance(entry, WrittenRemoval) and entry.kind == "rule" and entry.phase not in ("down", "post-down"):
            added = [rule for rule in added if not _removes(entry, rule)]
        if not isinstance(entry, WrittenRule) or not entry.typed or not entry.has_priority or entry.interface is None:
            continue
        same = [
            rule
            for rule in added
            if (rule.rule, rule.interface, rule.phase) == (entry.rule, entry.interface, entry.phase)
        ]
        if same and not entry.guarded and not entry.failure_tolerated:
            yield Finding(
                "NOT_IDEMPOTENT", entry.place,
                f"the rule was added by {same[0].place} already: 'add' prints 'File exists' and ends with 2, and the "
                "commands after it do not run", f"{entry.place.text} 2>/dev/null || true",
            )  # fmt: skip
        added.append(entry)


def _with_priority(config: ManagerConfig, rule: WrittenRule, recipe: Recipe) -> str:
    if config.manager == "networkd":
        return f"{rule.place.text}\nPriority={recipe.priority}"
    return f"priority: {recipe.priority}"


def _idempotent_rule(rule: WrittenRule, recipe: Recipe) -> str:
    """Return the line that can run any number of times.

    An existing rule stays: between a deletion and an addition packets would leave by the main table.
    """
    priority = rule.rule.priority if rule.has_priority else recipe.priority
    repeatable = Rule(family=4, priority=priority, source=rule.rule.source or recipe.source, table=recipe.table)
    return f"{_hook(rule)}{rule_command('add', repeatable)} 2>/dev/null || true"


def _hook(entry: WrittenRule | WrittenRoute) -> str:
    """Return the word before a command in interfaces(5); nothing in a script."""
    return "post-up " if entry.place.text.partition(" ")[0] in ifupdown.HOOKS else ""


def _removals(config: ManagerConfig, rule: WrittenRule) -> Iterator[tuple[WrittenRemoval, bool]]:
    """Return the commands that remove a rule, and whether they run before it is added; a later one does not help."""
    before = True
    for entry in config.entries:
        before = before and entry is not rule
        if not isinstance(entry, WrittenRemoval) or entry.kind != "rule" or entry.interface != rule.interface:
            continue
        if (before or entry.phase in ("down", "post-down")) and _removes(entry, rule):
            yield entry, before


def _removes(removal: WrittenRemoval, rule: WrittenRule) -> bool:
    """Whether the selectors of a removal match a rule; a selector that it does not name matches any rule."""
    named = removal.rule
    return named is None or (
        (not removal.by_priority or (rule.has_priority and named.priority == rule.rule.priority))
        and (named.source is None or named.source == rule.rule.source)
        and (named.iif is None or named.iif == rule.rule.iif)
        and (not removal.by_table or named.table == rule.rule.table)
    )


def _route(resolved: ResolvedIntent, config: ManagerConfig, route: WrittenRoute, recipe: Recipe) -> Iterator[Finding]:
    if not route.typed:
        return
    line = _idempotent_route(route, recipe)
    if route.phase == "pre-up":
        yield Finding(
            "ROUTE_NOT_RESTORED", route.place,
            "the command runs before the interface is up and has its address: the kernel refuses the route, and ifup "
            "stops there", line,
        )  # fmt: skip
    link = config.configured_link(route.interface) if route.interface else None
    if link is not None and route.phase == "up":
        yield from _before_the_lease(resolved, route, link.method, line)
    if route.verb in ("add", "append", "prepend") and not route.failure_tolerated and not route.guarded:
        flushed = link is not None and link.method in _FLUSHED
        after = "; a link that goes down loses the route, so this shows only where it did not" if flushed else ""
        yield Finding(
            "NOT_IDEMPOTENT", route.place,
            f"'{route.verb}' of an existing route prints 'File exists' and ends with 2{after}", line,
            breaks=not flushed,
        )  # fmt: skip


def _idempotent_route(route: WrittenRoute, recipe: Recipe) -> str:
    """Return the line that can run any number of times."""
    return f"{_hook(route)}{route_command('replace', recipe.route)}"


def _before_the_lease(resolved: ResolvedIntent, route: WrittenRoute, method: str, line: str) -> Iterator[Finding]:
    """Find a route that needs the address or a variable of a lease, and does not wait for the lease."""
    unset = _LEASE_VARIABLE.search(route.place.text)
    if unset is not None:
        yield Finding(
            "ROUTE_NOT_RESTORED", route.place,
            f"only the hooks of dhclient-script know '{unset[0]}'; it is empty when ifupdown runs this line", line,
        )  # fmt: skip
        return
    file = resolved.snapshot.file(route.place.path)
    addressed = file is not None and _ADDS_ADDRESS.search(file.text)
    if method == "manual" and any(hop.gateway for hop in route.route.nexthops) and not addressed:
        yield Finding(
            "ROUTE_NOT_RESTORED", route.place,
            f"ifupdown gives {route.interface} no address (method manual): this line runs whether or not another "
            "program has its lease, and without an address the kernel refuses a route by a gateway",
            breaks=False,
        )  # fmt: skip


def _refused(config: ManagerConfig) -> Iterator[Finding]:
    """Find the lines at which the manager itself stops reading."""
    code = {"ifupdown": "NOT_IDEMPOTENT", "networkmanager": "NOT_PERSISTENT"}.get(config.manager)
    for problem in config.problems:
        if problem.refused and code is not None:
            yield Finding(code, Place(problem.path, problem.line), problem.reason)


def _backstop(
    resolved: ResolvedIntent, persistence: Persistence, config: ManagerConfig, recipe: Recipe
) -> Iterator[Finding]:
    """Find that the table has no unreachable route for the time in which the real route is missing."""
    if not persistence.routes:
        return
    for other in persistence.configs.values():
        for entry in other.routes:
            is_backstop = entry.route.type in _BACKSTOP_TYPES and entry.route.destination == "0.0.0.0/0"
            if not is_backstop or not is_the_table(resolved, entry.route.table or None, entry.table):
                continue
            if other.manager == "netplan" and entry.route.metric > netplan.LARGEST_METRIC:
                yield Finding(
                    "FAIL_OPEN", entry.place,
                    f"netplan 0.106 writes a metric above {netplan.LARGEST_METRIC} as a negative number, which "
                    "systemd-networkd refuses: without a metric the route is not set beside the real one",
                    f"metric: {netplan.LARGEST_METRIC}", breaks=False, by_line=False,
                )  # fmt: skip
                return
            if not entry.place.volatile:
                return
    real = persistence.routes[0]
    yield Finding(
        "FAIL_OPEN", real.place,
        f"no unreachable route backs this one: while {recipe.uplink} is down its table is empty, and the agent's "
        "packets leave by the main table",
        _backstop_text(config, real, recipe), breaks=False, by_line=real.typed,
    )  # fmt: skip


def _backstop_text(config: ManagerConfig, real: WrittenRoute, recipe: Recipe) -> str:
    if real.typed:
        return f"{real.place.text}\n{_hook(real)}{route_command('replace', recipe.backstop)}"
    return {
        "ifupdown": "",
        "networkd": f"[Route]\nDestination=0.0.0.0/0\nType=unreachable\nMetric={recipe.backstop_metric}\n"
        f"Table={recipe.table}",
        "networkmanager": f"route2=0.0.0.0/0,,{recipe.backstop_metric}\n"
        f"route2_options=table={recipe.table},type=unreachable",
        "netplan": f"- to: 0.0.0.0/0\n  type: unreachable\n  metric: {netplan.LARGEST_METRIC}\n  table: {recipe.table}",
    }[config.manager]
