"""Pipework: the program, the interface that it makes, its lease and gateway, and the files that run it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixtures.check import check
from fixtures.expect import Expect
from viacheck.analysis.loss import answers_text
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
from viacheck.model.check_evidence import FileEvidence
from viacheck.model.intent import Intent, PipeworkStaticAttach
from viacheck.model.snapshot import Snapshot
from viacheck.persistence.pipework import OCCASIONS, reruns_of

if TYPE_CHECKING:
    from viacheck.packets.traffic_tests import TrafficTests


@check(
    "PIPEWORK-01",
    "pipework is executable and on PATH",
    guide="Bridging with pipework, steps 3-4",
    applies=PIPEWORK,
)
def test_pipework_is_on_path(snapshot: Snapshot, expect: Expect) -> None:
    path = snapshot.programs.get("pipework")
    there = [file.path for file in snapshot.files if file.exists and file.path.rpartition("/")[2] == "pipework"]
    instead = f"{', '.join(there)} is not executable" if there else "it is not on PATH"
    expect.holds(path is not None, expected="pipework is on PATH and executable", observed=path or instead)


@check(
    "PIPEWORK-02",
    "The agent's container has network none: it has no interface from Docker",
    guide="Bridging with pipework, step 1",
    needs="docker",
    applies=PIPEWORK,
)
def test_docker_gave_no_interface(resolved: ResolvedIntent, snapshot: Snapshot, expect: Expect) -> None:
    if snapshot.agent is None:
        expect.not_run("cannot open the agent's network namespace (HOST-07)")
    networks, links = docker_networks_beside(resolved), [link.name for link in unbridged_links(resolved)]
    extra = [f"Docker's network {name}" for name in networks] + [f"the interface {name}" for name in links]
    expect.holds(
        not extra,
        expected="the agent has no Docker network, and no interface but pipework's",
        observed=", ".join(extra) if extra else "none",
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
        expect.not_run("cannot open the agent's network namespace (HOST-07)")
    attach, link, address = intent.agent.attach, resolved.bridged_link, resolved.bridged_address
    intended = f"with {attach.address}" if isinstance(attach, PipeworkStaticAttach) else "with a lease that is renewed"
    expected = f"an interface on {resolved.parent}, up, {intended}"
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
        observed += f", leased, and no DHCP client renews it: it ends {end}"
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
    "The agent's default route uses the intended gateway, and its pings to it leave by the parent and are answered",
    guide="Bridging with pipework, step 6",
    needs="capture",
    applies=PIPEWORK,
)
def test_the_gateway_answers(traffic: TrafficTests, resolved: ResolvedIntent, expect: Expect) -> None:
    parent, packets = resolved.parent, traffic.gateway_pings()
    assert parent is not None
    gateway, objection = resolved.lan_gateway, default_route_fault(resolved)
    allowed = resolved.intent.probe.loss_allowed
    expected = (
        f"default via {gateway}, {packets.sent} of {packets.sent} pings answered (loss allowed: {allowed}), seen on "
        f"{parent} as its own"
    )
    own = {sighting.probe for sighting in departures(packets, parent) if resolved.is_agents_own(sighting)}
    others = [interface for interface in left_by(packets, resolved.egress_interfaces) if interface != parent]
    observed = (objection or f"default via {gateway}") + f"; {packets.answered} of {packets.sent} answered"
    observed += f", {len(own)} seen on {parent} as the agent's own"
    observed += f", and on {', '.join(others)}" if others else ""
    observed = "; ".join([observed, *answers_text(packets)])
    fine = objection is None and len(own) == packets.sent and not others
    fine = fine and expect.loss_allowed(packets, allowed, expected=expected, observed=observed)
    if fine:
        expect.proven_absent(
            packets, [interface for interface in resolved.egress_interfaces if interface != parent], expected=expected
        )
    elif objection is None and own and not traffic.segment.gateway_answers_host and not expect.has_cause():
        expect.inconclusive(
            f"{observed}: the gateway does not answer the host's own pings either",
            expected=expected,
            evidence=[packets],
        )
    fact = host_and_agent_evidence(traffic.segment, parent, resolved.uplink_address(parent))
    expect.holds(fine, expected=expected, observed=observed, evidence=[packets, *fact])


@check(
    "PIPEWORK-05",
    "The host's files run pipework again after a reboot, an interface change and a container restart",
    guide="Bridging with pipework, steps 7-11",
    applies=PIPEWORK_PERSISTENT,
)
def test_the_hosts_files_run_pipework_again(resolved: ResolvedIntent, expect: Expect) -> None:
    reruns = reruns_of(resolved)
    expected = f"a file of the host runs pipework again after {', '.join(OCCASIONS.values())}"
    observed = (
        "; ".join(f"after {OCCASIONS[rerun.occasion]}: {rerun.place}" for rerun in reruns.effective) or "no file does"
    )
    observed += (
        f"; none after {', '.join(OCCASIONS[occasion] for occasion in reruns.missing)}" if reruns.missing else ""
    )
    observed += "".join(f"; {place}: {reason}" for place, reason in reruns.ineffective)
    evidence = [
        FileEvidence(path=rerun.place.path, line=rerun.place.line, text=rerun.place.text) for rerun in reruns.effective
    ]
    if reruns.missing:
        expect.holds(False, expected=expected, observed=observed, evidence=evidence)
        return
    again = reruns.not_idempotent
    expect.advises(
        not again,
        expected=f"{expected}, and none of them fails when it runs twice",
        observed=observed + (f"; {again[0].place} runs it whether the interface is there or not" if again else ""),
        evidence=evidence,
    )
