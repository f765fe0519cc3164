"""Causes that lie in policy routing: rule, order, table, name, and the two holes of the guide's recipe."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import EGRESS, Cause, command
from viacheck.model.measurements import Measurements
from viacheck.model.snapshot import Route, Rule
from viacheck.parsers.rt_tables import clashes, number_of, registered

_DECIDES = EGRESS | {"ROUTE-05", "EGRESS-07"}
FIXED_PRIORITY = 1000
LOCAL_PRIORITY = 990
BACKSTOP_METRIC = 4278198272
"""The metric that FAILURES.md proposes: worse than anything a network manager installs."""


def rule_words(rule: Rule) -> str:
    """The rule as ``ip rule add`` and ``ip rule del`` take it."""
    return str(rule).replace(" [detached]", "")


def selects_agent(resolved: ResolvedIntent, rule: Rule) -> bool:
    """Whether a rule's source covers the agent's whole subnet, or the packet's mark or interface selects it."""
    if rule.iif_detached or rule.oif_detached:
        return False
    if rule.source is not None:
        covered = resolved.agent_subnet or resolved.agent_source
        if covered is None or not ip_network(str(covered)).subnet_of(ip_network(rule.source)):  # type: ignore[arg-type]
            return False
    if rule.iif is not None and rule.iif != resolved.bridge:
        return False
    if rule.fwmark is not None:
        mask = rule.fwmask if rule.fwmask is not None else 0xFFFFFFFF
        return resolved.agent_mark & mask == rule.fwmark & mask
    return rule.source is not None or rule.iif is not None


def rules_for_agent(resolved: ResolvedIntent) -> list[Rule]:
    """The rules that send the agent's packets to the intent's table, in order."""
    return [rule for rule in resolved.rules_to_the_table if selects_agent(resolved, rule)]


def _free_priority(resolved: ResolvedIntent, wanted: int) -> int:
    taken = {rule.priority for rule in resolved.snapshot.host.rules_of(4)}
    return next(priority for priority in range(wanted, 0, -1) if priority not in taken)


def rule_faulty(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """No rule, a rule for somebody else, or more rules than one."""
    if not resolved.intent.policy_routed or resolved.agent_source is None:
        return
    subnet, table = resolved.agent_subnet, resolved.table
    good = rules_for_agent(resolved)
    priority = _free_priority(resolved, FIXED_PRIORITY)
    add = command("ip", "rule", "add", "priority", priority, "from", subnet, "lookup", table)
    remove = command("ip", "rule", "del", "priority", priority, "from", subnet, "lookup", table)
    if len(good) > 1:
        extra = good[1:] if len({rule.priority for rule in good}) > 1 else good[:-1]
        yield Cause(
            "RULE_DUPLICATED", "ROUTE-02",
            f"{len(good)} rules send {subnet} to table {table}; each 'post-up ip rule add' without a fixed priority "
            "leaves one more",
            remedy=tuple(f"ip rule del {rule_words(rule)}" for rule in extra),
            undo=tuple(f"ip rule add {rule_words(rule)}" for rule in extra),
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
            remedy=(add, f"ip rule del {rule_words(rule)}"), undo=(f"ip rule add {rule_words(rule)}", remove),
            explains=_DECIDES,
        )  # fmt: skip
    elif others:
        rule = others[0]
        yield Cause(
            "RULE_WRONG_SUBNET", "ROUTE-02",
            f"the rule '{rule}' does not cover the agent: its subnet is {subnet}"
            + (f", its address {resolved.agent_address}" if resolved.agent_address else ""),
            remedy=(add, f"ip rule del {rule_words(rule)}"), undo=(f"ip rule add {rule_words(rule)}", remove),
            explains=_DECIDES,
        )  # fmt: skip
    else:
        yield Cause(
            "RULE_MISSING", "ROUTE-02",
            f"no rule sends {subnet} to table {table}, so the main table decides for the agent's packets",
            remedy=(add,), undo=(remove,), explains=_DECIDES,
        )  # fmt: skip


def shadowing_rule(resolved: ResolvedIntent) -> tuple[Rule, str] | None:
    """The earlier rule that decides for the agent's packets in place of the intended one, and for which protocols."""
    if not rules_for_agent(resolved):
        return None
    taken: dict[Rule, list[str]] = {}
    for protocol in resolved.intent.probe.protocols:
        rule = resolved.agent_decision(protocol).rule
        if rule is not None and rule not in resolved.rules_to_the_table:
            taken.setdefault(rule, []).append(protocol)
    intended = rules_for_agent(resolved)[0]
    order = list(resolved.snapshot.host.rules_of(4))
    for rule, protocols in taken.items():
        if order.index(rule) < order.index(intended):
            everything = len(protocols) == len(resolved.intent.probe.protocols)
            return rule, "" if everything else ", ".join(protocols)
    return None


def rule_shadowed(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """An earlier rule decides for the agent's packets."""
    if not resolved.intent.policy_routed or resolved.agent_source is None:
        return
    found = shadowing_rule(resolved)
    if found is None:
        return
    rule, protocols = found
    intended = rules_for_agent(resolved)[0]
    table = resolved.table
    before = _free_priority(resolved, min(FIXED_PRIORITY, rule.priority - 1)) if rule.priority > 1 else None
    if before is not None:
        remedy = [
            command("ip", "rule", "add", "priority", before, "from", resolved.agent_subnet, "lookup", table),
            f"ip rule del {rule_words(intended)}",
        ]
        undo = [
            f"ip rule add {rule_words(intended)}",
            command("ip", "rule", "del", "priority", before, "from", resolved.agent_subnet, "lookup", table),
        ]
    else:
        remedy, undo = [f"ip rule del {rule_words(rule)}"], [f"ip rule add {rule_words(rule)}"]
    only = f" ({protocols} only)" if protocols else ""
    yield Cause(
        "RULE_SHADOWED", "ROUTE-03",
        f"the rule '{rule}' comes before '{intended}' and takes the agent's packets first{only}",
        remedy=tuple(remedy), undo=tuple(undo), explains=_DECIDES,
    )  # fmt: skip


def deciding_route(resolved: ResolvedIntent) -> Route | None:
    """The route of the intent's table that covers the probe target: the longest prefix, then the lowest metric."""
    target = ip_address(resolved.target)
    covering = [route for route in resolved.table_routes if target in route.network and route.type != "throw"]
    return min(covering, key=lambda route: (-route.network.prefixlen, route.metric), default=None)


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
    old = f"ip route replace {route}"
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
    priority = min(LOCAL_PRIORITY, first[0].priority - 2) if first is not None else LOCAL_PRIORITY
    rule = ("priority", priority, "from", resolved.agent_subnet, "lookup", "main", "suppress_prefixlength", 0)
    yield Cause(
        "LOCAL_NETS_LOST", "ROUTE-06",
        f"the rule sends everything from {resolved.agent_subnet} to table {resolved.table}, which knows no local "
        "network: replies to the host and traffic to its own networks go to the uplink's gateway",
        remedy=(command("ip", "rule", "add", *rule),), undo=(command("ip", "rule", "del", *rule),),
    )  # fmt: skip


def fails_open_by(resolved: ResolvedIntent) -> str | None:
    """The uplink by which the agent's packets would leave while the intended one is down; None when there is none."""
    if resolved.agent_source is None:
        return None
    decision = resolved.decision_without_uplink
    return decision.interface if decision.outcome == "unicast" else None


def fails_open(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """With the uplink away, the agent's packets would find another way out."""
    other = fails_open_by(resolved)
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
