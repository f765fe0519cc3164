"""Facts about a bridged agent's place on its LAN: the network, its parent, its pool, and the agent's other interfaces.

The checks of the chapters macvlan and pipework and the causes of their failures both read them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_interface
from typing import Literal

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.sightings import left_by
from viacheck.model.docker_state import DockerNetwork
from viacheck.model.intent import MacvlanAttach
from viacheck.model.intent_rules import BY_DRIVER
from viacheck.model.measurements import TrafficMeasurements
from viacheck.model.namespace_state import Link

MACVLAN_SINCE = (1, 12)
SELF_BUILT = (0, 0)
NetworkFaultCode = Literal["NETWORK_WRONG_DRIVER", "PARENT_WRONG", "SUBNET_MISMATCH", "GATEWAY_MISMATCH"]


@dataclass(frozen=True, slots=True)
class NetworkFault:
    """One property of the macvlan network that is not as intended."""

    code: NetworkFaultCode
    """The diagnosis code."""
    text: str


def lan_subnets(resolved: ResolvedIntent) -> list[IPv4Network]:
    """Return the subnets of the parent's own addresses."""
    addresses = resolved.snapshot.host.addresses_of(resolved.parent) if resolved.parent is not None else ()
    return [IPv4Network(str(address.network)) for address in addresses if address.scope == "global"]


def intended_network(resolved: ResolvedIntent) -> DockerNetwork | None:
    """Return the Docker network that the intent names, if the engine has it."""
    attach = resolved.intent.agent.attach
    if resolved.snapshot.engine is None or not isinstance(attach, MacvlanAttach):
        return None
    return resolved.snapshot.engine.network(attach.network)


def network_faults(resolved: ResolvedIntent) -> list[NetworkFault]:
    """Return the faults of the macvlan network, the deepest first.

    The engine is the source; for an agent that is no container, its interface, address and default route are.
    """
    attach = resolved.intent.agent.attach
    assert isinstance(attach, MacvlanAttach)
    faults: list[NetworkFault] = []
    network, link = intended_network(resolved), resolved.bridged_link
    gateways: list[str | None]
    if network is not None:
        if network.driver != attach.mode:
            faults.append(NetworkFault("NETWORK_WRONG_DRIVER", f"the driver of {network.name} is {network.driver}"))
        elif parent_hidden(resolved):
            faults += _parent_fault(resolved, attach, link) if link is not None else []
        elif network.parent != attach.parent:
            faults.append(NetworkFault("PARENT_WRONG", f"the parent of {network.name} is {network.parent or 'none'}"))
        pools = [pool for pool in network.pools if ":" not in pool.subnet]
        subnets, gateways = [pool.subnet for pool in pools], [pool.gateway for pool in pools]
        if leased_by_engine(resolved):
            if link is None:
                return faults
            subnets, gateways = _own_lan(resolved)
    elif link is not None:
        if link.kind in BY_DRIVER and link.kind != attach.mode:
            faults.append(NetworkFault("NETWORK_WRONG_DRIVER", f"the agent's {link.name} is a {link.kind} interface"))
        faults += _parent_fault(resolved, attach, link)
        subnets, gateways = _own_lan(resolved)
    else:
        return faults
    return faults + _address_faults(resolved, attach, subnets, gateways)


def leased_by_engine(resolved: ResolvedIntent) -> bool:
    """Return whether the engine gets the agent's address from the LAN's DHCP server, as podman can."""
    network = intended_network(resolved)
    return network is not None and network.address_management == "dhcp"


def _own_lan(resolved: ResolvedIntent) -> tuple[list[str], list[str | None]]:
    """Return the subnet of the agent's own address and the gateways of its default route."""
    subnets = [str(resolved.bridged_address.network)] if resolved.bridged_address is not None else []
    default = resolved.agent_default
    return subnets, [hop.gateway for hop in default.nexthops] if default is not None else []


def parent_hidden(resolved: ResolvedIntent) -> bool:
    """Whether the engine's answer leaves out the parent of a network, as podman's does; the kernel knows it."""
    engine, network = resolved.snapshot.engine, intended_network(resolved)
    return engine is not None and engine.podman and network is not None and network.parent is None


def _parent_fault(resolved: ResolvedIntent, attach: MacvlanAttach, link: Link) -> list[NetworkFault]:
    """Compare the interface that the agent's interface sits on, as the kernel says, with the intended parent."""
    parent = resolved.parent_of(link)
    if parent is not None and parent.name == attach.parent:
        return []
    on = parent.name if parent is not None else "no interface of this host"
    return [NetworkFault("PARENT_WRONG", f"the agent's {link.name} sits on {on}")]


def _address_faults(
    resolved: ResolvedIntent, attach: MacvlanAttach, subnets: Sequence[str], gateways: Sequence[str | None]
) -> list[NetworkFault]:
    lans = lan_subnets(resolved)
    if subnets and str(attach.subnet) not in subnets:
        return [NetworkFault("SUBNET_MISMATCH", f"its subnet is {', '.join(subnets)}")]
    if lans and attach.subnet not in lans:
        own = f"{attach.parent} itself is in {', '.join(map(str, lans))}"
        return [NetworkFault("SUBNET_MISMATCH", f"its subnet is {attach.subnet}, but {own}")]
    if str(attach.gateway) not in gateways:
        names = ", ".join(str(gateway) for gateway in gateways)
        return [NetworkFault("GATEWAY_MISMATCH", f"its gateway is {names}" if names else "it has no gateway")]
    return []


def address_in_pool(resolved: ResolvedIntent) -> bool:
    """Whether the agent's address on its parent comes from the intended pool."""
    pool, address = resolved.agent_pool, resolved.bridged_address
    return pool is not None and address is not None and ip_interface(address.address).ip in pool


def unbridged_links(resolved: ResolvedIntent) -> list[Link]:
    """Return the agent's interfaces that are up, without loopback and those that sit on an interface of the host."""
    agent = resolved.snapshot.agent
    if agent is None:
        return []
    return [link for link in agent.links if link.name != "lo" and link.up and resolved.parent_of(link) is None]


def data_filtered(traffic: TrafficMeasurements, egress_interfaces: Sequence[str]) -> bool:
    """Whether IP from the agent's MAC address is lost although its ARP passes and the gateway answers the host.

    Args:
        traffic: the agent's pings to its gateway and the measurements on the parent's segment.
        egress_interfaces: the interfaces by which the pings must have left to count.
    """
    pings, segment = traffic.packets.get("gateway"), traffic.segment
    if pings is None or segment is None or segment.second_mac is None or not segment.gateway_answers_host:
        return False
    return segment.second_mac.upstream == "accepted" and not pings.answered and bool(left_by(pings, egress_interfaces))


def macvlan_supported(version: str) -> bool:
    """Return whether an engine of this version has the macvlan driver, as every release from 1.12 does.

    Engines built from source call themselves ``dev`` or ``0.0.0-<date>``, and all of them are newer.
    """
    number = re.match(r"v?(\d+)\.(\d+)", version.strip())
    if number is None:
        return True
    major_minor = int(number[1]), int(number[2])
    return major_minor == SELF_BUILT or major_minor >= MACVLAN_SINCE
