"""The interfaces of a replica's host and agent, and the machines that their cables lead to.

The kernel here cannot build every kind of interface: a cable replaces a VLAN, a bond or a wireless interface, and a
note names it.
"""

from __future__ import annotations

import re
from dataclasses import replace

from netns_lab.draft import MachineDraft
from netns_lab.plan import HOST, Cable
from netns_lab.replica.upstream import GATEWAY_PORT, Upstream
from viacheck.analysis.paths import TUNNEL_KINDS
from viacheck.model.intent import Intent
from viacheck.model.namespace_state import Link, NetworkState

AGENT = "agent"
OPEN_ENDS = "open-ends"
"""The machine where every cable ends that leads to no gateway."""
PEER_INDEX = 100_000
"""The first index of the cables' other ends: equal indexes of both ends would delay a cable's carrier events."""
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_SMALLEST_MTU, _LARGEST_MTU = 68, 65535
_MACVLAN_MODES = ("private", "vepa", "bridge", "passthru", "source")
_SITS_ON_PARENT = ("macvlan", "macvtap", "ipvlan")


_OUTER_PORTS = {"veth": 1, "tun": 2}
"""Kinds of bridge ports that lead rather to a container or a virtual machine of the host; a card has no kind."""


class Cabling:
    """The interfaces of host and agent, the cables from them, and the machines at the cables' other ends.

    Attributes:
        host_links: the interfaces of the replica's host.
        agent_links: the interfaces of its agent, but its tunnels.
        agent_tunnels: the tunnels in the agent's namespace.
        cables: every cable.
        gateways: the gateways, by the host's interface.
        open_ends: the machine of the cables that lead to no gateway.
        silent: the uplinks whose gateway did not answer ARP.
        point_to_point: the host's interfaces that lead to one other end.
        notes: the differences from the original host.
    """

    def __init__(
        self,
        host: NetworkState,
        agent: NetworkState | None,
        intent: Intent,
        resolvers: tuple[str, ...],
        routed: str | None = None,
        silent_beyond: tuple[str, ...] = (),
    ) -> None:
        """Connect every interface of host and agent; :class:`Upstream` explains the other arguments."""
        self._host, self._agent, self._intent = host, agent, intent
        self._upstream = Upstream(host, intent, resolvers, routed, silent_beyond)
        self.cables: list[Cable] = []
        self.gateways = {uplink: self._upstream.gateway(uplink) for uplink in intent.uplinks}
        self.open_ends = MachineDraft(OPEN_ENDS)
        self.point_to_point = [link.name for link in host.links if link.point_to_point and link.name != "lo"]
        self.silent = [uplink for uplink in intent.uplinks if self._upstream.is_silent(uplink)]
        self.notes = [
            f"the gateway on {uplink} did not answer ARP on the host, and does not answer here"
            for uplink in self.silent
        ]
        self.host_links = [self._host_link(link) for link in host.links if link.name != "lo"]
        for gateway in self.gateways.values():
            if not gateway.links:
                _remove_port(gateway)
        agent_links = [link for link in agent.links if link.name != "lo"] if agent is not None else []
        self.agent_tunnels = [link for link in agent_links if link.kind in TUNNEL_KINDS]
        self.agent_links = [self._agent_link(link) for link in agent_links if link not in self.agent_tunnels]
        self.notes += [
            f"the agent's {link.name} is a tun device without a program here: what comes out of the tunnel is not known"
            for link in self.agent_tunnels
        ]

    def _host_link(self, link: Link) -> Link:
        veth = _veth(link, self._master(link))
        if link.point_to_point:
            veth = replace(veth, mac=_shared_mac(link))
        if link.kind == "bridge":
            return replace(veth, kind="bridge")
        if link.kind == "macvlan" and link.peer_netnsid is None and self._can_be_parent(link.peer_index):
            return replace(veth, kind="macvlan", peer_index=link.peer_index, mode=_mode(link))
        agent_end = self._agent_end(link)
        if agent_end is not None:
            self.cables.append(Cable(HOST, link.name, AGENT, agent_end.name))
            return veth
        host_end = self._host_end(link)
        if host_end is not None:
            if link.index < host_end.index:
                self.cables.append(Cable(HOST, link.name, HOST, host_end.name))
            return veth
        self._connect_to_gateway(link)
        if link.wireless:
            self.notes.append(f"{link.name}: a cable replaces the wireless interface")
        elif link.kind not in (None, "veth"):
            self.notes.append(f"{link.name}: a cable replaces the {link.kind}, which cannot be built here")
        return veth

    def _agent_link(self, link: Link) -> Link:
        veth = _veth(link, None)
        if link.kind in _SITS_ON_PARENT and link.peer_netnsid is not None and self._can_be_parent(link.peer_index):
            if link.kind != "macvlan":
                self.notes.append(f"the agent's {link.name}: a macvlan replaces the {link.kind}")
            return replace(veth, kind="macvlan", peer_index=link.peer_index, peer_netnsid=0, mode=_mode(link))
        if not any(cable.other_machine == AGENT and cable.other_interface == link.name for cable in self.cables):
            self._leave_open(AGENT, link)
            self.notes.append(f"the agent's {link.name} is not connected here: its other end is not on the host")
        return veth

    def _master(self, link: Link) -> str | None:
        master = self._host.link(link.master) if link.master is not None else None
        if master is None or master.kind == "bridge":
            return link.master if master is not None else None
        self.notes.append(f"{link.name}: is not a part of {master.name} here, because a cable replaces {master.name}")
        return None

    def _can_be_parent(self, index: int | None) -> bool:
        """Return whether the host's interface of that index can be the parent of a macvlan."""
        parent = self._host.link_by_index(index) if index is not None else None
        return parent is not None and parent.name != "lo" and parent.master is None and parent.kind != "macvlan"

    def _agent_end(self, link: Link) -> Link | None:
        """Return the agent's end of a veth pair whose other end this is."""
        if self._agent is None or link.kind != "veth" or link.peer_netnsid is None or link.peer_index is None:
            return None
        other = self._agent.link_by_index(link.peer_index)
        if other is None or other.kind != "veth" or other.peer_index != link.index or other.peer_netnsid is None:
            return None
        return other

    def _host_end(self, link: Link) -> Link | None:
        """Return the other end of a veth pair that does not leave the host."""
        if link.kind != "veth" or link.peer_netnsid is not None or link.peer_index is None:
            return None
        other = self._host.link_by_index(link.peer_index)
        if other is None or other is link or other.kind != "veth" or other.peer_index != link.index:
            return None
        return other

    def _connect_to_gateway(self, link: Link) -> None:
        """Connect an interface to its gateway, or to the open ends when it has none."""
        if not _has_carrier(link):
            self.notes.append(f"{link.name} had no carrier: its other end is down")
        name = link.name
        if link.master in self._intent.uplinks and link is self._outer_port(link.master):
            name = link.master
        if name not in self.gateways and self._upstream.has_gateway(name):
            self.gateways[name] = self._upstream.gateway(name)
        gateway = self.gateways.get(name)
        if gateway is None or any(port.name == GATEWAY_PORT for port in gateway.links):
            self._leave_open(HOST, link)
            return
        port = _peer(link, PEER_INDEX + link.index, GATEWAY_PORT)
        mac = self._upstream.mac_of_gateway(name)
        mac = mac if _is_mac(mac) and mac != link.mac else None
        gateway.links.append(replace(port, mac=_shared_mac(link) if link.point_to_point else mac))
        self.cables.append(Cable(HOST, link.name, gateway.name, GATEWAY_PORT))
        if not _has_carrier(link):
            # The kernel refuses a route by an interface that is down.
            gateway.routes = []

    def _outer_port(self, bridge: str) -> Link | None:
        """Return the port by which a bridge leaves the host: a card, else a veth, else a tap of a virtual machine.

        A port with a carrier comes first.
        """
        ports = [link for link in self._host.links if link.master == bridge]
        outside = [port for port in ports if self._agent_end(port) is None and self._host_end(port) is None]
        return min(outside, key=lambda port: (not port.carrier, _OUTER_PORTS.get(port.kind or "", 0)), default=None)

    def _leave_open(self, machine: str, link: Link) -> None:
        number = len(self.open_ends.links)
        self.open_ends.links.append(_peer(link, 2 * PEER_INDEX + number, f"open{number}"))
        self.cables.append(Cable(machine, link.name, OPEN_ENDS, f"open{number}"))


def _remove_port(gateway: MachineDraft) -> None:
    """Remove the addresses, routes and services that a gateway without a cable cannot have."""
    gateway.addresses = [address for address in gateway.addresses if address.interface != GATEWAY_PORT]
    addresses = [address.address for address in gateway.addresses]
    gateway.answers_on = tuple(address for address in addresses if address in gateway.answers_on)
    gateway.routes, gateway.dhcp = [], None


def _veth(link: Link, master: str | None) -> Link:
    return Link(
        index=link.index, name=link.name, kind="veth", flags=("UP",) if link.up else (),
        mac=link.mac if _is_mac(link.mac) else None, mtu=_mtu(link), master=master,
    )  # fmt: skip


def _peer(link: Link, index: int, name: str) -> Link:
    return Link(index=index, name=name, kind="veth", flags=("UP",) if _has_carrier(link) else (), mtu=_mtu(link))


def _shared_mac(link: Link) -> str:
    """Return the MAC address of both ends of a point-to-point cable: without ARP each end sends to its own address."""
    return f"02:00:00:00:{link.index >> 8 & 0xFF:02x}:{link.index & 0xFF:02x}"


def _has_carrier(link: Link) -> bool:
    """Return whether the other end is up; an interface that is down does not show its carrier, so assume a carrier."""
    return link.carrier or not link.up


def _mode(link: Link) -> str:
    return link.mode if link.kind == "macvlan" and link.mode in _MACVLAN_MODES else "bridge"


def _mtu(link: Link) -> int:
    return min(max(link.mtu, _SMALLEST_MTU), _LARGEST_MTU)


def _is_mac(mac: str | None) -> bool:
    return mac is not None and _MAC.fullmatch(mac) is not None and mac != "00:00:00:00:00:00"
