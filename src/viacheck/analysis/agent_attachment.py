"""How the agent's interface is attached to this host, and what becomes of its frames before the host routes them."""

from __future__ import annotations

from viacheck.analysis.bridged_frames import CALLS_IPTABLES, bridge_passages
from viacheck.analysis.path_hops import deciders
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.routing.decision import Decision
from viacheck.analysis.routing.packet import Packet
from viacheck.model.namespace_state import Link


def unanswered_arp(
    resolved: ResolvedIntent, packet: Packet, arriving: str, link: Link, decision: Decision
) -> str | None:
    """Return why the host leaves the agent's ARP request unanswered; None when it answers, or none is sent.

    The kernel answers a request only if routing accepts it as a packet for the host (arp_process, net/ipv4/arp.c):
    the same rules and reverse-path check apply to it.
    """
    gateway, agent = decision.gateway, resolved.snapshot.agent
    if gateway is None and decision.route is None and not is_hosts_own(resolved, packet.destination):
        # The socket is bound to the interface, which has no route: the agent asks for the destination itself.
        return None if _proxies_arp(resolved, arriving) else decision.note or "it has no route by this interface"
    if gateway is None or ":" in packet.destination or agent is None or not is_hosts_own(resolved, gateway):
        return None
    permanent = any(
        entry.address == gateway and entry.interface == link.name and entry.state == "PERMANENT"
        for entry in agent.neighbours
    )
    if permanent:
        return None
    request = resolved.model.decide(Packet(source=packet.source, destination=gateway, iif=arriving))
    if request.outcome == "local" or not request.certain:
        return None
    return "; ".join([*deciders(request), *([request.note] if request.note else [])]) or request.outcome


def _proxies_arp(resolved: ResolvedIntent, interface: str) -> bool:
    """Return whether the host answers ARP on an interface for addresses that it routes (ip-sysctl, "proxy_arp")."""
    sysctls = resolved.snapshot.host.sysctls
    return any(sysctls.get(f"net/ipv4/conf/{name}/proxy_arp") == "1" for name in ("all", interface))


def arrival(resolved: ResolvedIntent, link: Link) -> str | None:
    """Return the host's interface on which packets of the agent's veth arrive: its bridge, else its other end."""
    if link.peer_index is None:
        return None
    port = resolved.snapshot.host.link_by_index(link.peer_index)
    return None if port is None or port.kind != "veth" else port.master or port.name


def bridged_to(resolved: ResolvedIntent, bridge: str, decision: Decision) -> str | None:
    """Return the uplink behind a bridge whose frames reach the agent's gateway without the host's routing."""
    gateway = decision.gateway or decision.packet.destination
    if is_hosts_own(resolved, gateway):
        return None
    ports = [link.name for link in resolved.snapshot.host.links if link.master == bridge]
    uplinks = [name for name in resolved.intent.uplinks if name == bridge or name in ports]
    return uplinks[0] if uplinks else None


def dropped_on(resolved: ResolvedIntent, bridge: str, packet: Packet) -> str | None:
    """Return the rule or policy of the forward hook that drops frames which a bridge forwards; None without one."""
    if ":" in packet.destination or packet.source is None:
        return None
    protocols = (packet.protocol,)
    host = resolved.snapshot.host
    for passage in bridge_passages(host, bridge, packet.source, packet.destination, protocols):
        if passage.allowed is False and passage.chain is not None:
            what = f"the rule '{passage.rule.text}'" if passage.rule is not None else "the policy"
            return f"{what} of chain {passage.chain.name} drops what {bridge} forwards ({CALLS_IPTABLES} = 1)"
    return None


def is_hosts_own(resolved: ResolvedIntent, address: str) -> bool:
    """Return whether an address is one of this host's own."""
    return any(own.address == address for own in resolved.snapshot.host.addresses)
