"""Causes that lie in policy routing: rule, order, table, name, and the two holes of the guide's recipe."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.agent_rules import (
    BACKSTOP_METRIC,
    FIXED_PRIORITY,
    LOCAL_PRIORITY,
    deciding_route,
    egress_without_uplink,
    free_priority,
    rules_for_agent,
    shadowing_rule,
)
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import EGRESS, Cause, command
from viacheck.model.iproute_text import route_command, rule_command
from viacheck.model.measurements import Measurements
from viacheck.parsers.rt_tables import clashes, number_of, registered

_DECIDES = EGRESS | {"ROUTE-05", "EGRESS-07"}


def rule_faulty(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """No rule, a rule for somebody else, or more rules than one."""
    if not resolved.intent.policy_routed or resolved.agent_source is None:
        return
    subnet, table = resolved.agent_subnet, resolved.table
    good = rules_for_agent(resolved)
    priority = free_priority(resolved, FIXED_PRIORITY)
    add = command("ip", "rule", "add", "priority", priority, "from", subnet, "lookup", table)
    remove = command("ip", "rule", "del", "priority", priority, "from", subnet, "lookup", table)
    if len(good) > 1:
        extra = good[1:] if len({rule.priority for rule in good}) > 1 else good[:-1]
        yield Cause(
            "RULE_DUPLICATED", "ROUTE-02",
            f"{len(good)} rules send {subnet} to table {table}; each 'post-up ip rule add' without a fixed priority "
            "leaves one more",
            remedy=tuple(rule_command("del", rule) for rule in extra),
            undo=tuple(rule_command("add", rule) for rule in extra),
        )  # fmt: skip
        return
    if good:
        return
    others = resolved.rules_to_the_table
    detached = [rule for rule in others if rule.iif_detached or rule.oif_detached]
    if detached:
        rule = detached[0]
        yield Cause(
            "RULE_DETACHED", "ROUTE-02",
            f"the rule '{rule}' names an interface that does not exist (any more), so it matches nothing",
            remedy=(add, rule_command("del", rule)), undo=(rule_command("add", rule), remove),
            explains=_DECIDES,
        )  # fmt: skip
    elif others:
        rule = others[0]
        yield Cause(
            "RULE_WRONG_SUBNET", "ROUTE-02",
            f"the rule '{rule}' does not cover the agent: its subnet is {subnet}"
            + (f", its address {resolved.agent_address}" if resolved.agent_address else ""),
            remedy=(add, rule_command("del", rule)), undo=(rule_command("add", rule), remove),
            explains=_DECIDES,
        )  # fmt: skip
    else:
        yield Cause(
            "RULE_MISSING", "ROUTE-02",
            f"no rule sends {subnet} to table {table}, so the main table decides for the agent's packets",
            remedy=(add,), undo=(remove,), explains=_DECIDES,
        )  # fmt: skip


def rule_shadowed(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """An earlier rule decides for the agent's packets."""
    if not resolved.intent.policy_routed or resolved.agent_source is None:
        return
    shadowing = shadowing_rule(resolved)
    if shadowing is None:
        return
    rule = shadowing.rule
    intended = rules_for_agent(resolved)[0]
    table = resolved.table
    before = free_priority(resolved, min(FIXED_PRIORITY, rule.priority - 1)) if rule.priority > 1 else None
    if before is not None:
        remedy = [
            command("ip", "rule", "add", "priority", before, "from", resolved.agent_subnet, "lookup", table),
            rule_command("del", intended),
        ]
        undo = [
            rule_command("add", intended),
            command("ip", "rule", "del", "priority", before, "from", resolved.agent_subnet, "lookup", table),
        ]
    else:
        remedy, undo = [rule_command("del", rule)], [rule_command("add", rule)]
    only = f" ({', '.join(shadowing.protocols)} only)" if shadowing.protocols else ""
    yield Cause(
        "RULE_SHADOWED", "ROUTE-03",
        f"the rule '{rule}' comes before '{intended}' and takes the agent's packets first{only}",
        remedy=tuple(remedy), undo=tuple(undo), explains=_DECIDES,
    )  # fmt: skip


def table_faulty(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The table has no default route, or one by another uplink or gateway."""
    if not resolved.intent.policy_routed:
        return
    table, uplink, gateway = resolved.table, resolved.uplink, str(resolved.intent.gateway)
    route = deciding_route(resolved)
    mend = command("ip", "route", "replace", "default", "via", gateway, "dev", uplink, "table", table)
    unmend = command("ip", "route", "del", "default", "via", gateway, "dev", uplink, "table", table)
    if route is None or not route.nexthops:
        backstop = f" but the backstop '{route}'" if route is not None else ""
        yield Cause(
            "TABLE_EMPTY", "ROUTE-04",
            f"table {table} has no default route{backstop}: a link that went down, a lost lease or a re-created device "
            "takes the route with it and nothing brings it back",
            remedy=(mend,), undo=(unmend,), explains=_DECIDES,
        )  # fmt: skip
        return
    old = route_command("replace", route)
    interfaces = {hop.interface for hop in route.nexthops}
    if interfaces != {uplink}:
        by = " and ".join(sorted(str(name) for name in interfaces))
        yield Cause(
            "TABLE_WRONG_UPLINK", "ROUTE-04", f"table {table} leads out by {by}, not by {uplink} alone: {route}",
            remedy=(mend,), undo=(old,), explains=_DECIDES | EGRESS,
        )  # fmt: skip
    elif any(hop.gateway != gateway for hop in route.nexthops) or not resolved.on_link(gateway, uplink):
        found = ", ".join(sorted(str(hop.gateway) for hop in route.nexthops))
        off_link = "" if resolved.on_link(found, uplink) else f", which is not in {uplink}'s subnet"
        yield Cause(
            "TABLE_WRONG_GATEWAY", "ROUTE-04",
            f"table {table} leads to gateway {found}{off_link}; the intent says {gateway}",
            remedy=(mend,), undo=(old,), explains=_DECIDES | EGRESS,
        )  # fmt: skip


def table_name_faulty(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The table's name is not registered, or names and numbers clash."""
    name, number = resolved.intent.egress.table_name, resolved.intent.egress.table
    if name is None or number is None:
        return
    entries = registered(resolved.snapshot.files)
    clash = clashes(entries, name, number)
    path = "/etc/iproute2/rt_tables"
    line = f"{number} {name}"
    undo = (f"sed -i '/^{line}$/d' {path}",)
    if clash:
        drop = [f"sed -i '{entry.line}s/^/# /' {command(entry.path)}" for entry in clash]
        back = [f"sed -i '{entry.line}s/^# //' {command(entry.path)}" for entry in clash]
        have = number_of(entries, name) == number and not any(e.name == name and e.number == number for e in clash)
        also = (
            () if have or any(e.name == name and e.number == number for e in entries) else (f"echo {line} >> {path}",)
        )
        yield Cause(
            "TABLE_ID_CLASH", "ROUTE-01",
            "names and numbers of routing tables clash: "
            + "; ".join(f"{entry.path}:{entry.line} says {entry.number} {entry.name}" for entry in clash)
            + f"; the intent says {line}",
            remedy=(*drop, *also), undo=(*(undo if also else ()), *back),
        )  # fmt: skip
    elif number_of(entries, name) is None:
        yield Cause(
            "TABLE_NAME_MISSING", "ROUTE-01",
            f"no table is named {name}: 'ip rule … lookup {name}' is refused and an ifup that uses it stops half way; "
            "numbers always work",
            remedy=(f"echo {line} >> {path}",), undo=undo, explains=frozenset({"PERSIST-02", "FLAP-03", "FLAP-08"}),
        )  # fmt: skip


def local_networks_lost(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The rule sends what is local to the uplink's gateway as well."""
    if not resolved.intent.policy_routed or resolved.agent_subnet is None:
        return
    first = shadowing_rule(resolved)
    # A rule that shadows is mended by one right before it; this one must come before that.
    priority = min(LOCAL_PRIORITY, first.rule.priority - 2) if first is not None else LOCAL_PRIORITY
    rule = ("priority", priority, "from", resolved.agent_subnet, "lookup", "main", "suppress_prefixlength", 0)
    yield Cause(
        "LOCAL_NETS_LOST", "ROUTE-06",
        f"the rule sends everything from {resolved.agent_subnet} to table {resolved.table}, which knows no local "
        "network: replies to the host and traffic to its own networks go to the uplink's gateway",
        remedy=(command("ip", "rule", "add", *rule),), undo=(command("ip", "rule", "del", *rule),),
    )  # fmt: skip


def fails_open(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """With the uplink away, the agent's packets would find another way out."""
    other = egress_without_uplink(resolved)
    if other is None:
        return
    backstop = ("unreachable", "default", "metric", BACKSTOP_METRIC, "table", resolved.table)
    mends = resolved.intent.policy_routed
    yield Cause(
        "FAIL_OPEN", "ROUTE-07",
        f"when {resolved.uplink} goes down the kernel removes the routes by it and keeps the rules: "
        f"the agent's packets would leave by {other}",
        remedy=(command("ip", "route", "add", *backstop),) if mends else (),
        undo=(command("ip", "route", "del", *backstop),) if mends else (),
        explains=frozenset({"FLAP-06"}),
    )  # fmt: skip
