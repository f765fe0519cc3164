"""Causes between a bridged agent and its LAN: the network, its parent, and the frames that its segment forwards."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface

from viacheck.analysis.agent_network import attachment_to
from viacheck.analysis.container_facts import engine_name, engine_program
from viacheck.analysis.dhcp_offers import colliding, offers_evidence, spare_range
from viacheck.analysis.gateway_facts import gateway_facts
from viacheck.analysis.macvlan_facts import (
    address_in_pool,
    data_filtered,
    intended_network,
    lan_subnets,
    leased_by_engine,
    macvlan_supported,
    network_faults,
)
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.segment import UPSTREAM_TEXTS, arp_probe_evidence, claim_text
from viacheck.diagnosis.attachment import (
    attach_remedy,
    correct_network,
    obstacle_to_recreation,
    recreate_network,
)
from viacheck.diagnosis.cause import EGRESS, REACHES_GATEWAY, Cause
from viacheck.diagnosis.remedy import NO_REMEDY, Remedy, command, in_agent
from viacheck.model.check_evidence import StateEvidence
from viacheck.model.docker_state import DockerNetwork
from viacheck.model.intent import MacvlanAttach
from viacheck.model.intent_draft import attachment_lines
from viacheck.model.intent_rules import BY_DRIVER
from viacheck.model.measurements import Measurements
from viacheck.model.namespace_state import Link
from viacheck.model.route import route_argv
from viacheck.model.toml_text import toml_key, toml_text

_GATEWAY_LOST = EGRESS | REACHES_GATEWAY | {"EGRESS-09"}
"""The checks that fail when the agent's frames do not reach its LAN's gateway."""


def engine_cannot(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find an engine without the macvlan driver, or without the privilege to use it."""
    engine, attach = resolved.snapshot.engine, resolved.intent.agent.attach
    if engine is None or not isinstance(attach, MacvlanAttach):
        return
    also_affects = _GATEWAY_LOST | {"MACVLAN-01", "MACVLAN-02", "HOST-07"}
    if engine.rootless:
        yield Cause(
            "ENGINE_TOO_OLD", "HOST-01",
            f"the engine (version {engine.version}) runs rootless, and a rootless engine cannot put a container on "
            f"{attach.parent}: run it as root, or attach the agent by NAT",
            Remedy(
                (command("systemctl", "enable", "--now", "docker"),),
                (command("systemctl", "disable", "--now", "docker"),),
            ),
            also_affects,
        )  # fmt: skip
    elif not macvlan_supported(engine.version):
        address = resolved.agent_address or str((attach.ip_range or attach.subnet)[-2])
        place = f"{address}/{attach.subnet.prefixlen}@{attach.gateway}"
        yield Cause(
            "ENGINE_TOO_OLD", "HOST-01",
            f"Docker {engine.version} has no macvlan driver, which came with 1.12: upgrade it, or attach the agent by "
            "pipework (a container that was started with --net=none)",
            Remedy(
                (command("pipework", attach.parent, resolved.intent.agent.name, place),),
                (in_agent(resolved.intent, "ip", "link", "del", "dev", "eth1"),),
            ),
            also_affects,
        )  # fmt: skip


def parent_down(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the parent is down or has no carrier, and the agent's interface with it."""
    parent = resolved.parent_link
    if parent is None or parent.carrier:
        return
    also_affects = _GATEWAY_LOST | {"HOST-03"}
    is_exit = resolved.default_exit in (parent.name, None)
    if is_exit:
        also_affects |= {"HOST-06", "EGRESS-04"}
    if parent.up:
        yield Cause(
            "PARENT_DOWN", "HOST-02",
            f"{parent.name} has no carrier, and neither has the agent's interface: check the cable, the port at its "
            "other end, or the radio's association; the agent's interface recovers with it",
            also_affects=also_affects,
        )  # fmt: skip
        return
    steps = [command("ip", "link", "set", "dev", parent.name, "up")]
    default = resolved.host_decision.route
    if is_exit and (default is None or not default.is_default):
        gateway = resolved.intent.uplinks[parent.name].gateway
        steps.append(command("ip", "route", "replace", "default", "via", gateway, "dev", parent.name))
    yield Cause(
        "PARENT_DOWN", "HOST-02",
        f"{parent.name} is administratively down, and the agent's interface with it (LOWERLAYERDOWN). The agent's "
        "interface recovers when the parent comes up; the host's own routes by it do not",
        Remedy(tuple(steps), (command("ip", "link", "set", "dev", parent.name, "down"),)), also_affects,
    )  # fmt: skip


def parent_in_bridge(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the parent is a port of a bridge, on which the kernel creates no macvlan interface."""
    parent = resolved.parent_link
    if parent is None or parent.master is None:
        return
    others = [link.name for link in resolved.snapshot.host.links if link.master == parent.master and link != parent]
    bridge = parent.master
    needed = resolved.on_bridge or bool(others)
    why = "the agent is on it" if resolved.on_bridge else f"{', '.join(others)} {'are' if others[1:] else 'is'} on it"
    yield Cause(
        "BRIDGED_UPLINK", "PIPEWORK-03" if resolved.intent.mode.startswith("pipework") else "MACVLAN-01",
        f"{parent.name} is a port of the bridge {bridge}, and the kernel creates no macvlan interface on a port "
        f"(device or resource busy): use {bridge} as the parent, or take {parent.name} out of it",
        NO_REMEDY if needed else _take_out_of_bridge(resolved, parent, bridge),
        _GATEWAY_LOST | {"HOST-02", "HOST-03", "HOST-06", "HOST-07", "EGRESS-04", "MACVLAN-02", "PIPEWORK-03"},
        site_file=_bridge_as_parent(resolved, parent.name, bridge),
        decision=f"correct the site file: {bridge} is the interface of this LAN, and {why}, so that it must keep "
        f"{parent.name}" if needed else None,
    )  # fmt: skip


def _bridge_as_parent(resolved: ResolvedIntent, parent: str, bridge: str) -> tuple[str, ...]:
    """Return the lines of the site file that name a bridge in place of its port."""
    name = toml_text(bridge)
    gateway = toml_text(str(resolved.intent.uplinks[parent].gateway))
    lines = ("[agent.attach]", f"parent = {name}", f"[uplinks.{toml_key(bridge)}]", f"gateway = {gateway}", "[egress]",
             f"uplink = {name}")  # fmt: skip
    return (*lines, *(["[host]", f"default_exit = {name}"] if resolved.intent.host.default_exit == parent else []))


def _take_out_of_bridge(resolved: ResolvedIntent, parent: Link, bridge: str) -> Remedy:
    """Return the commands that free the parent and move the bridge's addresses and default route to it."""
    steps = [command("ip", "link", "set", "dev", parent.name, "nomaster")]
    rollback = [command("ip", "link", "set", "dev", parent.name, "master", bridge)]
    for address in resolved.snapshot.host.addresses_of(bridge):
        if address.scope != "global":
            continue
        text = f"{address.address}/{address.prefixlen}"
        steps += [command("ip", "address", "del", text, "dev", bridge),
                  command("ip", "address", "add", text, "dev", parent.name)]  # fmt: skip
        rollback = [command("ip", "address", "del", text, "dev", parent.name),
                    *rollback, command("ip", "address", "add", text, "dev", bridge)]  # fmt: skip
    default = resolved.host_decision.route
    if default is not None and default.is_default and {hop.interface for hop in default.nexthops} == {bridge}:
        gateway = resolved.intent.uplinks[parent.name].gateway
        steps.append(command("ip", "route", "replace", "default", "via", gateway, "dev", parent.name))
        rollback.append(command(*route_argv("replace", default)))
    if resolved.bridged_link is not None:
        return Remedy(tuple(steps), tuple(rollback))
    attach = attach_remedy(resolved)
    return Remedy((*steps, *attach.steps), (*attach.rollback, *rollback))


def network_wrong(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the macvlan network does not exist, or was created with options that are not the parent LAN's."""
    attach = resolved.intent.agent.attach
    if not isinstance(attach, MacvlanAttach):
        return
    network = intended_network(resolved)
    if network is None and resolved.snapshot.engine is not None:
        decision = None if resolved.snapshot.engine.container is not None else _no_container(resolved)
        yield Cause(
            "AGENT_NOT_ATTACHED", "MACVLAN-01", f"there is no Docker network {attach.network}",
            attach_remedy(resolved), _GATEWAY_LOST | {"MACVLAN-02"}, decision=decision,
        )  # fmt: skip
        return
    faults = network_faults(resolved)
    if not faults:
        return
    deepest = faults[0]
    # A gateway of the file that answers is no mistake of the file.
    answers = (
        deepest.code == "GATEWAY_MISMATCH"
        and gateway_facts(resolved, measurements.traffic, resolved.uplink).answers is True
    )
    no_parent = network is not None and network.parent is None and engine_program(resolved) == "docker"
    expectations = {
        "NETWORK_WRONG_DRIVER": f", not {attach.mode}",
        "PARENT_WRONG": f", not {attach.parent}"
        + ("; without a parent Docker creates an isolated dummy interface" if no_parent else ""),
        "SUBNET_MISMATCH": f"; the intent says {attach.subnet}",
        "GATEWAY_MISMATCH": f"; the intent says {attach.gateway}",
    }
    obstacle = obstacle_to_recreation(resolved, network, attach) if network is not None else None
    decision = None
    if obstacle is not None and network is not None:
        or_file = "" if answers else ", or the file corrected"
        decision = (
            f"{network.name} must be created again with what the site file says{or_file}; no commands are given, as "
            f"they would lose something: {obstacle}"
        )
    site_file = () if answers else _lines_for(resolved, attach, network, deepest.code)
    remedy = correct_network(resolved, network, deepest.code)
    if site_file and deepest.code == "NETWORK_WRONG_DRIVER":
        # Nothing is wrong with the network: the two drivers serve the same purpose.
        remedy, decision = NO_REMEDY, "correct the site file, unless the other driver is wanted"
    yield Cause(
        deepest.code, "MACVLAN-01", deepest.text + expectations[deepest.code], remedy, _GATEWAY_LOST | {"MACVLAN-02"},
        (StateEvidence(title="the network", lines=[fault.text for fault in faults]),), site_file, decision,
    )  # fmt: skip


def _lines_for(
    resolved: ResolvedIntent, attach: MacvlanAttach, network: DockerNetwork | None, code: str
) -> tuple[str, ...]:
    """Return the line of the site file that says what the host has, where that may be what is meant."""
    link = resolved.bridged_link
    if code == "NETWORK_WRONG_DRIVER":
        actual = network.driver if network is not None else link.kind if link is not None else None
        return ("[agent.attach]", f"mode = {toml_text(actual)}") if actual in BY_DRIVER else ()
    if network is None or obstacle_to_recreation(resolved, network, attach) is None:
        return ()
    lines = attachment_lines(network)
    return ("[agent.attach]", *lines) if lines else ()


def _no_container(resolved: ResolvedIntent) -> str:
    return f"the container {resolved.intent.agent.container} is not known (HOST-07): create the network with it"


def not_attached(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the agent is not on the network, or not with an address from its pool."""
    attach = resolved.intent.agent.attach
    if not isinstance(attach, MacvlanAttach) or resolved.snapshot.agent is None:
        return
    if resolved.bridged_address is None:
        addresses = [address for address in resolved.snapshot.agent.addresses if address.scope == "global"]
        others = ", ".join(address.address for address in addresses if address.family == 4)
        instead = f"; its address is {others}" if others else ""
        yield Cause(
            "AGENT_NOT_ATTACHED", "MACVLAN-02",
            f"{resolved.intent.agent.name} is not attached to {attach.network}{instead}",
            attach_remedy(resolved), _GATEWAY_LOST,
        )  # fmt: skip
    elif not address_in_pool(resolved):
        yield Cause(
            "AGENT_NOT_ATTACHED", "MACVLAN-02",
            f"the agent's address {resolved.bridged_address.address} is not from {attach.network}'s pool "
            f"{attach.ip_range or attach.subnet}",
            correct_network(resolved, intended_network(resolved), "SUBNET_MISMATCH"), _GATEWAY_LOST,
        )  # fmt: skip


def single_mac(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the parent is wireless: a station has one MAC address."""
    parent = resolved.parent_link
    if parent is None or not parent.wireless:
        return
    yield Cause(
        "PARENT_SINGLE_MAC", "MACVLAN-06",
        f"{parent.name} is wireless, and an access point accepts one MAC address for each station: frames from and to "
        "the agent's own MAC address are lost. The guide recommends NAT: start the agent without --net, behind docker0",
        also_affects=_GATEWAY_LOST,
    )  # fmt: skip


def upstream_drops(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that a switch, an access point or a hypervisor does not forward the agent's frames."""
    segment = measurements.traffic.segment
    if segment is None or segment.second_mac is None:
        return
    probes = segment.second_mac
    lost = probes.upstream in ("foreign-source", "delivery")
    filtered = resolved.bridged_link is not None and data_filtered(measurements.traffic, _intended_parent(resolved))
    if not lost and not filtered:
        return
    what = UPSTREAM_TEXTS[probes.upstream] if lost else "ARP passes, but IP from a second MAC address is dropped"
    yield Cause(
        "UPSTREAM_DROPS_MAC", "MACVLAN-06",
        f"upstream of {resolved.parent} {what}: the agent's MAC address is {probes.agent_mac}, the parent's "
        f"{probes.parent_mac}. Allow the second one on the switch port, the access point or the hypervisor (forged "
        "transmits, promiscuous mode), or attach the agent by NAT",
        also_affects=_GATEWAY_LOST, evidence=(arp_probe_evidence(probes),),
    )  # fmt: skip


def _intended_parent(resolved: ResolvedIntent) -> list[str]:
    """Return the parent if the agent's interface really sits on it, with an address of its LAN; else nothing."""
    link = resolved.bridged_link
    on_parent = link is not None and resolved.parent_of(link) == resolved.parent_link
    in_lan = resolved.bridged_address is not None and any(
        ip_interface(resolved.bridged_address.address).ip in lan for lan in lan_subnets(resolved)
    )
    return [resolved.parent] if resolved.parent is not None and on_parent and in_lan else []


def address_conflict(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that another machine on the segment, or the host itself, holds the agent's address."""
    facts, address = measurements.traffic.address, resolved.bridged_address
    if facts is None or address is None:
        return
    claims = facts.claims
    owners = [own.interface for own in resolved.snapshot.host.addresses if own.address == address.address]
    if not claims and not owners:
        return
    who = f"this host's own {owners[0]} has it as well" if owners else ""
    if claims:
        who = f"{', '.join(claim.mac for claim in claims)} answers ARP for it as well"
    if any(claim.mac == resolved.agent_mac for claim in claims):
        who = (
            f"another machine has both its address and its MAC address (before version 28, Docker derives the MAC "
            f"address from the address: two hosts with the same pool collide): {claim_text(claims[0])}"
        )
    yield Cause(
        "ADDRESS_CONFLICT", "MACVLAN-05",
        f"the agent ({resolved.agent_mac}) shares its address {address.address}: {who}, so a part of the replies goes "
        "to the other holder. Give one of the two another address",
        also_affects=_GATEWAY_LOST,
        evidence=(
            StateEvidence(
                title=f"ARP answers for {address.address}", lines=[claim_text(claim) for claim in claims],
                machines=[claim.mac for claim in claims],
            ),
        ),
    )  # fmt: skip


def dhcp_collision(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find a DHCP server on the parent's segment that assigns Docker's addresses as well, or could do so later."""
    pool, attach = resolved.agent_pool, resolved.intent.agent.attach
    offers = measurements.traffic.offers
    if pool is None or not offers or not isinstance(attach, MacvlanAttach) or leased_by_engine(resolved):
        return
    collisions = colliding(offers, pool)
    servers = ", ".join(dict.fromkeys(offer.server for offer in offers))
    network, remedy = intended_network(resolved), NO_REMEDY
    site_file: tuple[str, ...] = ()
    if collisions:
        taken = [str(attach.gateway), *resolved.uplink_addresses(attach.parent)]
        spare = spare_range(attach.subnet, offers, taken)
        fixed = (on := attachment_to(resolved, attach.network)) is not None and on.fixed_address
        if spare is not None and spare != attach.ip_range and network is not None and not fixed:
            remedy = recreate_network(resolved, network, attach, spare)
        if remedy:
            site_file = ("[agent.attach]", f"ip_range = {toml_text(str(spare))}")
        addresses = ", ".join(dict.fromkeys(offer.address for offer in collisions))
        sentence = (
            f"the DHCP server {servers} offers {addresses}, which {attach.network} assigns as well (its pool is "
            f"{pool}): {engine_name(resolved)} never asks the server, so sooner or later two machines have one "
            f"address. Exclude {pool} on the server"
        )
    else:
        sentence = (
            f"the DHCP server {servers} assigns addresses on {attach.parent}'s segment: it offered no address of "
            f"{attach.network}'s pool {pool}, but only its own configuration prevents that. Exclude {pool} on the "
            "server"
        )
    yield Cause(
        "DHCP_COLLISION", "MACVLAN-04", sentence, remedy, evidence=tuple(offers_evidence(offers)), site_file=site_file
    )
