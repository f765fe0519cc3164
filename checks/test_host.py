"""The host: engine, uplinks, gateways, forwarding, the default exit, the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixtures.check import check
from fixtures.expect import Expect
from viacheck.analysis.container_facts import agent_fault, is_unhealthy
from viacheck.analysis.macvlan_facts import macvlan_supported
from viacheck.analysis.nat_facts import forwarded_probes, forwarding_sysctls_off, internal_network, overlapping_networks
from viacheck.analysis.packet_filter.evaluate import Passage
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.check import CONTAINER, NAT
from viacheck.model.check_evidence import StateEvidence
from viacheck.model.intent import Intent, MacvlanAttach
from viacheck.model.snapshot import Snapshot

if TYPE_CHECKING:
    from viacheck.packets.traffic_tests import TrafficTests


@check(
    "HOST-01",
    "The Docker engine answers, and its version allows the chosen mode",
    guide="Bridge",
    needs="docker",
    applies=CONTAINER,
)
def test_the_engine_answers_and_allows_the_mode(snapshot: Snapshot, intent: Intent, expect: Expect) -> None:
    engine, by_driver = snapshot.engine, isinstance(intent.agent.attach, MacvlanAttach)
    expected = "the Docker engine answers" + (", version 1.12 or later" if by_driver else "")
    if engine is None:
        problem = snapshot.problem("engine")
        if problem is not None and problem.missing:
            expect.unread(problem)
        expect.holds(False, expected=expected, observed=problem.reason if problem else "it does not answer")
        return
    podman, rootless = "podman, " if engine.podman else "", ", rootless" if engine.rootless else ""
    version = f"{podman}version {engine.version}, API {engine.api_version}{rootless}"
    allowed = not by_driver or (macvlan_supported(engine.version) and not engine.rootless)
    expect.holds(allowed, expected=expected, observed=version)


@check(
    "HOST-02",
    "Every uplink exists, is up, has carrier and an address",
    guide="NAT, host with multiple physical interfaces",
    of_host=True,
)
def test_uplinks_are_usable(snapshot: Snapshot, intent: Intent, expect: Expect) -> None:
    state = {}
    for name in intent.uplinks:
        link = snapshot.host.link(name)
        addresses = ", ".join(f"{a.address}/{a.prefixlen}" for a in snapshot.host.addresses_of(name))
        if link is None:
            state[name] = "missing"
        elif not link.up:
            state[name] = "down"
        elif not link.carrier:
            state[name] = "no carrier"
        else:
            state[name] = f"up, {addresses}" if addresses else "up, no IPv4 address"
    usable = all(
        (link := snapshot.host.link(name)) is not None and link.carrier and snapshot.host.addresses_of(name)
        for name in intent.uplinks
    )
    expect.holds(
        usable,
        expected=f"{', '.join(intent.uplinks)}: up, with carrier and an IPv4 address",
        observed="; ".join(f"{name}: {text}" for name, text in state.items()),
    )


@check("HOST-03", "Every uplink's gateway answers ARP on that uplink", guide="NAT, step 5", needs="probe", of_host=True)
def test_gateways_answer_arp(traffic: TrafficTests, intent: Intent, resolved: ResolvedIntent, expect: Expect) -> None:
    asked = resolved.arp_gateways
    unnamed = [
        name
        for name, uplink in intent.uplinks.items()
        if uplink.gateway is None and not resolved.is_point_to_point(name)
    ]
    if not asked and not unnamed:
        expect.not_applicable(f"{', '.join(intent.uplinks)}: a point-to-point link, on which no ARP is asked")
    answered = {name: answers for name, answers in traffic.gateways.answers.items() if answers}
    expected = "; ".join(f"{gateway} answers on {name}" for name, gateway in asked.items())
    observed = [
        f"{gateway} on {name}: " + (f"is at {answered[name][0]}" if name in answered else "no answer")
        for name, gateway in asked.items()
    ]
    observed += [f"{name}: point to point, not asked" for name in intent.uplinks if resolved.is_point_to_point(name)]
    if unnamed and set(answered) == set(asked):
        names = ", ".join(unnamed)
        expect.inconclusive(
            f"{names}: the site file names no gateway, and this is no point-to-point link: add the line 'gateway = …'",
            expected=expected,
        )
    expect.holds(set(answered) == set(asked), expected=expected, observed="; ".join(observed))


@check("HOST-04", "The host forwards IPv4 between the agent's bridge and the uplink", guide="NAT", applies=NAT)
def test_the_host_forwards(resolved: ResolvedIntent, snapshot: Snapshot, expect: Expect) -> None:
    off = forwarding_sysctls_off(resolved)
    probes = list(forwarded_probes(resolved))
    dropped = next((probe for probe in probes if probe.passage.drops), None)
    unknown = next((probe for probe in probes if probe.passage.allowed is None), None)
    expected = (
        f"forwarding from {resolved.bridge} to {resolved.uplink} is on, and nothing drops the agent's packets or their "
        "answers"
    )
    evidence = StateEvidence(
        title="sysctls", lines=[f"{k} = {v}" for k, v in snapshot.host.sysctls.items() if "forward" in k]
    )
    internal = internal_network(resolved)
    if unknown is not None and dropped is None and not off and internal is None:
        unread = snapshot.problem("packet filter")
        if unread is not None:
            expect.unread(unread)
        by = _decider(unknown.passage)
        expect.inconclusive(
            f"the model cannot evaluate what the packet filter does to the agent's {unknown.protocol} "
            f"{unknown.direction}: {by}",
            expected=expected, evidence=[evidence],
        )  # fmt: skip
    observed = f"off: {', '.join(off)}" if off else "forwarding is on"
    if internal is not None:
        observed += f"; the Docker network {internal} is internal, so Docker isolates the agent"
    elif dropped is not None:
        part = "a part of " if dropped.passage.partly else ""
        observed += f"; {_decider(dropped.passage)} drops {part}the agent's {dropped.protocol} {dropped.direction}"
    elif unknown is None:
        observed += ", the packet filter accepts the agent's packets and their answers"
    expect.holds(
        not off and dropped is None and internal is None, expected=expected, observed=observed, evidence=[evidence]
    )


def _decider(passage: Passage) -> str:
    """Return the rule or policy that decides, as text."""
    if passage.chain is None:
        return "a part of it could not be read"
    rule = f"the rule '{passage.rule.text}'" if passage.rule is not None else "the policy"
    return f"{rule} of chain {passage.chain.name}"


@check("HOST-05", "The agent's subnet overlaps no uplink's subnet and no other route", guide="NAT, step 2", applies=NAT)
def test_the_agents_subnet_is_its_own(resolved: ResolvedIntent, expect: Expect) -> None:
    overlapping = overlapping_networks(resolved)
    expect.holds(
        not overlapping,
        expected=f"{resolved.agent_subnet} is used by {resolved.bridge} alone",
        observed=f"overlaps {'; '.join(overlapping)}" if overlapping else "no overlap",
    )


@check(
    "HOST-06",
    "The host has a default exit, and it is the intended interface",
    guide="NAT, host with multiple physical interfaces",
    of_host=True,
)
def test_the_default_exit_is_the_intended_one(resolved: ResolvedIntent, intent: Intent, expect: Expect) -> None:
    decision = resolved.host_decision
    intended = intent.host.default_exit
    observed = f"{decision.interface} ({decision.route})" if decision.interface else f"none: {decision.outcome}"
    expect.holds(
        decision.interface is not None and intended in (None, decision.interface),
        expected=f"the host's own packets leave by {intended}" if intended else "the host has a default exit",
        observed=observed,
        evidence=[decision.evidence()],
    )


@check("HOST-07", "The agent exists and runs, and its network namespace can be opened", guide="Bridge, step 2")
def test_the_agent_runs(snapshot: Snapshot, resolved: ResolvedIntent, intent: Intent, expect: Expect) -> None:
    problem = snapshot.problem("container") or snapshot.problem("agent") or snapshot.problem("engine")
    if snapshot.agent is None and problem is not None and problem.missing:
        expect.unread(problem)
    observed = "it runs, and its network namespace is open"
    fault = agent_fault(resolved)
    if fault is not None:
        observed = fault.text
    elif snapshot.agent is None:
        observed = problem.reason if problem is not None else "cannot open the agent's network namespace"
    expected = f"{intent.agent.name} runs, and its namespace can be opened"
    if fault is None and snapshot.agent is not None and is_unhealthy(resolved):
        expect.advises(False, expected=f"{expected}, and is healthy", observed="it runs, and is unhealthy")
        return
    expect.holds(snapshot.agent is not None and fault is None, expected=expected, observed=observed)
