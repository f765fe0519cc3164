"""Causes that only packets show: the reverse-path check, the MTU, DNS, IPv6, copies."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from socket import IPPROTO_UDP

from viacheck.analysis.agent_network import own_interface_of
from viacheck.analysis.agent_rules import FIXED_PRIORITY
from viacheck.analysis.answers import answers_come_in_by, answers_lost, lossy_probes, strict_reverse_path
from viacheck.analysis.classes import TrafficClass, class_partition
from viacheck.analysis.paths import PathTracer
from viacheck.analysis.predict import other_gateway
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.sightings import answers_astray, answers_seen, departures, left_by
from viacheck.analysis.traced_path import Path, PathEnd, Traffic
from viacheck.diagnosis.cause import EGRESS, Cause
from viacheck.diagnosis.remedy import NO_REMEDY, Remedy, command, in_agent, set_agent_default
from viacheck.model.check_evidence import CounterEvidence, PacketsEvidence, PacketSighting, StateEvidence
from viacheck.model.measurements import Measurements
from viacheck.model.namespace_state import Link

PROBED = ("icmp", "udp", "tcp")
_DNS = 53


def reverse_path(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that replies reach the uplink and that its strict reverse-path check drops them."""
    uplink, packets = resolved.uplink, measurements.traffic.packets
    dropped = [
        name
        for name in PROBED
        if name in packets and not packets[name].answered and answers_seen(packets[name], uplink)
    ]
    if not dropped or not strict_reverse_path(resolved, uplink):
        return
    before, after = measurements.traffic.reverse_path_drops
    if measurements.traffic.packets and after == before:
        # The kernel counts what this check drops.
        return
    old = resolved.snapshot.host.sysctls.get(f"net/ipv4/conf/{uplink}/rp_filter", "0")
    sysctl = f"net.ipv4.conf.{uplink.replace('.', '/')}.rp_filter"
    yield Cause(
        "RP_FILTER_DROP", "EGRESS-03",
        f"replies arrive on {uplink}, and {uplink} drops them: its reverse-path check is strict, and without the "
        f"packets' mark the route back to their source does not use {uplink}",
        Remedy((command("sysctl", "-w", f"{sysctl}=2"),), (command("sysctl", "-w", f"{sysctl}={old}"),)),
        frozenset({"EGRESS-05", "EGRESS-06"}),
        (CounterEvidence(name="TcpExt IPReversePathFilter", before=before, after=after),),
    )  # fmt: skip


def arp_unanswered(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the host's strict reverse-path check leaves the agent's ARP request for its gateway unanswered."""
    if resolved.bridge is None or not strict_reverse_path(resolved, resolved.bridge):
        return
    packets = measurements.traffic.packets
    if any(left_by(packets[name], resolved.egress_interfaces) for name in PROBED if name in packets):
        # The agent still holds the answer to an earlier request.
        return
    path = PathTracer(resolved, answers=False).trace(Traffic(destination=resolved.target))
    if path.end is not PathEnd.DROPPED or path.out[-1].stage != "link":
        return
    sysctls = resolved.snapshot.host.sysctls
    old = sysctls.get("net/ipv4/conf/all/rp_filter", "0")
    yield Cause(
        "RP_FILTER_DROP", "EGRESS-01",
        f"{path.reason}; the reverse-path check of {resolved.bridge} is strict, and a rule for the agent's subnet also "
        "takes the host's own answers",
        Remedy(
            (command("sysctl", "-w", "net.ipv4.conf.all.rp_filter=2"),),
            (command("sysctl", "-w", f"net.ipv4.conf.all.rp_filter={old}"),),
        ),
        EGRESS | {"ROUTE-06"},
    )  # fmt: skip


def answers_elsewhere(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that answers come in by another uplink than the probes left by, which is the intended one."""
    other = answers_come_in_by(resolved, measurements.traffic)
    if other is not None:
        affected = frozenset({"EGRESS-05", "EGRESS-06"})
        yield _answers_by_other(resolved, measurements, resolved.uplink, other, affected)


def answers_to_wrong_uplink(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find the same of probes that left by another uplink than the intended one: two faults, each with its cause."""
    for name in PROBED:
        packets = measurements.traffic.packets.get(name)
        for left, other in answers_astray(packets, resolved.egress_interfaces) if packets is not None else ():
            if left != resolved.uplink:
                yield _answers_by_other(resolved, measurements, left, other, frozenset())
                return


def _answers_by_other(
    resolved: ResolvedIntent, measurements: Measurements, left: str, other: str, affected: frozenset[str]
) -> Cause:
    macs = {
        sighting.destination_mac
        for packets in measurements.traffic.packets.values()
        for sighting in packets.sightings
        if sighting.path_interface == other and sighting.role == "answer"
    }
    to = f" (to {', '.join(sorted(macs))})" if macs else ""
    drops = f"; the strict reverse-path check of {other} drops them" if strict_reverse_path(resolved, other) else ""
    return Cause(
        "ANSWERS_BY_OTHER_UPLINK", "EGRESS-03",
        f"probes leave by {left}, and their answers come in by {other}{to}{drops}. The gateway holds another MAC "
        f"address for {left}'s address, or another route to it: correct its ARP entry or route, and let only "
        f"{left} answer ARP for its address (net.ipv4.conf.all.arp_ignore)",
        also_affects=affected,
    )  # fmt: skip


def packets_lost(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that a part of the answers is lost, and more than the intent allows."""
    lossy = lossy_probes(resolved, measurements.traffic)
    text = answers_lost(resolved, measurements.traffic)
    if text is None:
        return
    to_gateway = "PIPEWORK-04" if resolved.intent.mode.startswith("pipework") else "MACVLAN-03"
    yield Cause(
        "PACKETS_LOST", to_gateway if set(lossy) == {"gateway"} else "EGRESS-03",
        f"a part of the answers is lost, more than {resolved.intent.probe.loss_allowed}: {text}",
        also_affects=frozenset({"EGRESS-01", "EGRESS-03", "EGRESS-06", "MACVLAN-03", "PIPEWORK-04"}),
    )  # fmt: skip


def other_router(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the agent's packets go to another router of the uplink's network than the intended gateway."""
    uplink = resolved.uplink
    gateways = measurements.traffic.gateway_macs.get(uplink, ())
    macs = {
        sighting.destination_mac
        for name in PROBED
        if name in measurements.traffic.packets
        for sighting in departures(measurements.traffic.packets[name], uplink)
        if sighting.destination_mac
    }
    predicted = other_gateway(resolved) if not macs else None
    if predicted is None and (not gateways or not macs - set(gateways)):
        return
    states = [resolved.snapshot.host, *([resolved.snapshot.agent] if resolved.snapshot.agent is not None else [])]
    addresses = sorted(
        {entry.address for state in states for entry in state.neighbours if entry.mac in macs and entry.family == 4}
    )
    router = predicted or f"{', '.join(sorted(macs - set(gateways)))}" + (
        f" ({', '.join(addresses)})" if addresses else ""
    )
    wanted, default = resolved.lan_gateway, resolved.agent_default
    known = f" ({', '.join(gateways)})" if gateways else ""
    remedy, route = NO_REMEDY, ""
    if resolved.bridged and default is not None and default.nexthops[0].gateway not in (None, wanted):
        route = f": the agent's default route is '{default}'"
        remedy = set_agent_default(resolved.intent, wanted, default.nexthops[0].interface, default)
    yield Cause(
        "GATEWAY_MISMATCH", "EGRESS-09",
        f"the agent's packets go to {router} instead of the gateway {wanted}{known}{route}",
        remedy, frozenset({"PIPEWORK-04"}) | (frozenset() if macs else EGRESS),
    )  # fmt: skip


def mtu_trap(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that full-size packets are lost without an ICMP error while small ones pass."""
    packets = measurements.traffic.packets.get("full-size")
    if packets is None or packets.answered:
        return
    host, uplink = resolved.snapshot.host, resolved.uplink
    link, bridge = host.link(uplink), host.link(resolved.bridge) if resolved.bridge else None
    agent, parent = resolved.agent_link, resolved.parent_link
    if agent is not None and parent is not None and agent.mtu < parent.mtu:
        yield Cause(
            "MTU_TRAP", "EGRESS-06",
            f"the agent's {agent.name} keeps MTU {agent.mtu} while its parent {parent.name} has {parent.mtu}: a "
            "macvlan interface follows its parent's MTU down, but not up again",
            _set_agent_mtu(resolved, agent, parent.mtu), evidence=(_mtu_evidence(agent, parent),),
        )  # fmt: skip
        return
    remedy = NO_REMEDY
    if link is not None and agent is not None and link.mtu < agent.mtu:
        remedy = _set_agent_mtu(resolved, agent, link.mtu)
    size = agent.mtu if agent is not None else 1500
    between = f"are lost between {resolved.bridge or 'the agent'} and {uplink}"
    where = f"leave by {uplink} and are lost beyond it" if departures(packets, uplink) else between
    yield Cause(
        "MTU_TRAP", "EGRESS-06",
        f"packets of {size} bytes {where}, and no 'fragmentation needed' reaches the agent: small exchanges work, "
        "large ones hang",
        remedy, evidence=(_mtu_evidence(link, bridge),),
    )  # fmt: skip


def _set_agent_mtu(resolved: ResolvedIntent, link: Link, mtu: int) -> Remedy:
    set_mtu = ("ip", "link", "set", "dev", link.name, "mtu")
    return Remedy((in_agent(resolved.intent, *set_mtu, mtu),), (in_agent(resolved.intent, *set_mtu, link.mtu),))


def _mtu_evidence(*links: Link | None) -> StateEvidence:
    lines = [f"{link.name}: MTU {link.mtu}" for link in links if link is not None]
    return StateEvidence(title="MTU on the path", lines=lines)


def dns_by_another_path(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find what leads the agent's queries astray: a rule, or a resolver on the host that forwards them as its own."""
    packets = measurements.traffic.packets.get("dns")
    away = [query for query in departures(packets) if query.source != resolved.agent_address6] if packets else []
    others = {query.path_interface for query in away} & set(resolved.egress_interfaces) - {resolved.uplink}
    if packets is not None and not others and not foreign_departures(resolved, packets):
        return
    path = next((astray.path for astray in class_partition(resolved).astray() if _redirects_dns(astray)), None)
    if path is not None:
        interfaces = ", ".join(sorted(path.egress))
        yield Cause(
            "CLASS_BYPASSES_UPLINK", "EGRESS-05",
            f"this host sends the agent's DNS queries to {path.destination} instead, by {interfaces}: {path.reason}",
            decision="except the agent's packets from that rule, if its queries are to leave as the others do",
        )  # fmt: skip
    elif (path := _queries_astray(resolved)) is not None:
        yield Cause(
            "CLASS_BYPASSES_UPLINK", "EGRESS-05",
            f"the agent's DNS queries to {path.traffic.destination} leave by {path.egress_text} instead of "
            f"{resolved.uplink}, because of {path.reason}",
            decision="remove that rule or route, if its queries are to leave as the others do",
        )  # fmt: skip
    if path is not None or packets is None:
        return
    queries = [query for query in away if query.path_interface in (others or {resolved.uplink})]
    sources = ", ".join(sorted({query.source for query in queries}))
    interfaces = ", ".join(sorted({query.path_interface for query in queries}))
    container = resolved.intent.agent.container or "the container"
    why = "not as the agent's own packets" if resolved.bridged else "where the agent's rule does not match"
    yield Cause(
        "DNS_OTHER_PATH", "EGRESS-05",
        f"the agent's DNS queries leave by {interfaces} with source {sources}: a resolver on the host forwards them "
        f"from its own namespace, {why}. Give the agent a resolver beyond the uplink ('--dns' when {container} is "
        "created)",
    )  # fmt: skip


def _queries_astray(resolved: ResolvedIntent) -> Path | None:
    """Return the path of the agent's queries to a resolver beyond the host that its rules send elsewhere."""
    for address in resolved.snapshot.resolvers or ():
        if ":" in address or ip_address(address).is_loopback or own_interface_of(resolved, address) is not None:
            continue
        path = PathTracer(resolved).trace(Traffic(destination=address, protocol=IPPROTO_UDP, dport=_DNS))
        if path.end is PathEnd.LEAVES and path.all_egress != {resolved.uplink}:
            return path
    return None


def _redirects_dns(traffic_class: TrafficClass) -> bool:
    """Whether the host's destination NAT takes DNS queries of a class."""
    selector = traffic_class.selector
    return selector.protocol == IPPROTO_UDP and _DNS in selector.ports and traffic_class.path.destination is not None


def foreign_departures(resolved: ResolvedIntent, packets: PacketsEvidence) -> list[PacketSighting]:
    """Return a bridged agent's probes that left by its uplink with a MAC or IPv4 address that is not the agent's."""
    if not resolved.bridged:
        return []
    return [
        sighting
        for sighting in departures(packets, resolved.uplink)
        if ":" not in sighting.source and not resolved.is_agents_own(sighting)
    ]


def ipv6_escapes(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that IPv6 packets leave by another uplink, because the rule is for IPv4 only."""
    others = sorted(
        {
            sighting.path_interface
            for name in ("ipv6", "dns")
            if name in measurements.traffic.packets
            for sighting in departures(measurements.traffic.packets[name])
            if ":" in sighting.source and sighting.path_interface in resolved.egress_interfaces
        }
        - {resolved.uplink}
    )
    if not others or resolved.agent_address6 is None:
        return
    state, table = resolved.snapshot.host, resolved.table
    addresses = state.addresses_of(resolved.bridge or "", 6)
    subnet = next((address.network for address in addresses if address.scope == "global"), None)
    selector = ("priority", FIXED_PRIORITY, "from", subnet or resolved.agent_address6, "lookup", table)
    steps = [command("ip", "-6", "rule", "add", *selector)]
    rollback = [command("ip", "-6", "rule", "del", *selector)]
    if not any(route.is_default for route in state.table(table, 6)):
        gateway = resolved.intent.uplinks[resolved.uplink].gateway6
        default = ("default", "via", gateway, "dev", resolved.uplink) if gateway else ("unreachable", "default")
        steps.insert(0, command("ip", "-6", "route", "add", *default, "table", table))
        rollback.append(command("ip", "-6", "route", "del", *default, "table", table))
    yield Cause(
        "IPV6_ESCAPES", "EGRESS-07",
        f"the agent's IPv6 packets leave by {', '.join(others)}: no IPv6 rule sends {subnet} to table {table}",
        Remedy(tuple(steps), tuple(rollback)), frozenset({"EGRESS-05"}),
    )  # fmt: skip


def copied(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the same packet leaves by the intended uplink and by another interface as well."""
    copies: dict[str, int] = {}
    for name in PROBED:
        packets = measurements.traffic.packets.get(name)
        if packets is None:
            continue
        left = left_by(packets, resolved.egress_interfaces)
        for interface, numbers in left.items():
            both = numbers & left.get(resolved.uplink, set())
            if interface != resolved.uplink and both:
                copies[interface] = copies.get(interface, 0) + len(both)
    for interface, count in copies.items():
        yield Cause(
            "PACKETS_COPIED", "EGRESS-01",
            f"{count} probes left by {resolved.uplink} and once more by {interface}: something on this host copies "
            "packets (nftables 'dup', iptables TEE, or a tc mirror)",
            also_affects=frozenset({"EGRESS-02", "EGRESS-05"}),
        )  # fmt: skip
