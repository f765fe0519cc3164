"""What is wrong with what is written down: it must run twice, in boot order, and beside other managers (PERSIST-02).

Each finding names file, line, code, what happens, and the line to write instead. That what is written really can run
twice is proven by running it (see :mod:`.proof`); :func:`seen` turns what that has shown into findings as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.config_entry import ParseProblem, Place, WrittenRemoval, WrittenRoute, WrittenRule
from viacheck.model.measurements import ReplayResult
from viacheck.persistence import netplan, networkd_lint
from viacheck.persistence.assess import Persistence, is_the_table
from viacheck.persistence.config_writer import Recipe, recipe_for
from viacheck.persistence.finding import Finding
from viacheck.persistence.manager_config import OWN_NAMES, Written

_FLUSHED = ("dhcp", "static")
"""Methods of ifupdown that take the interface down, which takes its routes with it (interfaces(5))."""
_OF_A_LEASE = re.compile(r"\$\{?(?:new|old)_\w+\}?")
"""Variables of dhclient-script(8)."""
_GIVES_ADDRESS = re.compile(r"\bip\s+(?:-\S+\s+)*a[a-z]*\s+(?:a|add|replace)\s")


def seen(proof: ReplayResult, persistence: Persistence, recipe: Recipe) -> list[Finding]:
    """What a proof has shown that no line reads like, with the lines to write instead of those that it was seen of."""
    if proof.fault is None:
        return []
    instead: list[tuple[Place, str]] = []
    if proof.fault in ("RULES_ACCUMULATE", "NOT_IDEMPOTENT"):
        # What else reads wrong was found without running it: here a guard is never true, or a removal never fits.
        doubtful = [rule for rule in persistence.rules if rule.typed and (rule.guarded or not rule.has_priority)]
        instead += [(rule.place, _instead(rule, recipe)) for rule in doubtful]
    if proof.fault in ("ROUTE_NOT_RESTORED", "NOT_IDEMPOTENT"):
        doubted = [route for route in persistence.routes if route.typed and (route.guarded or route.verb != "replace")]
        instead += [(route.place, _better(route, recipe)) for route in doubted]
    found = [Finding(proof.fault, place, proof.sentence, line) for place, line in instead]
    return found or [Finding(proof.fault, persistence.places[0], proof.sentence)]


def findings_of(resolved: ResolvedIntent, persistence: Persistence) -> list[Finding]:
    """Return what is wrong with the entries of the agent's rule and route, the breaking findings first."""
    recipe = recipe_for(resolved)
    return lint(resolved, persistence, recipe) if recipe is not None else []


def lint(resolved: ResolvedIntent, persistence: Persistence, recipe: Recipe) -> list[Finding]:
    """Find what is wrong with what is written down for the agent, what breaks first."""
    if persistence.manager is None:
        return []
    mine = persistence.written[persistence.manager]
    found = [
        *_unregistered(persistence, mine, recipe),
        *(one for rule in persistence.rules for one in _rule(persistence.reading_of(rule), rule, recipe)),
        *(one for route in persistence.routes for one in _route(resolved, mine, route, recipe)),
        *_refused(mine),
        *networkd_lint.purged(resolved, persistence),
        *networkd_lint.goes_with_its_link(resolved, persistence, recipe),
        *_backstop(resolved, persistence, mine, recipe),
    ]
    return sorted(found, key=lambda finding: not finding.breaks)


def _unregistered(persistence: Persistence, mine: Written, recipe: Recipe) -> Iterator[Finding]:
    """Names of tables that whoever reads the line does not know."""
    for entry in persistence.entries:
        if entry.table_known:
            continue
        if entry.typed:
            sentence = f"the name {entry.table} is in no rt_tables: ip refuses it, and what comes after it is not run"
        elif mine.manager == "networkd":
            sentence = (
                f"systemd-networkd knows the name {entry.table} only by RouteTable= in networkd.conf: it ignores this"
            )
        else:
            sentence = f"{OWN_NAMES[mine.manager]} takes a table by number, not by the name {entry.table}"
        number = str(recipe.table)
        line = entry.place.text.replace(entry.table, number)
        yield Finding("TABLE_NAME_MISSING", entry.place, sentence, line, by_line=line != entry.place.text)


def _rule(written: Written, rule: WrittenRule, recipe: Recipe) -> Iterator[Finding]:
    if not rule.typed:
        if not rule.has_priority:
            yield Finding(
                "NOT_IDEMPOTENT", rule.place,
                "no priority: the kernel puts the rule before all that are there at that moment, so that its place "
                "depends on what came up first",
                _own_priority(written, rule, recipe), breaks=False, by_line=written.manager == "networkd",
            )  # fmt: skip
        return
    removals = list(_removals(written, rule))
    removed = bool(removals)
    lines = _instead(rule, recipe)
    if not rule.has_priority and not removed and not rule.guarded:
        yield Finding(
            "RULES_ACCUMULATE", rule.place,
            "no fixed priority: each run adds one more rule, and each succeeds", lines,
        )  # fmt: skip
    elif not rule.has_priority:
        yield Finding(
            "NOT_IDEMPOTENT", rule.place,
            "no fixed priority: the kernel puts the rule before all that are there at that moment", lines, breaks=False,
        )  # fmt: skip
    elif not removed and not rule.guarded and not rule.failure_tolerated:
        yield Finding(
            "NOT_IDEMPOTENT", rule.place,
            "'add' where the rule is still there says 'File exists' and ends with 2: what comes after it is not run",
            lines,
        )  # fmt: skip

    for removal, before in removals:
        if before and removal.interface is not None and not removal.failure_tolerated and removal.rule is not None:
            yield Finding(
                "NOT_IDEMPOTENT", removal.place,
                "'del' where the rule is not there yet says 'No such file or directory' and ends with 2: at the first "
                "ifup what comes after it is not run", f"{removal.place.text} 2>/dev/null || true",
            )  # fmt: skip


def _own_priority(written: Written, rule: WrittenRule, recipe: Recipe) -> str:
    if written.manager == "networkd":
        return f"{rule.place.text}\nPriority={recipe.priority}"
    return f"priority: {recipe.priority}"


def _instead(rule: WrittenRule, recipe: Recipe) -> str:
    """The line that can run any number of times.

    A rule that is there stays: between a deletion and an addition packets would leave by the main table.
    """
    priority = rule.rule.priority if rule.has_priority else recipe.priority
    hook = "post-up " if rule.interface is not None else ""
    return (
        f"{hook}ip rule add priority {priority} from {rule.rule.source or recipe.source} lookup {recipe.table} "
        "2>/dev/null || true"
    )


def _removals(written: Written, rule: WrittenRule) -> Iterator[tuple[WrittenRemoval, bool]]:
    """What takes the rule away, and whether it does so before the rule is added; what comes after it does not help."""
    before = True
    for entry in written.entries:
        before = before and entry is not rule
        if not isinstance(entry, WrittenRemoval) or entry.kind != "rule" or entry.interface != rule.interface:
            continue
        if (before or entry.phase in ("down", "post-down")) and _takes(entry, rule):
            yield entry, before


def _takes(removal: WrittenRemoval, rule: WrittenRule) -> bool:
    """Whether what a removal names is true of the rule; what it does not name, it takes whatever it is."""
    named = removal.rule
    return named is None or (
        (not removal.by_priority or (rule.has_priority and named.priority == rule.rule.priority))
        and (named.source is None or named.source == rule.rule.source)
        and (named.iif is None or named.iif == rule.rule.iif)
        and (not removal.by_table or named.table == rule.rule.table)
    )


def _route(resolved: ResolvedIntent, mine: Written, route: WrittenRoute, recipe: Recipe) -> Iterator[Finding]:
    if not route.typed:
        return
    better = _better(route, recipe)
    if route.phase == "pre-up":
        yield Finding(
            "ROUTE_NOT_RESTORED", route.place,
            "the route is asked for before the interface is up and has its address: the kernel refuses it, and ifup "
            "stops there", better,
        )  # fmt: skip
    stanza = mine.stanza(route.interface) if route.interface else None
    if stanza is not None and route.phase == "up":
        yield from _before_the_lease(resolved, route, stanza.method, better)
    if route.verb in ("add", "append", "prepend") and not route.failure_tolerated and not route.guarded:
        flushed = stanza is not None and stanza.method in _FLUSHED
        after = "; the link going down takes it away, so that this shows only where it did not" if flushed else ""
        yield Finding(
            "NOT_IDEMPOTENT", route.place,
            f"'{route.verb}' where the route is still there says 'File exists' and ends with 2{after}", better,
            breaks=not flushed,
        )  # fmt: skip


def _better(route: WrittenRoute, recipe: Recipe) -> str:
    """The line that can run any number of times."""
    return f"{'post-up ' if route.interface is not None else ''}ip route replace {recipe.route}"


def _before_the_lease(resolved: ResolvedIntent, route: WrittenRoute, method: str, better: str) -> Iterator[Finding]:
    """A route that needs what a lease brings, and is asked for without waiting for one."""
    unset = _OF_A_LEASE.search(route.place.text)
    if unset is not None:
        yield Finding(
            "ROUTE_NOT_RESTORED", route.place,
            f"'{unset[0]}' is known to the hooks of dhclient-script alone, and is empty when ifupdown runs this line",
            better,
        )  # fmt: skip
        return
    file = resolved.snapshot.file(route.place.path)
    addressed = file is not None and _GIVES_ADDRESS.search(file.text)
    if method == "manual" and any(hop.gateway for hop in route.route.nexthops) and not addressed:
        yield Finding(
            "ROUTE_NOT_RESTORED", route.place,
            f"ifupdown gives {route.interface} no address (method manual): this is run whether or not the lease of "
            "another program is there, and without it the kernel refuses a route by a gateway",
            breaks=False,
        )  # fmt: skip


def _refused(mine: Written) -> Iterator[Finding]:
    """Where the manager itself stops reading."""
    for problem in mine.problems:
        if mine.manager == "ifupdown" and "read no further" in problem.reason:
            yield Finding("NOT_IDEMPOTENT", _place(problem), problem.reason)
        elif mine.manager == "networkmanager" and "refuses" in problem.reason:
            yield Finding("NOT_PERSISTENT", _place(problem), problem.reason)


def _place(problem: ParseProblem) -> Place:
    return Place(problem.path, problem.line)


def _backstop(resolved: ResolvedIntent, persistence: Persistence, mine: Written, recipe: Recipe) -> Iterator[Finding]:
    """No route in the table that holds while the real one is away."""
    if not persistence.routes:
        return
    for written in persistence.written.values():
        for route in written.routes:
            stops = (
                route.route.type in ("unreachable", "blackhole", "prohibit") and route.route.destination == "0.0.0.0/0"
            )
            if not stops or not is_the_table(resolved, route.route.table or None, route.table):
                continue
            if written.manager == "netplan" and route.route.metric > netplan.LARGEST_METRIC:
                yield Finding(
                    "FAIL_OPEN", route.place,
                    f"netplan 0.106 writes a metric above {netplan.LARGEST_METRIC} as a negative number, which "
                    "systemd-networkd refuses: without a metric the route is not set beside the real one",
                    f"metric: {netplan.LARGEST_METRIC}", breaks=False, by_line=False,
                )  # fmt: skip
                return
            if not route.place.volatile:
                return
    real = persistence.routes[0]
    place, hook = real.place, "post-up " if real.interface else ""
    instead = {
        "ifupdown": "",
        "networkd": f"[Route]\nDestination=0.0.0.0/0\nType=unreachable\nMetric={recipe.backstop_metric}\n"
        f"Table={recipe.table}",
        "networkmanager": f"route2=0.0.0.0/0,,{recipe.backstop_metric}\n"
        f"route2_options=table={recipe.table},type=unreachable",
        "netplan": f"- to: 0.0.0.0/0\n  type: unreachable\n  metric: {netplan.LARGEST_METRIC}\n  table: {recipe.table}",
    }[mine.manager]
    if real.typed:
        instead = f"{place.text}\n{hook}ip route replace {recipe.backstop}"
    yield Finding(
        "FAIL_OPEN", place,
        f"no unreachable route stands behind this one: while {recipe.uplink} is away its table is empty, and the "
        "agent's packets leave by the main table",
        instead,
        breaks=False,
        by_line=real.typed,
    )  # fmt: skip
