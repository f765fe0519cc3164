"""Facts about an agent that pipework attaches: its address, its default route, its lease, and leftover interfaces.

The checks of the pipework chapter and the causes of their failures both read them.
"""

from __future__ import annotations

from dataclasses import dataclass

from viacheck.analysis.dhcp_offers import LeaseEnd, lease_end
from viacheck.analysis.macvlan_facts import lan_subnets
from viacheck.analysis.resolved_intent import ResolvedIntent, is_leftover
from viacheck.model.intent import PipeworkDhcpAttach, PipeworkStaticAttach
from viacheck.model.namespace_state import Link


@dataclass(frozen=True, slots=True)
class LeftoverLink:
    """An interface that a failed run of pipework left behind."""

    link: Link
    in_agent: bool
    """It is in the agent's namespace; else on the host."""


def pipework_attach(resolved: ResolvedIntent) -> PipeworkStaticAttach | PipeworkDhcpAttach | None:
    """Return the intent's attachment where pipework makes it; None for other modes."""
    attach = resolved.intent.agent.attach
    return attach if isinstance(attach, PipeworkStaticAttach | PipeworkDhcpAttach) else None


def docker_networks_beside(resolved: ResolvedIntent) -> list[str]:
    """Return the Docker networks that the container is on, without ``none``."""
    container = resolved.snapshot.container
    networks = [attachment.network for attachment in container.attachments] if container is not None else []
    return [network for network in networks if network != "none"]


def address_fault(resolved: ResolvedIntent) -> str | None:
    """Describe what is wrong with the address of pipework's interface; None when it is as intended or leased."""
    attach, address = pipework_attach(resolved), resolved.bridged_address
    if isinstance(attach, PipeworkStaticAttach):
        present = f"{address.address}/{address.prefixlen}" if address is not None else None
        if present != str(attach.address):
            return f"the address is {present or 'missing'}, not {attach.address}"
    elif address is None:
        return "it has no address"
    elif (lans := lan_subnets(resolved)) and address.network not in lans:
        return f"the address {address.address}/{address.prefixlen} is not on the parent's LAN"
    return None


def default_route_fault(resolved: ResolvedIntent) -> str | None:
    """Describe the fault of the agent's default route; None when it uses the intended gateway and interface."""
    default, link = resolved.agent_default, resolved.bridged_link
    if default is None:
        return "the agent has no default route"
    hops = {(hop.gateway, hop.interface) for hop in default.nexthops}
    if link is not None and hops == {(resolved.lan_gateway, link.name)}:
        return None
    return f"the agent's default route is '{default}', not by {resolved.lan_gateway}"


def unattended_lease_end(resolved: ResolvedIntent) -> LeaseEnd | None:
    """Return when the agent's leased address ends because no client renews it; None without such an end."""
    address, clients = resolved.bridged_address, resolved.snapshot.dhcp_clients
    is_leased = isinstance(pipework_attach(resolved), PipeworkDhcpAttach)
    if not is_leased or address is None or clients is None or clients:
        return None
    return lease_end(resolved.snapshot, address)


def leftover_links(resolved: ResolvedIntent) -> list[LeftoverLink]:
    """Return the interfaces that failed runs of pipework left behind, on the host first."""
    agent = resolved.snapshot.agent
    on_host = [LeftoverLink(link, in_agent=False) for link in resolved.snapshot.host.links if is_leftover(link)]
    agent_links = agent.links if agent is not None else ()
    return on_host + [LeftoverLink(link, in_agent=True) for link in agent_links if is_leftover(link)]
