"""Source policy routing: the table's name, the rule and its order, the route, and two gaps of the guide's recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fixtures.check import check
from fixtures.expect import Expect
from viacheck.analysis.agent_rules import (
    copies,
    covers_subnet,
    deciding_route,
    egress_without_uplink,
    rules_for_agent,
    shadowing_rule,
)
from viacheck.analysis.default_routes import reaches_gateway
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.table_names import clashes, number_of, table_entries
from viacheck.model.check import NAT, POLICY_ROUTING
from viacheck.model.check_evidence import Evidence, FileEvidence, StateEvidence
from viacheck.model.intent import Intent
from viacheck.model.measurements import KernelDecision
from viacheck.model.policy_rule import Rule
from viacheck.model.snapshot import Snapshot

if TYPE_CHECKING:
    from viacheck.packets.traffic_tests import TrafficTests

FIRST_SHOWN, RELEVANT_SHOWN, LAST_SHOWN = 50, 10, 3
"""How many rules or routes the evidence shows: the first, the relevant ones, the last."""


@check(
    "ROUTE-01",
    "The number and name of the agent's routing table are registered, and no other entry has either",
    guide="NAT, step 1",
    applies=POLICY_ROUTING,
)
def test_the_tables_name_is_registered(snapshot: Snapshot, intent: Intent, expect: Expect) -> None:
    name, number = intent.egress.table_name, intent.egress.table
    if name is None or number is None:
        expect.not_applicable("the intent names the table by its number alone (egress.table_name)")
    entries = table_entries(snapshot)
    clash = clashes(entries, name, number)
    relevant = [entry for entry in entries if entry.name == name or entry.number == number]
    expect.holds(
        number_of(entries, name) == number and not clash,
        expected=f"{number} {name}, and no other name or number for either",
        observed="; ".join(f"{entry.number} {entry.name}" for entry in relevant)
        or f"neither {number} nor {name} is registered",
        evidence=[
            FileEvidence(path=entry.path, line=entry.line, text=f"{entry.number}\t{entry.name}") for entry in relevant
        ],
    )


@check(
    "ROUTE-02",
    "A rule sends the agent's subnet to its routing table, and no rule is there twice",
    guide="NAT, steps 3-4",
    applies=POLICY_ROUTING,
)
def test_one_rule_sends_the_agent_to_the_table(resolved: ResolvedIntent, expect: Expect) -> None:
    rules = rules_for_agent(resolved)
    others = [rule for rule in resolved.rules_to_the_table if rule not in rules]
    copied = copies(rules)
    different = " different" if len(rules) > 1 and not copied else ""
    observed = f"{len(rules)}{different}: {_named(rules)}" if rules else "no rule"
    if others and not rules:
        observed += f"; for other sources: {_named(others)}"
    for_one_address = bool(rules) and not copied and not any(covers_subnet(resolved, rule) for rule in rules)
    if for_one_address:
        observed += f"; it holds until the agent's address {resolved.agent_address} changes"
    record = expect.advises if for_one_address else expect.holds
    record(
        bool(rules) and not copied and not for_one_address,
        expected=f"a rule from {resolved.agent_subnet} to table {resolved.table}, and no copy of it",
        observed=observed,
        evidence=[_rules(resolved)],
    )


@check("ROUTE-03", "No earlier rule decides for the agent's packets", guide="NAT, step 4", applies=POLICY_ROUTING)
def test_no_earlier_rule_decides(resolved: ResolvedIntent, expect: Expect) -> None:
    if not rules_for_agent(resolved):
        expect.not_applicable(f"no rule sends the agent's packets to table {resolved.table} (ROUTE-02)")
    shadowing = shadowing_rule(resolved)
    observed = "it decides for every protocol"
    if shadowing is not None:
        protocols = f" for {', '.join(shadowing.protocols)}" if shadowing.protocols else ""
        observed = f"'{shadowing.rule}' decides first{protocols}"
    expect.holds(
        shadowing is None,
        expected=f"the rule to table {resolved.table} is the first that decides for the agent's packets",
        observed=observed,
        evidence=[_rules(resolved), resolved.agent_decision().evidence()],
    )


@check(
    "ROUTE-04",
    "The default route of the agent's table uses the intended gateway and uplink",
    guide="NAT, step 5",
    applies=POLICY_ROUTING,
)
def test_the_table_leads_to_the_intended_gateway(resolved: ResolvedIntent, intent: Intent, expect: Expect) -> None:
    route, gateway = deciding_route(resolved), intent.gateway
    hops = route.nexthops if route is not None else ()
    by_uplink = bool(hops) and {hop.interface for hop in hops} == {resolved.uplink}
    accepted = by_uplink and all(resolved.accepts_gateway(hop.gateway) for hop in hops)
    on_link = all(reaches_gateway(resolved, hop) for hop in hops)
    observed = str(route) if route is not None else f"table {resolved.table} has no route to {resolved.target}"
    if accepted and not on_link:
        observed += f"; {gateway or 'its gateway'} is in no subnet of {resolved.uplink}"
    via, there = (f"via {gateway} ", f", with {gateway} on that link") if gateway is not None else ("", "")
    expect.holds(
        accepted and on_link,
        expected=f"default {via}dev {resolved.uplink} table {resolved.table}{there}",
        observed=observed,
        evidence=[_excerpt(f"table {resolved.table}", resolved.table_routes, [route] if route is not None else [])],
    )


@check(
    "ROUTE-05",
    "The kernel routes the agent's packets by the intended table and uplink",
    guide="NAT, steps 3-5",
    needs="probe",
    applies=NAT,
)
def test_the_kernel_decides_as_intended(
    resolved: ResolvedIntent, intent: Intent, kernel_decisions: Mapping[str, KernelDecision], expect: Expect
) -> None:
    expected = f"table {resolved.table}, by {resolved.uplink}, for {', '.join(kernel_decisions)}"
    evidence: list[Evidence] = [decision.evidence for decision in kernel_decisions.values()]
    evidence += [decision.answer.command for decision in kernel_decisions.values() if decision.answer.command]
    texts = {protocol: decision.answer.text for protocol, decision in kernel_decisions.items()}
    observed = "; ".join(f"{protocol}: {text}" for protocol, text in texts.items())
    if len(set(texts.values())) == 1:
        observed = next(iter(texts.values()))
    disagreeing = [protocol for protocol, decision in kernel_decisions.items() if decision.evidence.agree is False]
    if disagreeing:
        observed += f"; the routing model disagrees for {', '.join(disagreeing)}"
    answers = [decision.answer for decision in kernel_decisions.values()]
    by_protocol = [resolved.agent_decision(protocol).interfaces for protocol in intent.probe.protocols]
    split = next((interfaces for interfaces in by_protocol if len(interfaces) > 1), None)
    if split is not None:
        observed += f"; the route leads by {' or '.join(sorted(split))}, depending on the flow"
    expect.holds(
        split is None
        and all(answer.interface == resolved.uplink and answer.table == resolved.table for answer in answers),
        expected=expected,
        observed=observed,
        evidence=evidence,
    )


@check(
    "ROUTE-06",
    "The agent reaches its bridge's gateway and the uplinks' own networks",
    guide="NAT, step 3",
    needs="capture",
    applies=NAT,
)
def test_local_networks_stay_reachable(resolved: ResolvedIntent, traffic: TrafficTests, expect: Expect) -> None:
    local_networks = traffic.local_networks()
    asked = ", ".join(f"{address} ({name})" for name, (address, _) in local_networks.items())
    lost = {name: address for name, (address, answered) in local_networks.items() if not answered}
    expect.advises(
        not lost,
        expected=f"the agent gets answers from {asked}",
        observed=f"no answer from {', '.join(f'{address} ({name})' for name, address in lost.items())}"
        if lost
        else "all answer",
        evidence=[resolved.agent_decision().evidence()],
    )


@check(
    "ROUTE-07",
    "While the uplink is down, the agent's packets have no other route out (it fails closed)",
    guide="NAT, step 6",
    applies=NAT,
)
def test_it_fails_closed(resolved: ResolvedIntent, expect: Expect) -> None:
    if resolved.agent_source is None:
        expect.not_run("the agent's address is not known (HOST-07)")
    other = egress_without_uplink(resolved)
    expect.advises(
        other is None,
        expected=f"while {resolved.uplink} is down, the agent's packets leave by no other interface",
        observed=f"they would leave by {other}" if other else "there is no other route",
    )


def _named(rules: Sequence[Rule]) -> str:
    more = len(rules) - RELEVANT_SHOWN
    return "; ".join(map(str, rules[:RELEVANT_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _rules(resolved: ResolvedIntent) -> StateEvidence:
    return _excerpt("rules", list(resolved.snapshot.host.rules_of(4)), resolved.rules_to_the_table)


def _excerpt(title: str, entries: Sequence[object], relevant: Sequence[object]) -> StateEvidence:
    """Return the first entries, the relevant ones and the last ones: a large host has 100,000 of them."""
    shown = {id(entry) for entry in (*entries[:FIRST_SHOWN], *relevant[:RELEVANT_SHOWN], *entries[-LAST_SHOWN:])}
    lines: list[str] = []
    left_out = 0
    for entry in entries:
        if id(entry) not in shown:
            left_out += 1
            continue
        if left_out:
            lines.append(f"({left_out} more)")
            left_out = 0
        lines.append(str(entry))
    return StateEvidence(title=title, lines=lines)
