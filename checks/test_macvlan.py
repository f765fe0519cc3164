"""Macvlan: the network and its parent, the agent's attachment, and the packets that the parent's segment passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixtures.check import check
from fixtures.expect import Expect
from viacheck.analysis.dhcp_offers import colliding, discovery_text, offers_evidence
from viacheck.analysis.loss import answers_text
from viacheck.analysis.macvlan_facts import (
    address_in_pool,
    data_filtered,
    intended_network,
    leased_by_engine,
    network_faults,
    parent_hidden,
)
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.segment import UPSTREAM_TEXTS, arp_probe_evidence, claim_text, host_and_agent_evidence
from viacheck.analysis.sightings import departures, left_by
from viacheck.model.check import BRIDGED, MACVLAN, OWN_MAC
from viacheck.model.intent import Intent, MacvlanAttach
from viacheck.model.snapshot import Snapshot

if TYPE_CHECKING:
    from viacheck.packets.traffic_tests import TrafficTests


@check(
    "MACVLAN-01",
    "The agent's Docker network has the macvlan driver, the intended parent, and the parent LAN's subnet and gateway",
    guide="Bridging with macvlan, steps 1-2",
    needs="docker",
    applies=MACVLAN,
)
def test_the_network_is_the_parents_lan(resolved: ResolvedIntent, intent: Intent, expect: Expect) -> None:
    attach, engine, network = intent.agent.attach, resolved.snapshot.engine, intended_network(resolved)
    assert isinstance(attach, MacvlanAttach)
    expected = f"{attach.network}: {attach.mode} on {attach.parent}, subnet {attach.subnet}, gateway {attach.gateway}"
    parent = resolved.parent_link
    if parent is not None and parent.master is not None:
        expect.holds(False, expected=expected, observed=f"{attach.parent} is a port of the bridge {parent.master}")
        return
    if engine is None and intent.agent.container is not None:
        expect.not_run("the Docker engine does not answer (HOST-01)")
    if engine is not None and network is None:
        names = ", ".join(known.name for known in engine.networks)
        expect.holds(False, expected=expected, observed=f"no Docker network has that name; there are {names}")
        return
    if network is None and resolved.bridged_link is None:
        expect.not_run("the agent is not a container, and has no macvlan interface that shows its network")
    faults = network_faults(resolved)
    if not faults and parent_hidden(resolved) and resolved.bridged_link is None:
        expect.inconclusive(
            "podman's answer leaves out the network's parent, and the agent has no interface that shows it; "
            f"'podman network inspect {attach.network}' has it (network_interface)",
            expected=expected,
        )
    expect.holds(
        not faults,
        expected=expected,
        observed="; ".join(fault.text for fault in faults) or "as intended",
    )


@check(
    "MACVLAN-02",
    "The agent is attached to its macvlan network with an address from the network's pool",
    guide="Bridging with macvlan, step 3",
    needs="docker",
    applies=MACVLAN,
)
def test_the_agent_is_attached(resolved: ResolvedIntent, snapshot: Snapshot, intent: Intent, expect: Expect) -> None:
    attach = intent.agent.attach
    assert isinstance(attach, MacvlanAttach)
    if snapshot.agent is None and not expect.has_cause():
        expect.not_run("cannot open the agent's network namespace (HOST-07)")
    address, container = resolved.bridged_address, snapshot.engine.container if snapshot.engine else None
    networks = [attachment.network for attachment in container.attachments] if container is not None else None
    observed = f"{address.address}/{address.prefixlen}" if address is not None else "no address on a macvlan interface"
    expect.holds(
        address_in_pool(resolved) and (networks is None or attach.network in networks),
        expected=f"on {attach.network}, with an address from {resolved.agent_pool}",
        observed=observed + (f", on {', '.join(networks) or 'no network'}" if networks is not None else ""),
    )


@check(
    "MACVLAN-03",
    "The agent's pings to its gateway are answered (4 of 4), and leave by the parent with its own MAC, un-NATed",
    guide="Bridging with macvlan, step 4",
    needs="capture",
    applies=MACVLAN,
)
def test_the_agent_reaches_the_gateway(traffic: TrafficTests, resolved: ResolvedIntent, expect: Expect) -> None:
    parent, packets = resolved.parent, traffic.gateway_pings()
    assert parent is not None
    allowed = resolved.intent.probe.loss_allowed
    expected = (
        f"{packets.sent} of {packets.sent} pings to {resolved.lan_gateway} answered (loss allowed: {allowed}), seen "
        f"leaving by {parent} from {resolved.agent_mac} as {resolved.agent_address}, and nowhere else"
    )
    left = left_by(packets, resolved.egress_interfaces)
    others = [interface for interface in left if interface != parent]
    departed = departures(packets, parent)
    own = {sighting.probe for sighting in departed if resolved.is_agents_own(sighting)}
    foreign = sorted(
        {f"{sighting.source} from {sighting.source_mac}" for sighting in departed if sighting.probe not in own}
    )
    observed = f"{packets.answered} of {packets.sent} answered, {len(own)} seen on {parent} as the agent's own"
    observed += f", as {', '.join(foreign)} instead" if foreign else ""
    observed += f", and on {', '.join(others)}" if others else ""
    refused = ", ".join(sorted(set(packets.refused)))
    observed += f"; refused by the agent's own kernel: {refused}" if refused else ""
    observed = "; ".join([observed, *answers_text(packets)])
    fine = len(own) == packets.sent and not foreign and not others
    fine = fine and expect.loss_allowed(packets, allowed, expected=expected, observed=observed)
    if fine:
        expect.proven_absent(
            packets, [interface for interface in resolved.egress_interfaces if interface != parent], expected=expected
        )
    elif not traffic.segment.gateway_answers_host and own and not expect.has_cause():
        expect.inconclusive(
            f"{observed}: the gateway {resolved.lan_gateway} does not answer the host's own pings either",
            expected=expected,
            evidence=[packets],
        )
    fact = host_and_agent_evidence(traffic.segment, parent, resolved.uplink_address(parent))
    expect.holds(fine, expected=expected, observed=observed, evidence=[packets, *fact])


@check(
    "MACVLAN-04",
    "No DHCP server on the parent's segment hands out the pool's addresses",
    guide="Bridging with macvlan, step 1",
    needs="probe",
    applies=MACVLAN,
    waits=True,
)
def test_no_dhcp_server_hands_out_the_pool(traffic: TrafficTests, resolved: ResolvedIntent, expect: Expect) -> None:
    if leased_by_engine(resolved):
        expect.not_applicable("the LAN's DHCP server itself gives the agent its address (podman, --ipam-driver dhcp)")
    discovery, pool, parent = traffic.dhcp_discovery, resolved.agent_pool, resolved.parent
    assert pool is not None
    if discovery is None:
        expect.not_run(f"{parent} is not up (HOST-02), so no DHCP server can answer on it")
    offers = discovery.offers
    inside = colliding(offers, pool)
    listened = discovery_text(discovery)
    expected = f"no server on {parent} offers an address of {pool}"
    if inside:
        expect.holds(
            False,
            expected=expected,
            observed=f"{'; '.join(map(str, inside))} ({listened})",
            evidence=offers_evidence(offers),
        )
        return
    if discovery.frames_lost:
        expect.inconclusive(
            f"{discovery.frames_lost} frames were lost by the capture: an offer may be among them", expected=expected
        )
    servers = ", ".join(dict.fromkeys(offer.server for offer in offers))
    expect.advises(
        not offers,
        expected=expected,
        observed=f"{servers} offers {', '.join(dict.fromkeys(offer.address for offer in offers))}, outside of {pool} "
        f"({listened})"
        if offers
        else f"no answer to DHCPDISCOVER ({listened})",
        evidence=offers_evidence(offers),
    )


@check(
    "MACVLAN-05",
    "No other machine on the segment holds the agent's address",
    guide="Bridging with macvlan, step 1",
    needs="probe",
    applies=BRIDGED,
    waits=True,
)
def test_no_other_machine_holds_the_agents_address(
    traffic: TrafficTests, resolved: ResolvedIntent, expect: Expect
) -> None:
    address, facts = resolved.bridged_address, traffic.address
    if address is None:
        expect.not_run("the agent has no address on its parent")
    if facts is None:
        expect.not_run(f"{resolved.parent} is not up (HOST-02), so no machine can answer ARP on it")
    own = [local.interface for local in resolved.snapshot.host.addresses if local.address == address.address]
    holders = [claim_text(claim) for claim in facts.claims]
    holders += [f"this host's own {interface} holds the address" for interface in own]
    if facts.frames_lost and not holders:
        expect.inconclusive(f"{facts.frames_lost} frames were lost by the capture: an answer may be among them")
    expect.holds(
        not holders,
        expected=f"only the agent ({resolved.agent_mac}) holds {address.address}",
        observed="; ".join(holders)
        if holders
        else f"no answer to {facts.asked} ARP requests from the side of {' and '.join(facts.asked_from)}, "
        f"listened for {facts.seconds:.1f} s",
    )


@check(
    "MACVLAN-06",
    "The parent and the network upstream of it accept a second MAC address",
    guide="Bridge, warning",
    needs="capture",
    applies=OWN_MAC,
)
def test_a_second_mac_is_accepted(traffic: TrafficTests, resolved: ResolvedIntent, expect: Expect) -> None:
    parent = resolved.parent_link
    expected = f"frames from and to the agent's {resolved.agent_mac} get through beside the parent's own"
    if parent is not None and parent.wireless:
        expect.holds(False, expected=expected, observed=f"{parent.name} is wireless: a station has one MAC address")
        return
    probes = traffic.segment.second_mac
    if probes is None:
        expect.not_run("the parent is not up (HOST-02), or the agent has no interface on it")
    pings = traffic.gateway_pings()
    if probes.upstream == "unknown":
        expect.not_run(f"{UPSTREAM_TEXTS['unknown']} (HOST-03), so there is no answer to compare with")
    filtered = data_filtered(traffic.measurements, [resolved.parent] if resolved.parent else [])
    accepted = probes.upstream == "accepted" and not (filtered and expect.has_cause())
    expect.holds(
        accepted,
        expected=expected,
        observed=UPSTREAM_TEXTS[probes.upstream]
        + (", but IP from it is lost" if probes.upstream == "accepted" and not accepted else ""),
        evidence=[arp_probe_evidence(probes), *([pings] if not accepted else [])],
    )
