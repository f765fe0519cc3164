"""Causes in the host itself: engine, uplinks, gateways, forwarding, the default exit."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.bridged_frames import bridge_passages
from viacheck.analysis.container_facts import AgentFault, agent_fault, engine_name, engine_program, is_unhealthy
from viacheck.analysis.default_routes import default_route_by
from viacheck.analysis.gateway_facts import gateway_facts
from viacheck.analysis.local_networks import drops_to_uplinks
from viacheck.analysis.nat_facts import (
    Direction,
    forwarded_probes,
    forwarding_sysctls_off,
    internal_network,
    overlapping_networks,
)
from viacheck.analysis.paths import PathTracer, probe_traffic
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.sightings import left_by
from viacheck.analysis.traced_path import PathEnd
from viacheck.diagnosis.accept_remedy import accept_agent, accept_bridge, accept_decision
from viacheck.diagnosis.cause import ANSWERS, EGRESS, REACHES_GATEWAY, Cause
from viacheck.diagnosis.egress import PROBED
from viacheck.diagnosis.engine_start import parent_was_late
from viacheck.diagnosis.remedy import NO_REMEDY, Remedy, command
from viacheck.diagnosis.site_file import CORRECT_GATEWAY, gateway_line
from viacheck.model.check_evidence import StateEvidence
from viacheck.model.measurements import Measurements

_AGENT_AWAY = EGRESS | {"ROUTE-05", "ROUTE-06", "EGRESS-07"}
_UPLINK_AWAY = EGRESS | REACHES_GATEWAY | {"HOST-03", "ROUTE-04", "ROUTE-05", "ROUTE-06", "NAT-02", "EGRESS-07"}
_DEFAULT_AWAY = frozenset({"HOST-03", "HOST-06", "EGRESS-04", "ROUTE-06"})


def engine_or_agent_away(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find an engine that does not answer, or an agent that does not run.

    A missing privilege to ask either proves nothing about them.
    """
    problem = resolved.snapshot.problem("engine")
    agent_problem = resolved.snapshot.problem("agent")
    agent = resolved.intent.agent
    if any(unread.missing for unread in (problem, agent_problem) if unread is not None):
        return
    if problem is not None and agent.container is not None:
        yield Cause(
            "ENGINE_UNREACHABLE", "HOST-01", f"the Docker engine does not answer: {problem.reason}",
            Remedy((command("systemctl", "start", "docker"),), (command("systemctl", "stop", "docker"),)),
            _AGENT_AWAY | {"HOST-07"},
        )  # fmt: skip
    elif (fault := agent_fault(resolved)) is not None:
        container = resolved.snapshot.container
        late = parent_was_late(resolved, container.state.error) if container is not None else None
        text, remedy = fault.text, _start_agent(fault.fault, agent.container)
        if late is not None:
            text, remedy = f"{text}. {late[0]}", late[1]
        yield Cause(
            "AGENT_NOT_RUNNING", "HOST-07", text, remedy,
            _AGENT_AWAY | REACHES_GATEWAY | {"MACVLAN-02", "PIPEWORK-03", "NAT-03"},
        )  # fmt: skip
    elif resolved.snapshot.agent is None:
        unread = resolved.snapshot.problem("container") or agent_problem
        why = f": {unread.reason}" if unread is not None else ""
        remedy, decision, missing = NO_REMEDY, None, resolved.snapshot.problem("container") is not None
        if missing:
            decision = f"create the container {agent.name}, or correct the site file ([agent] container)"
        elif agent.container:
            remedy = Remedy(
                (command("docker", "start", agent.container),), (command("docker", "stop", agent.container),)
            )
        yield Cause(
            "AGENT_NOT_RUNNING", "HOST-07",
            f"there is no agent: {unread.reason}" if missing and unread is not None
            else f"the agent {agent.name} does not run, or its network namespace cannot be opened{why}",
            remedy, _AGENT_AWAY | {"MACVLAN-02", "NAT-03"}, decision=decision,
        )  # fmt: skip


def agent_unhealthy(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find a container that runs and whose own health check fails."""
    if is_unhealthy(resolved):
        name = resolved.intent.agent.container
        yield Cause(
            "AGENT_UNHEALTHY", "HOST-07", f"the container {name} runs, and its own health check says unhealthy",
            decision="read what it says: "
            f"{engine_program(resolved)} inspect --format '{{{{json .State.Health}}}}' {name}",
        )  # fmt: skip


def _start_agent(fault: AgentFault, container: str | None) -> Remedy:
    """Return the command that lets the agent run; a program that ends by itself needs its own correction."""
    if container is None or fault is AgentFault.CRASH_LOOP:
        return NO_REMEDY
    if fault is AgentFault.PAUSED:
        return Remedy((command("docker", "unpause", container),), (command("docker", "pause", container),))
    if fault is AgentFault.NO_INTERFACE:
        return Remedy((command("docker", "restart", container),), ())
    return Remedy((command("docker", "start", container),), (command("docker", "stop", container),))


def uplink_unusable(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find an uplink that is missing, down, without carrier or without address."""
    for name, uplink in resolved.intent.uplinks.items():
        also_affects = (_UPLINK_AWAY if name == resolved.uplink else frozenset[str]()) | {"HOST-03", "ROUTE-06"}
        if name == resolved.default_exit or resolved.default_exit is None:
            also_affects |= _DEFAULT_AWAY
        link = resolved.snapshot.host.link(name)
        if link is not None and name == resolved.parent and not link.carrier:
            continue  # PARENT_DOWN reports it
        if link is None:
            names = ", ".join(link.name for link in resolved.snapshot.host.links if link.name != "lo")
            yield Cause(
                "UPLINK_MISSING", "HOST-02", f"{name} does not exist; the host has {names}", also_affects=also_affects,
            )  # fmt: skip
        elif not link.up and link.master is None and not resolved.snapshot.host.addresses_of(name):
            # The kernel keeps the addresses of an interface that is down: nothing has configured this one.
            yield Cause(
                "UPLINK_DOWN", "HOST-02", f"{name} is administratively down and has no IPv4 address",
                also_affects=also_affects,
                decision=f"let what configures {name} bring it up: its network manager, its DHCP client or its modem's",
            )  # fmt: skip
        elif not link.up:
            yield Cause(
                "UPLINK_DOWN", "HOST-02",
                f"{name} is administratively down, so the kernel has removed every IPv4 route by it",
                _bring_up(resolved, name), also_affects,
            )  # fmt: skip
        elif not link.carrier:
            yield Cause(
                "NO_CARRIER", "HOST-02",
                f"{name} is up but has no carrier: check the cable, the port at its other end, or the radio's "
                "association", also_affects=also_affects,
            )  # fmt: skip
        elif link.master is None and not resolved.snapshot.host.addresses_of(name):
            yield Cause(
                "NO_ADDRESS", "HOST-02",
                f"{name} has no IPv4 address, so {uplink.gateway or 'nothing'} can be reached by it; add an address by "
                "hand, or start its DHCP client", also_affects=also_affects,
            )  # fmt: skip


def _bring_up(resolved: ResolvedIntent, name: str) -> Remedy:
    """Return the commands that bring an uplink up and set the default route that the kernel has removed."""
    default = default_route_by(resolved, name)
    routes = [command("ip", "route", "replace", *default)] if default else []
    if default and name == resolved.uplink and resolved.intent.policy_routed:
        routes = [command("ip", "route", "replace", *default, "table", resolved.table)]
    elif name != resolved.default_exit and resolved.default_exit is not None:
        routes = []
    up = command("ip", "link", "set", "dev", name, "up")
    return Remedy((up, *routes), (command("ip", "link", "set", "dev", name, "down"),))


def gateway_silent(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find a gateway that does not answer ARP although the uplink is usable."""
    # Without ARP requests of the run, in a bundle, the host's neighbour table shows a mistake of the site file.
    asked = measurements.traffic.gateway_macs
    by_neighbours = [
        name
        for name in resolved.arp_gateways
        if name not in asked and gateway_facts(resolved, measurements.traffic, name).site_file_is_wrong
    ]
    for name in [*measurements.traffic.silent_gateways, *by_neighbours]:
        gateway = resolved.arp_gateways[name]
        facts = gateway_facts(resolved, measurements.traffic, name)
        also_affects = frozenset({"ROUTE-06"})
        if facts.router_in_use is not None:
            yield Cause(
                "GATEWAY_SILENT", "HOST-03",
                f"gateway {gateway} of the site file does not answer ARP on {name}; {facts.router_in_use}, which this "
                f"host's default route by {name} uses, answers: the site file is wrong",
                also_affects=also_affects | ({"ROUTE-04"} if name == resolved.uplink else set()),
                site_file=gateway_line(name, facts.router_in_use), decision=CORRECT_GATEWAY,
            )  # fmt: skip
            continue
        if name == resolved.uplink and _takes_uplink(resolved, measurements):
            also_affects |= EGRESS | REACHES_GATEWAY
        if name == resolved.default_exit:
            also_affects |= {"EGRESS-04"}
        yield Cause(
            "GATEWAY_SILENT", "HOST-03",
            f"gateway {gateway} does not answer ARP on {name}: it is off, it is on another network, or the uplink's "
            "address is not in its network", also_affects=also_affects,
        )  # fmt: skip


def subnet_overlaps(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the agent's subnet overlaps a subnet or a route of the host."""
    overlaps = overlapping_networks(resolved)
    if overlaps:
        yield Cause(
            "SUBNET_OVERLAP", "HOST-05",
            f"the agent's subnet {resolved.agent_subnet} overlaps {'; '.join(overlaps)}: one of the two cannot be "
            f"reached. Give {engine_name(resolved)} another subnet ({_subnet_settings(resolved)})",
            also_affects=EGRESS | {"ROUTE-05", "ROUTE-06", "HOST-03"},
        )  # fmt: skip


def _subnet_settings(resolved: ResolvedIntent) -> str:
    """Return the settings that give the engine the subnets of its networks."""
    if engine_program(resolved) == "podman":
        return "'default_subnet' or 'default_subnet_pools' in /etc/containers/containers.conf"
    return "'bip' or 'default-address-pools' in /etc/docker/daemon.json"


def forwarding_off(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the kernel does not forward between the bridge and the uplink."""
    off = forwarding_sysctls_off(resolved)
    if "net/ipv4/ip_forward" in off:
        # ip_forward = 1 sets every interface's forwarding too (ip-sysctl.rst), so it alone is the remedy.
        off = ["net/ipv4/ip_forward"]
    if off:
        names = [_dotted(path) for path in off]
        yield Cause(
            "FORWARDING_OFF", "HOST-04", f"the kernel does not forward the agent's packets: {', '.join(names)} = 0",
            Remedy(
                tuple(command("sysctl", "-w", f"{name}=1") for name in names),
                tuple(command("sysctl", "-w", f"{name}=0") for name in names),
            ),
            EGRESS | {"ROUTE-05", "ROUTE-06"},
            (StateEvidence(title="sysctls", lines=[f"{name} = 0" for name in names]),),
        )  # fmt: skip


def _dotted(path: str) -> str:
    """Return a sysctl's name as sysctl(8) takes it: a dot inside an interface's name becomes a slash."""
    return ".".join(part.replace(".", "/") for part in path.split("/"))


def network_internal(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the agent's Docker network is internal; no rule of the packet filter changes that."""
    network = internal_network(resolved)
    if network is not None:
        yield Cause(
            "NETWORK_INTERNAL", "HOST-04",
            f"the Docker network {network} is internal ({engine_program(resolved)} network create --internal, "
            f"'internal: true' in a compose file): {engine_name(resolved)} gives its containers no default route and "
            "drops their packets. Opening the packet "
            "filter does not help; create the network again without this option, or attach the agent to another one",
            also_affects=EGRESS | {"ROUTE-05", "ROUTE-06", "NAT-02", "EGRESS-07"},
        )  # fmt: skip


def forward_dropped(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find a packet filter rule or policy that drops the agent's packets, or their answers, inside the host."""
    if resolved.agent_source is None or internal_network(resolved) is not None:
        return
    dropped = next((probe for probe in forwarded_probes(resolved) if probe.passage.drops), None)
    if dropped is None or dropped.passage.chain is None:
        return
    chain, rule = dropped.passage.chain, dropped.passage.rule
    what = f"the rule '{rule.text}'" if rule is not None else "the policy"
    where = f"chain {chain.name} of table {chain.table} ({chain.backend})"
    part = "a part of " if dropped.passage.partly else ""
    also_affects = ANSWERS if dropped.direction is Direction.ANSWER else ANSWERS | EGRESS | {"ROUTE-06"}
    if _takes_uplink(resolved, measurements):
        sentence = f"{what} of {where} drops {part}the agent's {dropped.direction}"
    else:
        later = f"once the packets leave by {resolved.uplink}"
        sentence = f"{what} of {where} will drop {part}the agent's {dropped.direction} {later}"
        pings = (passage for passage in drops_to_uplinks(resolved) if (passage.chain, passage.rule) == (chain, rule))
        also_affects = frozenset({"ROUTE-06"} if any(pings) else ())
    remedy = accept_agent(resolved)
    decision = None if remedy.steps else accept_decision(resolved, chain)
    yield Cause("FORWARD_DROPPED", "HOST-04", sentence, remedy, also_affects, decision=decision)


def dropped_on_arrival(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find a rule or policy of a prerouting chain that drops the agent's packets, or their answers by the uplink.

    Where the packets leave untranslated and no answer is seen, none arrives that a rule could drop: Docker 28 has such
    a rule for the address of each container.
    """
    tracer = PathTracer(resolved)
    paths = [tracer.trace(probe_traffic(resolved, protocol)) for protocol in resolved.intent.probe.protocols]
    own = None if resolved.bridged else resolved.agent_source
    came = any(
        sighting.role == "answer" and sighting.interface in resolved.egress_interfaces
        for packets in measurements.traffic.packets.values()
        for sighting in packets.sightings
    )
    for hops, what, reported_by, also_affects in (
        ([path.out for path in paths if path.end is PathEnd.DROPPED], "packets as they come from the agent",
         "EGRESS-01", EGRESS | {"EGRESS-08", "ROUTE-06"}),
        ([path.answer for path in paths if path.answer_returns is False and (came or path.source != own)],
         "answers as they arrive",
         "EGRESS-03", ANSWERS),
    ):  # fmt: skip
        dropped = next((last for *_, last in hops if (last.stage, last.model) == ("mangle", "dropped")), None)
        if dropped is not None:
            yield Cause(
                "FORWARD_DROPPED", reported_by,
                f"'{dropped.decides}' of the prerouting hook drops the {what} on {dropped.interface}, before they are "
                "routed",
                decision="find out who wrote the rule, and except the agent's traffic from it",
                also_affects=also_affects,
            )  # fmt: skip
            return


def bridged_frames_dropped(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the packet filter drops the frames of an agent that is a port of a LAN bridge."""
    link, address = resolved.bridged_link, resolved.agent_address
    port = resolved.snapshot.host.link_by_index(link.peer_index) if link is not None and link.peer_index else None
    if not resolved.on_bridge or port is None or port.master is None or address is None:
        return
    protocols = tuple(PROTOCOL_NUMBERS[protocol] for protocol in resolved.intent.probe.protocols)
    passages = bridge_passages(resolved.snapshot.host, port.master, address, resolved.target, protocols)
    dropped = next((passage for passage in passages if passage.allowed is False and passage.chain is not None), None)
    if dropped is None or dropped.chain is None:
        return
    what = f"the rule '{dropped.rule.text}'" if dropped.rule is not None else "the policy"
    yield Cause(
        "FORWARD_DROPPED", "EGRESS-01",
        f"{what} of chain {dropped.chain.name} of table {dropped.chain.table} ({dropped.chain.backend}) drops what "
        f"{port.master} forwards: the packet filter sees a bridge's frames as well "
        "(net.bridge.bridge-nf-call-iptables = 1, br_netfilter)",
        accept_bridge(resolved, port.master, dropped.chain), EGRESS | REACHES_GATEWAY | {"EGRESS-08", "EGRESS-09"},
    )  # fmt: skip


def _takes_uplink(resolved: ResolvedIntent, measurements: Measurements) -> bool:
    """Whether the agent's packets take the path by the uplink, so that a drop on this path can stop them."""
    elsewhere = set(resolved.egress_interfaces) - {resolved.uplink}
    if any(left_by(packets, elsewhere) for name, packets in measurements.traffic.packets.items() if name in PROBED):
        return False
    return resolved.agent_decision().interface in (resolved.uplink, None)
