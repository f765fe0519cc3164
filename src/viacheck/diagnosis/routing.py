"""Causes in policy routing: the rule, its order, the table, its name, and the two gaps of the guide's recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from viacheck.analysis.agent_rules import (
    BACKSTOP_METRIC,
    FIXED_PRIORITY,
    KERNELS_TABLES,
    LOCAL_PRIORITY,
    ShadowingRule,
    copies,
    covers_subnet,
    decided_by,
    deciding_route,
    egress_without_uplink,
    free_priority,
    rule_past_main,
    rules_for_agent,
    shadowing_rule,
)
from viacheck.analysis.default_routes import (
    default_pieces,
    default_route_by,
    local_prefixlength,
    reaches_gateway,
)
from viacheck.analysis.gateway_facts import gateway_facts
from viacheck.analysis.local_networks import led_away
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.routing.packet import Packet
from viacheck.analysis.table_names import clashes, named_rule, number_of
from viacheck.diagnosis.answer_route import correcting_answers
from viacheck.diagnosis.cause import EGRESS, Cause
from viacheck.diagnosis.remedy import (
    NO_REMEDY,
    Command,
    Remedy,
    command,
    remedy_of,
)
from viacheck.diagnosis.remedy_effect import after_steps
from viacheck.diagnosis.site_file import CORRECT_GATEWAY, gateway_line
from viacheck.model.measurements import Measurements
from viacheck.model.policy_rule import Rule, rule_argv, rule_text
from viacheck.model.route import Route, route_argv
from viacheck.model.routing_names import TABLE_MAIN
from viacheck.model.snapshot import Snapshot
from viacheck.parsers.rt_tables import registered
from viacheck.persistence.file_edit import Edit, comment_out, in_diffs, insert_lines, new_file
from viacheck.persistence.unified_diff import KnownLines

RT_TABLES = "/etc/iproute2/rt_tables"
_DECIDES = EGRESS | {"ROUTE-05", "EGRESS-07"}


def _add(rule: Rule) -> Command:
    return command(*rule_argv("add", rule))


def _delete(rule: Rule) -> Command:
    return command(*rule_argv("del", rule))


def rule_faulty(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that no rule, a rule for another subnet, or more than one rule leads to the table."""
    if not resolved.intent.policy_routed or resolved.agent_source is None:
        return
    subnet, table = resolved.agent_subnet, resolved.table
    matching, others = rules_for_agent(resolved), resolved.rules_to_the_table
    before, decided = (FIXED_PRIORITY, "") if matching else decided_by(resolved)
    selector = ("priority", free_priority(resolved, before), "from", subnet, "lookup", table)
    add, delete = command("ip", "rule", "add", *selector), command("ip", "rule", "del", *selector)
    if copied := copies(matching):
        extra = [rule for group in copied for rule in _all_but_first(group)]
        yield Cause(
            "RULE_DUPLICATED", "ROUTE-02",
            f"{' and '.join(_copies_text(group) for group in copied)}; each 'post-up ip rule add' without a fixed "
            "priority adds a copy",
            Remedy(tuple(map(_delete, extra)), tuple(map(_add, extra))),
        )  # fmt: skip
        return
    if matching:
        rule = matching[0]
        if not any(covers_subnet(resolved, rule) for rule in matching):
            yield Cause(
                "RULE_FOR_ONE_ADDRESS", "ROUTE-02",
                f"the rule '{named_rule(resolved, rule)}' selects the agent's present address {resolved.agent_address} "
                f"and not its subnet {subnet}: an agent that gets another address leaves by the main table",
                Remedy((add, _delete(rule)), (_add(rule), delete)),
            )  # fmt: skip
        return
    detached = [rule for rule in others if rule.iif_detached or rule.oif_detached]
    if detached:
        rule = detached[0]
        yield Cause(
            "RULE_DETACHED", "ROUTE-02",
            f"the rule '{named_rule(resolved, rule)}' names an interface that does not exist, so it matches no packet",
            Remedy((add, _delete(rule)), (_add(rule), delete)), _DECIDES,
        )  # fmt: skip
    elif others:
        rule = others[0]
        own = f", its address {resolved.agent_address}" if resolved.agent_address else ""
        yield Cause(
            "RULE_WRONG_SUBNET", "ROUTE-02",
            f"the rule '{named_rule(resolved, rule)}' does not cover the agent: its subnet is {subnet}{own}",
            Remedy((add, _delete(rule)), (_add(rule), delete)), _DECIDES,
        )  # fmt: skip
    else:
        yield Cause(
            "RULE_MISSING", "ROUTE-02",
            f"no rule sends {subnet} to table {table}, {decided}",
            Remedy((add,), (delete,)), _DECIDES,
        )  # fmt: skip


def _all_but_first(group: list[Rule]) -> list[Rule]:
    """Return all copies of a rule but the first; of copies with one priority ip deletes the first of them."""
    return group[1:] if len({rule.priority for rule in group}) > 1 else group[:-1]


def _copies_text(group: list[Rule]) -> str:
    priorities = ", ".join(str(rule.priority) for rule in group)
    return (
        f"the rule '{rule_text(group[0], with_priority=False)}' is there {len(group)} times (priorities {priorities})"
    )


def rule_shadowed(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find an earlier rule that decides for the agent's packets."""
    if not resolved.intent.policy_routed or resolved.agent_source is None:
        return
    shadowing = shadowing_rule(resolved)
    if shadowing is None:
        return
    rule, intended = shadowing.rule, rules_for_agent(resolved)[0]
    specific = _specific_route(resolved, shadowing)
    if rule.suppress_prefixlength is not None and rule.table is not None:
        suppressed = local_prefixlength(resolved.snapshot.host.table(rule.table))
        if rule.suppress_prefixlength < suppressed:
            mended = replace(rule, suppress_prefixlength=suppressed)
            yield Cause(
                "RULE_SHADOWED", "ROUTE-03",
                f"the rule '{named_rule(resolved, rule)}' comes before '{named_rule(resolved, intended)}' "
                "and lets a default in pieces through ("
                f"{_pieces_text(resolved.snapshot.host.table(rule.table))}, as a VPN adds): its suppress_prefixlength "
                f"{rule.suppress_prefixlength} stops shorter prefixes only",
                Remedy((_delete(rule), _add(mended)), (_delete(mended), _add(rule))), _DECIDES | {"ROUTE-07"},
            )  # fmt: skip
            return
    if specific is not None and rule.priority > 1:
        before = free_priority(resolved, rule.priority - 1)
        to_prefix = (
            "priority", before, "from", resolved.agent_subnet, "to", specific.destination, "lookup", resolved.table
        )  # fmt: skip
        yield Cause(
            "RULE_SHADOWED", "ROUTE-03",
            f"the rule '{named_rule(resolved, rule)}' comes before '{named_rule(resolved, intended)}', "
            f"and the route {specific} that it finds leads past "
            f"{resolved.uplink}",
            correcting_answers(
                resolved,
                Remedy((command("ip", "rule", "add", *to_prefix),), (command("ip", "rule", "del", *to_prefix),)),
            ),
            _DECIDES | {"ROUTE-07"},
        )  # fmt: skip
        return
    if rule.priority > 1:
        before = free_priority(resolved, min(FIXED_PRIORITY, rule.priority - 1))
        selector = ("priority", before, "from", resolved.agent_subnet, "lookup", resolved.table)
        remedy = Remedy(
            (command("ip", "rule", "add", *selector), _delete(intended)),
            (_add(intended), command("ip", "rule", "del", *selector)),
        )
    else:
        remedy = Remedy((_delete(rule),), (_add(rule),))
    keeping = _keeping_local_networks(resolved, remedy, rule.priority)
    only = f" ({', '.join(shadowing.protocols)} only)" if shadowing.protocols else ""
    yield Cause(
        "RULE_SHADOWED", "ROUTE-03",
        f"the rule '{named_rule(resolved, rule)}' comes before '{named_rule(resolved, intended)}' "
        f"and decides for the agent's packets first{only}",
        correcting_answers(resolved, keeping), _DECIDES | ({"ROUTE-06"} if keeping != remedy else set()),
    )  # fmt: skip


def _keeping_local_networks(resolved: ResolvedIntent, remedy: Remedy, shadowing: int) -> Remedy:
    """Return a remedy that keeps the agent's way to the host's own networks, where the remedy alone would move it.

    Its rule comes before the agent's rule, which the remedy puts before the shadowing rule of that priority.
    """
    after = after_steps(resolved, remedy.steps)
    gateways = [str(uplink.gateway) for uplink in resolved.intent.uplinks.values() if uplink.gateway is not None]
    if after is None or all(_way(resolved, gateway) in (None, _way(after, gateway)) for gateway in gateways):
        return remedy
    selector = _local_selector(after, free_priority(after, min(LOCAL_PRIORITY, shadowing - 2)))
    return Remedy(
        (command("ip", "rule", "add", *selector), *remedy.steps),
        (*remedy.rollback, command("ip", "rule", "del", *selector)),
    )


def _way(resolved: ResolvedIntent, address: str) -> str | None:
    """Return the interface by which the agent's packets reach an address of a local network; None when they do not."""
    decision = resolved.model.decide(resolved.agent_packet(destination=address))
    local = decision.interface is not None and resolved.on_link(address, decision.interface)
    return decision.interface if local and decision.gateway is None else None


def _local_selector(resolved: ResolvedIntent, priority: int) -> tuple[object, ...]:
    """Return the rule that keeps local networks local, as arguments of ip."""
    return (
        "priority", priority, "from", resolved.agent_subnet, "lookup", "main", "suppress_prefixlength",
        local_prefixlength(resolved.snapshot.host.table(TABLE_MAIN)),
    )  # fmt: skip


def _pieces_text(routes: Sequence[Route]) -> str:
    """Return the prefixes of a default in pieces: ``0.0.0.0/1 and 128.0.0.0/1``."""
    *others, last = dict.fromkeys(route.destination for route in default_pieces(routes))
    return f"{', '.join(others)} and {last}" if others else last


def _specific_route(resolved: ResolvedIntent, shadowing: ShadowingRule) -> Route | None:
    """Return the route that a rule for local networks lets through to the probe target, if it is no default."""
    if shadowing.rule.suppress_prefixlength is None or shadowing.rule.table is None:
        return None
    route = resolved.agent_decision(shadowing.protocols[0] if shadowing.protocols else None).route
    pieces = default_pieces(resolved.snapshot.host.table(shadowing.rule.table))
    return None if route is None or route.is_default or route in pieces else route


def taken_by_rule(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find a rule, meant for another agent or left behind, that takes the packets of an agent without a table."""
    taking = rule_past_main(resolved)
    if taking is None:
        return
    decision = resolved.agent_decision(taking.protocols[0] if taking.protocols else None)
    by = " or ".join(sorted(decision.interfaces)) or "no interface"
    only = f" ({', '.join(taking.protocols)} only)" if taking.protocols else ""
    remedy = _by_main_table(resolved, taking.rule)
    instead = "" if remedy == NO_REMEDY else ". Remove that rule instead if nothing on this host needs it"
    yield Cause(
        "RULE_SHADOWED", "ROUTE-05",
        f"the agent has no table of its own, so the main table should decide for its packets; the rule "
        f"'{named_rule(resolved, taking.rule)}' "
        f"selects {resolved.agent_source} as well and decides first{only}, and they leave by {by}{instead}",
        remedy, EGRESS | {"ROUTE-06"},
        decision=None if remedy.steps else f"remove the rule '{named_rule(resolved, taking.rule)}' "
        "if it is a mistake; if it is meant, give "
        f"the agent a rule of its own before it, or name {by} as the agent's uplink in the site file",
    )  # fmt: skip


def table_not_in_site_file(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find a rule that sends an agent to a table which the intent does not name, and out by the intended uplink."""
    if resolved.intent.policy_routed or resolved.agent_source is None or resolved.sent_by_host:
        return
    decision = resolved.agent_decision(resolved.intent.probe.protocols[0])
    if decision.table in (None, *KERNELS_TABLES) or decision.interfaces != {resolved.uplink}:
        return
    yield Cause(
        "RULE_SHADOWED", "ROUTE-05",
        f"the agent's packets leave by {resolved.uplink} as intended, by the rule "
        f"'{named_rule(resolved, decision.rule)}' and not by the "
        "main table: the site file names no table for this agent",
        also_affects=frozenset({"ROUTE-06"}), site_file=("[egress]", f"table = {decision.table}"),
        decision=f"name table {decision.table} in the site file if that rule is meant for this agent, so that rule and "
        "table are judged too; else remove the rule",
    )  # fmt: skip


def _by_main_table(resolved: ResolvedIntent, taking: Rule) -> Remedy:
    """Return the rules that let the main table decide for one agent, before the rule that takes its packets.

    They are for its address alone: other agents of the subnet may need that rule. Empty where they do not help.
    """
    own = resolved.agent_address
    if own is None or taking.priority <= 1:
        return NO_REMEDY
    remedy = correcting_answers(resolved, _main_decides(resolved, "from", own, taking))
    after = after_steps(resolved, remedy.steps)
    if after is not None and any(_to_agent_elsewhere(after, str(address)) for address in _bridge_addresses(after)):
        # The host's own answers have an address of the subnet too.
        back = _main_decides(after, "to", own, taking)
        remedy = Remedy((*remedy.steps, *back.steps), (*back.rollback, *remedy.rollback))
        after = after_steps(resolved, remedy.steps)
    protocols = resolved.intent.probe.protocols
    helps = after is not None and all(
        after.agent_decision(protocol).interfaces == {resolved.uplink} for protocol in protocols
    )
    return remedy if helps else NO_REMEDY


def _main_decides(resolved: ResolvedIntent, direction: str, address: str, taking: Rule) -> Remedy:
    priority = free_priority(resolved, min(FIXED_PRIORITY, taking.priority - 1))
    selector = ("priority", priority, direction, address, "lookup", "main")
    return Remedy((command("ip", "rule", "add", *selector),), (command("ip", "rule", "del", *selector),))


def _bridge_addresses(resolved: ResolvedIntent) -> list[str]:
    addresses = resolved.snapshot.host.addresses_of(resolved.bridge) if resolved.bridge is not None else ()
    return [address.address for address in addresses]


def _to_agent_elsewhere(resolved: ResolvedIntent, source: str) -> bool:
    """Whether the host's own packets from an address of the agent's bridge do not go to the agent by that bridge."""
    decision = resolved.model.decide(Packet(source=source, destination=str(resolved.agent_address)))
    return decision.interfaces != {resolved.bridge}


def table_faulty(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the table has no default route, or one by another uplink or gateway."""
    if not resolved.intent.policy_routed:
        return
    table, uplink, intended = resolved.table, resolved.uplink, resolved.intent.gateway
    route, default = deciding_route(resolved), default_route_by(resolved, uplink)
    set_default = command("ip", "route", "replace", *(default or ()), "table", table)
    if route is not None and not route.is_default and ({hop.interface for hop in route.nexthops} != {uplink}):
        yield _longer_prefix(resolved, route)
        return
    if route is None or not route.nexthops:
        backstop = f" except the backstop '{route}'" if route is not None else ""
        add_default = Remedy((set_default,), (command("ip", "route", "del", *(default or ()), "table", table),))
        yield Cause(
            "TABLE_EMPTY", "ROUTE-04",
            f"table {table} has no default route{backstop}: a link that went down, a lost lease or a recreated device "
            "removes the route, and nothing restores it",
            add_default if default else NO_REMEDY, _DECIDES,
        )  # fmt: skip
        return
    # With another metric the new route stands beside the old one, and precedes it.
    restore = ["ip", "route", "del", *(default or ()), "table", table] if route.metric else route_argv("replace", route)
    remedy = Remedy((set_default,), (command(*restore),)) if default else NO_REMEDY
    if {hop.interface for hop in route.nexthops} != {uplink}:
        interfaces = " and ".join(sorted({str(hop.interface) for hop in route.nexthops}))
        yield Cause(
            "TABLE_WRONG_UPLINK", "ROUTE-04",
            f"the default route of table {table} leaves by {interfaces}, not by {uplink} alone: {route}",
            remedy, _DECIDES | EGRESS,
        )  # fmt: skip
    elif not all(resolved.accepts_gateway(hop.gateway) and reaches_gateway(resolved, hop) for hop in route.nexthops):
        gateways = sorted({hop.gateway for hop in route.nexthops if hop.gateway is not None})
        on_link = all(reaches_gateway(resolved, hop) for hop in route.nexthops)
        off_link = "" if on_link else f", which is not in {uplink}'s subnet"
        uses = (
            f"uses gateway {', '.join(gateways)}{off_link}"
            if gateways
            else ("has no gateway, so the kernel asks by ARP for every destination itself")
        )
        facts = gateway_facts(resolved, measurements.traffic, uplink)
        in_file = facts.router_in_use if facts.site_file_is_wrong and facts.router_in_use in gateways else None
        if in_file is not None:
            uses += ", which answers ARP"
        yield Cause(
            "TABLE_WRONG_GATEWAY", "ROUTE-04",
            f"the default route of table {table} {uses}; the intent says {intended or 'no gateway'}",
            NO_REMEDY if in_file else remedy, _DECIDES | EGRESS | {"EGRESS-09"},
            site_file=gateway_line(uplink, in_file) if in_file else (), decision=CORRECT_GATEWAY if in_file else None,
        )  # fmt: skip


def _longer_prefix(resolved: ResolvedIntent, route: Route) -> Cause:
    """Return the cause of a route that the table's default route, right or wrong, does not take the place of."""
    interfaces = " and ".join(sorted({str(hop.interface) for hop in route.nexthops}))
    remedy = Remedy((command(*route_argv("del", route)),), (command(*route_argv("add", route)),))
    host = resolved.snapshot.host
    others = replace(host, routes=tuple(other for other in host.routes if other != route))
    left = deciding_route(replace(resolved, snapshot=replace(resolved.snapshot, host=others)))
    helps = left is not None and {hop.interface for hop in left.nexthops} == {resolved.uplink}
    return Cause(
        "TABLE_WRONG_UPLINK", "ROUTE-04",
        f"the route '{route}' decides for {resolved.target} before a default route of table {resolved.table} does, and "
        + (f"leaves by {interfaces}, not by {resolved.uplink} alone" if interfaces else "lets no packet out"),
        remedy if helps else NO_REMEDY, _DECIDES | EGRESS,
        decision=None if helps else f"remove that route, and set the default route of table {resolved.table}",
    )  # fmt: skip


def table_name_faulty(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the table's name is not registered, or that names and numbers clash."""
    name, number = resolved.intent.egress.table_name, resolved.intent.egress.table
    if name is None or number is None:
        return
    entries = registered(resolved.snapshot.files)
    clashing = clashes(entries, name, number)
    line = f"{number} {name}"
    register = _registration(resolved.snapshot, line)
    if clashing:
        edits: list[Edit] = [comment_out(entry.path, entry.line) for entry in clashing]
        if not any(entry.name == name and entry.number == number for entry in entries):
            edits.append(register)
        yield Cause(
            "TABLE_ID_CLASH", "ROUTE-01",
            "names and numbers of routing tables clash: "
            + "; ".join(f"{entry.path}:{entry.line} says {entry.number} {entry.name}" for entry in clashing)
            + f"; the intent says {line}",
            remedy_of(in_diffs(resolved.snapshot, edits)),
        )  # fmt: skip
    elif number_of(entries, name) is None:
        yield Cause(
            "TABLE_NAME_MISSING", "ROUTE-01",
            f"no table is named {name}: ip refuses 'ip rule … lookup {name}', and an ifup that uses the name stops "
            "there; numbers always work",
            remedy_of(in_diffs(resolved.snapshot, [register])), frozenset({"PERSIST-02", "FLAP-03", "FLAP-08"}),
        )  # fmt: skip


def _registration(snapshot: Snapshot, line: str) -> Edit:
    """Return the edit that registers a table: at the end of the file, or in a file of its own without that file."""
    file = snapshot.file(RT_TABLES)
    if file is None or not file.exists:
        # A file in /etc would hide its namesake in /usr/share (iproute2 since 6.5).
        return new_file(snapshot, f"{RT_TABLES}.d/viacheck-{line.split()[0]}.conf", f"{line}\n")
    return insert_lines(RT_TABLES, len(KnownLines(file).lines), line)


def local_networks_lost(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the rule sends local traffic to the uplink's gateway as well."""
    if not resolved.intent.policy_routed or resolved.agent_subnet is None or not any(led_away(resolved)):
        return
    shadowing = shadowing_rule(resolved)
    before = [LOCAL_PRIORITY, *(rule.priority - 1 for rule in rules_for_agent(resolved) if rule.priority > 1)]
    if shadowing is not None:
        # The remedy of a shadowing rule adds a rule right before it; this rule must come before that.
        before.append(shadowing.rule.priority - 2)
    selector = _local_selector(resolved, free_priority(resolved, min(before)))
    yield Cause(
        "LOCAL_NETS_LOST", "ROUTE-06",
        f"the rule sends all traffic from {resolved.agent_subnet} to table {resolved.table}, and table "
        f"{resolved.table} has no routes to the local networks: replies to the host and traffic to its networks go to "
        "the uplink's gateway",
        Remedy((command("ip", "rule", "add", *selector),), (command("ip", "rule", "del", *selector),)),
    )  # fmt: skip


def fails_open(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the agent's packets would leave by another uplink while the intended one is down."""
    other = egress_without_uplink(resolved)
    if other is None:
        return
    backstop = ("unreachable", "default", "metric", BACKSTOP_METRIC, "table", resolved.table)
    remedy = Remedy((command("ip", "route", "add", *backstop),), (command("ip", "route", "del", *backstop),))
    closed = any(route.is_default and not route.nexthops for route in resolved.table_routes)
    # With the backstop alone an agent that leaves elsewhere now would not leave at all.
    route_first = deciding_route(resolved) is None and (
        resolved.uplink_address(resolved.uplink) is None
        or gateway_facts(resolved, measurements.traffic, resolved.uplink).answers is False
    )
    decision = resolved.decision_without_uplink
    # The route of metric 0 is the one that a corrected default replaces.
    standby = (
        resolved.intent.policy_routed
        and decision.table == resolved.table
        and decision.route is not None
        and (not decision.route.is_default or decision.route.metric > 0)
    )
    by = f", by the rule {named_rule(resolved, decision.rule)} and the route {decision.route}"
    by = by if closed or standby else ""
    yield Cause(
        "FAIL_OPEN", "ROUTE-07",
        f"when {resolved.uplink} goes down, the kernel removes its routes and keeps the rules: the agent's packets "
        f"would leave by {other}{by}",
        remedy if resolved.intent.policy_routed and not closed and not standby and not route_first else NO_REMEDY,
        frozenset({"FLAP-06"}),
        decision=f"table {resolved.table} fails closed already; that rule or route decides before it: remove it, or "
        "let it be" if closed else f"an unreachable route in table {resolved.table} would come after that route: "
        "remove it, or let it be" if standby else f"set the default route of table {resolved.table} first"
        if route_first else None,
    )  # fmt: skip
