"""The namespace of an agent that is not in its host's snapshot, assumed from the engine's answers and the intent."""

from __future__ import annotations

from dataclasses import replace

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.intent import Intent, MacvlanAttach, PipeworkStaticAttach
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import Snapshot


class AgentUnknown(Exception):
    """The snapshot does not hold enough to assume the agent's namespace; the message says what is missing."""


def was_hidden(snapshot: Snapshot) -> bool:
    """Return whether the agent may have run, but missing privileges hid its namespace."""
    problems = (snapshot.problem(part) for part in ("agent", "container", "engine"))
    return any(problem is not None and problem.missing is not None for problem in problems)


def with_assumed_agent(snapshot: Snapshot, intent: Intent) -> Snapshot:
    """Return the snapshot with the agent's namespace as the engine and the intent describe it.

    Raises:
        AgentUnknown: when the agent's address, bridge or parent is unknown.
    """
    resolved = ResolvedIntent(intent, snapshot)
    if resolved.parent_link is not None:
        link, address, gateway = _on_parent(resolved, resolved.parent_link)
        host = snapshot.host
    else:
        host, port = _with_bridge_port(resolved)
        link, address, gateway = _behind_bridge(resolved, port)
    default = Route(
        family=4, table=254, destination="0.0.0.0/0", nexthops=(Nexthop(gateway=gateway, interface="eth0"),)
    )
    loopback = Link(index=1, name="lo", flags=("LOOPBACK", "UP", "LOWER_UP"), mtu=65536)
    agent = NetworkState(links=(loopback, link), addresses=(address,), routes=(default,))
    return replace(snapshot, host=host, agent=agent)


_Attachment = tuple[Link, Address, str | None]
"""The agent's interface, its address, and its gateway."""


def _on_parent(resolved: ResolvedIntent, parent: Link) -> _Attachment:
    attach, address = resolved.intent.agent.attach, resolved.agent_address
    if isinstance(attach, PipeworkStaticAttach):
        address = str(attach.address.ip)
    elif isinstance(attach, MacvlanAttach) and address is None:
        address = str((attach.ip_range or attach.subnet)[-2])
    lan = [address for address in resolved.snapshot.host.addresses_of(parent.name) if address.scope == "global"]
    if address is None or not lan:
        raise AgentUnknown("the agent's address on its parent is not in the snapshot: take it as root")
    link = Link(
        index=2, name="eth0", kind="macvlan", flags=("UP",), mtu=parent.mtu, mode="bridge",
        peer_index=parent.index, peer_netnsid=0,
    )  # fmt: skip
    return link, _eth0_address(address, lan[0].prefixlen), resolved.lan_gateway


def _with_bridge_port(resolved: ResolvedIntent) -> tuple[NetworkState, Link]:
    """Return the host with a port for the agent in its bridge, and that port; a single veth port is the agent's."""
    host = resolved.snapshot.host
    bridge = host.link(resolved.bridge) if resolved.bridge is not None else None
    if bridge is None:
        raise AgentUnknown("the agent's bridge is not in the snapshot: take it as root")
    ports = [link for link in host.links if link.master == bridge.name and link.kind == "veth"]
    if len(ports) == 1 and ports[0].peer_netnsid is not None:
        return host, ports[0]
    free = max(link.index for link in host.links) + 1
    port = Link(
        index=free, name=f"veth{free}", kind="veth", flags=("UP", "LOWER_UP"), operstate="UP",
        master=bridge.name, mtu=bridge.mtu, peer_index=2, peer_netnsid=0,
    )  # fmt: skip
    return replace(host, links=(*host.links, port)), port


def _behind_bridge(resolved: ResolvedIntent, port: Link) -> _Attachment:
    subnet = resolved.agent_subnet
    bridge_addresses = resolved.snapshot.host.addresses_of(port.master) if port.master is not None else ()
    if subnet is None or not bridge_addresses:
        raise AgentUnknown("the agent's subnet is not in the snapshot: take it as root")
    gateway = bridge_addresses[0].address
    address = resolved.agent_address or next(str(host) for host in subnet.hosts() if str(host) != gateway)
    link = Link(
        index=port.peer_index or 2, name="eth0", kind="veth", flags=("UP",), mtu=port.mtu,
        peer_index=port.index, peer_netnsid=0,
    )  # fmt: skip
    return link, _eth0_address(address, subnet.prefixlen), gateway


def _eth0_address(address: str, prefixlen: int) -> Address:
    return Address(interface="eth0", family=4, address=address, prefixlen=prefixlen)
