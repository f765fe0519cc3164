"""Where the agent's packets go by its own routing, and whether its attachment is the one that the intent says.

The agent's namespace is a router like any other: it may share the host's network, lead into a tunnel, prefer another
network, or have no default route. The host's rules and source NAT decide nothing for such packets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address

from viacheck.analysis.paths import PathTracer, probe_traffic
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.routing.model import Packet, RoutingModel
from viacheck.analysis.traced_path import Path, PathEnd, Traffic
from viacheck.model.docker_state import Attachment, DockerNetwork
from viacheck.model.intent import MacvlanAttach, NatAttach, TransportProtocol
from viacheck.model.intent_draft import attachment_lines
from viacheck.model.namespace_state import Link
from viacheck.model.route import Route
from viacheck.model.toml_text import toml_text

EMBEDDED_RESOLVER = "127.0.0.11"
DNS_PORT = 53
NO_NETWORK = "none"
"""Docker's network of a container without one."""


class ApartBy(StrEnum):
    """Why the agent's packets do not pass its intended attachment."""

    HOST_NETWORK = "host-network"
    TUNNEL = "tunnel"
    USERSPACE = "userspace"


@dataclass(frozen=True, slots=True)
class AgentNetwork:
    """An agent whose packets do not pass its intended attachment."""

    kind: ApartBy
    text: str


@dataclass(frozen=True, slots=True)
class AttachedElsewhere:
    """The Docker networks that the agent's container is on, none of which the intent names."""

    text: str
    networks: tuple[DockerNetwork, ...]
    site_file: tuple[str, ...]
    """The lines of the site file that say what Docker says; empty where no mode fits."""

    @property
    def named_by_person(self) -> bool:
        """Whether a person or a compose file made one of the networks, so that the agent is there on purpose."""
        return any(network.name != "bridge" for network in self.networks)


@dataclass(frozen=True, slots=True)
class OtherDefault:
    """The agent's route by another of its networks than the intended one."""

    interface: str
    network: str | None
    """The Docker network; None for an interface that Docker did not make."""
    route: Route
    intended: Link


@lru_cache(maxsize=32)
def own_path(resolved: ResolvedIntent, protocol: TransportProtocol | None = None) -> Path:
    """Return the path of the agent's probe to the probe target; without a protocol, of the first that is probed.

    Traced once for each host: every cause asks for it.
    """
    traffic = probe_traffic(resolved, protocol or resolved.intent.probe.protocols[0])
    return PathTracer(resolved, answers=False).trace(traffic)


def apart_from_attachment(resolved: ResolvedIntent) -> AgentNetwork | None:
    """Return why the agent's packets do not pass its attachment; None when they may."""
    if resolved.snapshot.agent is None:
        return None
    if resolved.shares_host_network:
        return AgentNetwork(ApartBy.HOST_NETWORK, "the agent shares the host's network: its packets are the host's own")
    if (carrier := resolved.snapshot.carrier) is not None:
        return AgentNetwork(
            ApartBy.USERSPACE, f"{carrier} carries the agent's packets: it sends them from sockets of this host"
        )
    path = own_path(resolved)
    return AgentNetwork(ApartBy.TUNNEL, path.reason) if path.end is PathEnd.TUNNEL else None


def intended_docker_network(resolved: ResolvedIntent) -> str | None:
    """Return the name of the Docker network that the intent names; None for pipework, which wants none."""
    attach = resolved.intent.agent.attach
    return attach.network if isinstance(attach, NatAttach | MacvlanAttach) else None


def attached_elsewhere(resolved: ResolvedIntent) -> AttachedElsewhere | None:
    """Return the networks of an agent that is not on the Docker network of the intent; None when it is, or not known.

    A container that shares another container's namespace has that one's networks.
    """
    engine, container, wanted = resolved.snapshot.engine, resolved.snapshot.container, intended_docker_network(resolved)
    if engine is None or container is None or wanted is None or resolved.shares_host_network:
        return None
    if container.network_mode.startswith("container:") and container.namespace_of is None:
        return None
    names = [on.network for on in container.attachments if on.network != NO_NETWORK]
    if not names and resolved.snapshot.carrier is not None:
        names = [resolved.snapshot.carrier]
    if wanted in names:
        return None
    shared = f" (it shares the network of {container.namespace_of})" if container.namespace_of else ""
    networks = tuple(network for name in names if (network := engine.network(name)) is not None)
    text = f"{container.name} is on {', '.join(names) or 'no Docker network'}{shared}, not on {wanted}"
    return AttachedElsewhere(text, networks, next((_site_file(resolved, network) for network in networks), ()))


def _site_file(resolved: ResolvedIntent, network: DockerNetwork) -> tuple[str, ...]:
    """Return the lines of the site file that say that the agent is on a Docker network."""
    lines = attachment_lines(network)
    uplink = network.parent if network.parent not in (None, resolved.uplink) else None
    egress = ("[egress]", f"uplink = {toml_text(uplink)}") if uplink is not None else ()
    return ("[agent.attach]", *lines, *egress) if lines else ()


def attachment_to(resolved: ResolvedIntent, network: str) -> Attachment | None:
    """Return the container's attachment to a Docker network."""
    container = resolved.snapshot.container
    return next((on for on in container.attachments if on.network == network), None) if container is not None else None


def intended_link(resolved: ResolvedIntent) -> Link | None:
    """Return the agent's interface on its intended network; None where it does not differ from others."""
    agent, wanted = resolved.snapshot.agent, intended_docker_network(resolved)
    if agent is None:
        return None
    if resolved.bridged:
        return resolved.bridged_link
    attachment = attachment_to(resolved, wanted) if wanted is not None else None
    own = attachment.address if attachment is not None else None
    if resolved.intent.agent.netns is not None and resolved.agent_subnet is not None:
        # No engine says which address of a bare namespace belongs to the intended network.
        subnet = resolved.agent_subnet
        own = next((on.address for on in agent.addresses if on.family == 4 and IPv4Address(on.address) in subnet), None)
    return next((agent.link(address.interface) for address in agent.addresses if address.address == own), None)


def other_default(resolved: ResolvedIntent) -> OtherDefault | None:
    """Return the other network by which the agent's own routing sends its packets; None when it is the intended one."""
    agent, intended = resolved.snapshot.agent, intended_link(resolved)
    if agent is None or intended is None:
        return None
    decision = RoutingModel(agent).decide(Packet(source=None, destination=resolved.target))
    interface, route = decision.interface, decision.route
    if interface in (None, intended.name, "lo") or route is None or interface is None:
        return None
    addresses = {address.address for address in agent.addresses_of(interface)}
    container = resolved.snapshot.container
    attachments = container.attachments if container is not None else ()
    network = next((on.network for on in attachments if on.address in addresses), None)
    return OtherDefault(interface, network, route, intended)


def no_own_route(resolved: ResolvedIntent) -> str | None:
    """Return why the agent's own routing refuses packets to the probe target; None when it sends them somewhere."""
    agent = resolved.snapshot.agent
    if agent is None or resolved.shares_host_network:
        return None
    path = own_path(resolved)
    if path.end is not PathEnd.NO_ROUTE or len(path.out) != 1:
        return None
    down = [link.name for link in agent.links if link.name != "lo" and not link.up]
    if down and not any(route.is_default for route in agent.routes if route.family == 4):
        return f"the agent's {', '.join(down)} is down, and its default route is gone"
    if not any(route.is_default for route in agent.routes if route.family == 4):
        addressed = any(own.family == 4 and own.interface != "lo" for own in agent.addresses)
        return "the agent has no default route" if addressed else "the agent has no IPv4 address, and so no route"
    return path.reason


def own_interface_of(resolved: ResolvedIntent, address: str) -> str | None:
    """Return the host's interface that has an address; None for an address of another machine."""
    return next((own.interface for own in resolved.snapshot.host.addresses if own.address == address), None)


def isolated_from_host(resolved: ResolvedIntent) -> bool:
    """Return whether the agent's interface passes no frame between the agent and its own host."""
    link = resolved.bridged_link
    return link is not None and not resolved.on_bridge


def own_resolvers_apart(resolved: ResolvedIntent) -> list[str]:
    """Return the agent's resolvers that are the host itself, where macvlan or ipvlan isolates the agent from it."""
    if not isolated_from_host(resolved):
        return []
    container = resolved.snapshot.container
    named = [*(resolved.snapshot.resolvers or ()), *(container.dns if container is not None else ())]
    if EMBEDDED_RESOLVER in named and container is not None and not container.dns:
        # Docker's own resolver asks those of the host.
        named += resolved.snapshot.host_resolvers or ()
    own = [address for address in named if own_interface_of(resolved, address) and not address.startswith("127.")]
    return list(dict.fromkeys(own))


def resolver_paths(resolved: ResolvedIntent) -> dict[str, Path]:
    """Return the path of a query to each resolver with an IPv4 address that the agent's resolv.conf names."""
    tracer = PathTracer(resolved, answers=False)
    return {
        resolver: tracer.trace(Traffic(destination=resolver, protocol=PROTOCOL_NUMBERS["udp"], dport=DNS_PORT))
        for resolver in resolved.snapshot.resolvers or ()
        if ":" not in resolver
    }
