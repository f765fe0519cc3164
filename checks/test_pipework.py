"""Pipework: the program, the interface that it makes, its lease and gateway, and what runs it again."""

from __future__ import annotations

from fixtures.check import check
from fixtures.expect import Expect
from viacheck.analysis.macvlan_facts import unbridged_links
from viacheck.analysis.pipework_facts import (
    address_fault,
    default_route_fault,
    docker_networks_beside,
    leftover_links,
    unattended_lease_end,
)
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.segment import host_and_agent_evidence
from viacheck.analysis.sightings import departures, left_by
from viacheck.model.check import PIPEWORK, PIPEWORK_PERSISTENT
from viacheck.model.intent import Intent, PipeworkStaticAttach
from viacheck.model.result import FileEvidence
from viacheck.model.snapshot import Snapshot
from viacheck.packets.traffic_tests import TrafficTests
from viacheck.persistence.pipework import OCCASIONS, reruns_of


@check(
    "PIPEWORK-01",
    "pipework is executable and on PATH",
    guide="Bridging with pipework, steps 3-4",
    applies=PIPEWORK,
)
def test_pipework_is_on_path(snapshot: Snapshot, expect: Expect) -> None:
    path = snapshot.programs.get("pipework")
    there = [file.path for file in snapshot.files if file.exists and file.path.rpartition("/")[2] == "pipework"]
    instead = f"{', '.join(there)} may not be executed" if there else "it is nowhere on PATH"
    expect.holds(path is not None, expected="pipework is on PATH and may be executed", observed=path or instead)


@check(
    "PIPEWORK-02",
    "The container runs with network none: Docker gave it no way out of its own",
    guide="Bridging with pipework, step 1",
    needs="docker",
    applies=PIPEWORK,
)
def test_docker_gave_no_way_out(resolved: ResolvedIntent, snapshot: Snapshot, expect: Expect) -> None:
    if snapshot.agent is None:
        expect.not_run("the agent cannot be entered (HOST-07)")
    networks, links = docker_networks_beside(resolved), [link.name for link in unbridged_links(resolved)]
    found = [f"Docker's network {name}" for name in networks] + [f"the interface {name}" for name in links]
    expect.holds(
        not found,
        expected="the agent has no Docker network, and no interface but pipework's",
        observed=", ".join(found) if found else "none",
    )


@check(
    "PIPEWORK-03",
    "The agent has pipework's interface: on the intended parent, up, with the intended or leased address",
    guide="Bridging with pipework, steps 5-6",
    applies=PIPEWORK,
)
def test_the_agent_has_its_interface(
    resolved: ResolvedIntent, snapshot: Snapshot, intent: Intent, expect: Expect
) -> None:
    if snapshot.agent is None:
        expect.not_run("the agent cannot be entered (HOST-07)")
    attach, link, address = intent.agent.attach, resolved.bridged_link, resolved.bridged_address
    wanted = f"with {attach.address}" if isinstance(attach, PipeworkStaticAttach) else "with a lease that is renewed"
    expected = f"an interface on {resolved.parent}, up, {wanted}"
    parent = resolved.parent_of(link) if link is not None else None
    objection, end, left = address_fault(resolved), unattended_lease_end(resolved), leftover_links(resolved)
    if link is None:
        expect.holds(False, expected=expected, observed="no interface by pipework")
        return
    shown = f"{address.address}/{address.prefixlen}" if address is not None else "no address"
    clients = f", renewed by {', '.join(snapshot.dhcp_clients)}" if snapshot.dhcp_clients else ""
    observed = f"{link.name} on {parent.name if parent else 'another host'}, {'up' if link.up else 'down'}, {shown}"
    fine = link.up and parent == resolved.parent_link is not None and objection is None
    if fine and end is not None:
        observed += f", leased, with nobody to renew it: it ends {end}"
    elif fine and isinstance(attach, PipeworkStaticAttach):
        observed += ", as intended"
    elif fine:
        observed += f", leased{clients}"
    if not fine or end is not None:
        expect.holds(False, expected=expected, observed=observed)
        return
    names = ", ".join(leftover.link.name for leftover in left)
    expect.advises(
        not left,
        expected=expected,
        observed=observed + (f"; {names} is left of a second run that failed" if left else ""),
    )


@check(
    "PIPEWORK-04",
    "The agent's default route is by the intended gateway, which answers, seen on the parent",
    guide="Bridging with pipework, step 6",
    needs="capture",
    applies=PIPEWORK,
)
def test_the_gateway_answers(traffic: TrafficTests, resolved: ResolvedIntent, expect: Expect) -> None:
    parent, packets = resolved.parent, traffic.gateway_pings()
    assert parent is not None
    gateway, objection = resolved.lan_gateway, default_route_fault(resolved)
    expected = f"default via {gateway}, {packets.sent} of {packets.sent} pings answered, seen on {parent} as its own"
    own = {one.probe for one in departures(packets, parent) if resolved.is_agents_own(one)}
    others = [way for way in left_by(packets, resolved.egress_interfaces) if way != parent]
    observed = (objection or f"default via {gateway}") + f"; {packets.answered} of {packets.sent} answered"
    observed += f", {len(own)} seen on {parent} as the agent's own"
    observed += f", and on {', '.join(others)}" if others else ""
    fine = objection is None and packets.answered == packets.sent == len(own) and not others
    if fine:
        expect.proven_absent(packets, [way for way in resolved.egress_interfaces if way != parent], expected=expected)
    elif objection is None and own and not traffic.segment.gateway_answers_host and not expect.has_cause():
        expect.inconclusive(
            f"{observed}: the gateway answers the host's own pings no more than the agent's",
            expected=expected,
            evidence=[packets],
        )
    fact = host_and_agent_evidence(traffic.segment, parent, resolved.uplink_address(parent))
    expect.holds(fine, expected=expected, observed=observed, evidence=[packets, *fact])


@check(
    "PIPEWORK-05",
    "pipework is written down to run again after reboot, interface change and container restart",
    guide="Bridging with pipework, steps 7-11",
    applies=PIPEWORK_PERSISTENT,
)
def test_pipework_is_written_down(resolved: ResolvedIntent, expect: Expect) -> None:
    written = reruns_of(resolved)
    expected = f"something runs pipework again after {', '.join(OCCASIONS.values())}"
    observed = "; ".join(f"after {OCCASIONS[one.occasion]}: {one.place}" for one in written.effective) or "nothing does"
    observed += f"; nothing after {', '.join(OCCASIONS[one] for one in written.missing)}" if written.missing else ""
    observed += "".join(f"; {place}: {reason}" for place, reason in written.ineffective)
    evidence = [
        FileEvidence(path=one.place.path, line=one.place.line, text=one.place.text) for one in written.effective
    ]
    if written.missing:
        expect.holds(False, expected=expected, observed=observed, evidence=evidence)
        return
    again = written.not_idempotent
    expect.advises(
        not again,
        expected=f"{expected}, and fails nowhere when it runs twice",
        observed=observed + (f"; {again[0].place} runs it whether the interface is there or not" if again else ""),
        evidence=evidence,
    )
