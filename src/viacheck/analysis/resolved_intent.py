"""The intent, resolved against the snapshot of a host.

The intent names a container and an uplink; the snapshot holds addresses, bridges and tables. The two are resolved once,
and checks, diagnoses and predictions read the result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, ip_address
from socket import IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP

from viacheck.analysis.link_layers import LinkLayers, link_layers, outer_ports
from viacheck.analysis.packet_filter.conditions import FilteredPacket
from viacheck.analysis.packet_filter.evaluate import after_prerouting
from viacheck.analysis.packet_filter.icmp import echo_request
from viacheck.analysis.routing.model import Decision, Packet, RoutingModel, without_interface
from viacheck.analysis.routing.table import BITS, mask, read_prefix
from viacheck.model.address_family import Family
from viacheck.model.check_evidence import PacketSighting
from viacheck.model.intent import Intent, MacvlanAttach, NatAttach, PipeworkStaticAttach, TransportProtocol
from viacheck.model.namespace_state import Address, Link
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Route
from viacheck.model.routing_names import TABLE_MAIN
from viacheck.model.snapshot import Snapshot

PROTOCOL_NUMBERS: dict[TransportProtocol, int] = {"icmp": IPPROTO_ICMP, "tcp": IPPROTO_TCP, "udp": IPPROTO_UDP}
DEFAULT_BRIDGE = "docker0"
ON_PARENT = ("macvlan", "macvtap", "ipvlan")
"""Kinds of interfaces that sit on a parent (IFLA_LINK)."""


@dataclass(frozen=True, eq=False)
class ResolvedIntent:
    """An intent and the snapshot of its host."""

    intent: Intent
    snapshot: Snapshot

    @cached_property
    def model(self) -> RoutingModel:
        """The routing model over the host's state."""
        return RoutingModel(self.snapshot.host)

    @property
    def uplink(self) -> str:
        """The uplink that the agent's packets must leave by."""
        return self.intent.egress.uplink

    @property
    def table(self) -> int:
        """The table that must decide for the agent's packets."""
        return self.intent.egress.table or TABLE_MAIN

    @property
    def target(self) -> str:
        """The address beyond the uplink that probes are sent to."""
        return str(self.intent.probe.target)

    def _agent_address(self, family: Family) -> Address | None:
        if self.snapshot.agent is None:
            return None
        candidates = [
            address
            for address in self.snapshot.agent.addresses
            if address.family == family and address.scope == "global" and address.interface != "lo"
        ]
        if self.bridged_link is not None:
            by_default = {self.bridged_link.name}
        else:
            by_default = {
                str(hop.interface)
                for route in self.snapshot.agent.routes
                if route.family == family and route.is_default and route.table == TABLE_MAIN
                for hop in route.nexthops
            }
        return next((a for a in candidates if a.interface in by_default), candidates[0] if candidates else None)

    @cached_property
    def agent_address(self) -> str | None:
        """The agent's own IPv4 address."""
        address = self._agent_address(4)
        if address is not None:
            return address.address
        container = self.snapshot.container
        if container is not None:
            attach = self.intent.agent.attach
            wanted = attach.network if isinstance(attach, NatAttach | MacvlanAttach) else None
            for attachment in container.attachments:
                if attachment.address and attachment.network == wanted:
                    return attachment.address
        return None

    @cached_property
    def agent_address6(self) -> str | None:
        """The agent's own global IPv6 address."""
        address = self._agent_address(6)
        return address.address if address is not None else None

    @cached_property
    def agent_link(self) -> Link | None:
        """The interface by which the agent is connected, inside its namespace."""
        agent = self.snapshot.agent
        if agent is None:
            return None
        if self.bridged_link is not None:
            return self.bridged_link
        address = self._agent_address(4) or self._agent_address(6)
        if address is not None:
            return agent.link(address.interface)
        return next((link for link in agent.links if link.name != "lo"), None)

    @cached_property
    def shares_host_network(self) -> bool:
        """Whether the agent is in the host's own network namespace, as with ``docker run --network host``."""
        snapshot = self.snapshot
        container = snapshot.container
        if container is not None:
            return container.network_mode == "host" or any(on.network == "host" for on in container.attachments)
        if snapshot.agent is None:
            return False
        here, there = (
            {(link.index, link.name, link.mac) for link in state.links} for state in (snapshot.host, snapshot.agent)
        )
        return here == there and len(here) > 1

    @property
    def sent_by_host(self) -> bool:
        """Whether the host routes the agent's packets as its own: they share a network, or a program carries them."""
        return self.shares_host_network or self.snapshot.carrier is not None

    @property
    def bridged(self) -> bool:
        """Whether the intent puts the agent on its parent's LAN, with a MAC address of its own."""
        return not isinstance(self.intent.agent.attach, NatAttach)

    @property
    def parent(self) -> str | None:
        """The uplink that a bridged agent's interface must sit on; None for NAT."""
        attach = self.intent.agent.attach
        return None if isinstance(attach, NatAttach) else attach.parent

    @cached_property
    def parent_link(self) -> Link | None:
        """The parent as the host has it."""
        return self.snapshot.host.link(self.parent) if self.parent is not None else None

    def parent_of(self, link: Link) -> Link | None:
        """Return the host's interface that an interface of the agent sits on; None when its parent is elsewhere.

        A veth interface whose other end is a port of a LAN bridge (pipework on a bridge) sits on that bridge, or on the
        outer port that the intent names.
        """
        if link.peer_index is None or link.peer_netnsid is None:
            return None
        below = self.snapshot.host.link_by_index(link.peer_index)
        if link.kind in ON_PARENT:
            return below
        if link.kind != "veth" or below is None or below.master is None:
            return None
        if self.parent_link is not None and self.parent_link.master == below.master:
            return self.parent_link
        bridge = self.snapshot.host.link(below.master)
        is_lan = bridge is not None and bridge.kind == "bridge" and bool(self.outer_ports(bridge.name))
        return bridge if is_lan else None

    def outer_ports(self, bridge: str) -> tuple[str, ...]:
        """Return the ports by which a bridge leads to a LAN."""
        return outer_ports(self.snapshot.host, bridge, self.intent.uplinks, self.agent_ports)

    @cached_property
    def bridged_link(self) -> Link | None:
        """The agent's interface that sits on an interface of the host; of several, the most like the intent."""
        if not self.bridged or self.snapshot.agent is None or self.shares_host_network:
            return None
        agent = self.snapshot.agent
        candidates = [
            link
            for link in agent.links
            if (link.kind in ON_PARENT or self.parent_of(link) is not None) and not is_leftover(link)
        ]

        def likeness(link: Link) -> tuple[bool, bool, bool]:
            return self.parent_of(link) == self.parent_link, bool(agent.addresses_of(link.name)), link.up

        return max(candidates, key=likeness, default=None)

    @property
    def on_bridge(self) -> bool:
        """Whether the bridged agent is a port of a LAN bridge, rather than on a macvlan interface."""
        return self.bridged_link is not None and self.bridged_link.kind == "veth"

    @cached_property
    def bridged_address(self) -> Address | None:
        """The first IPv4 address of the agent's bridged interface."""
        if self.bridged_link is None or self.snapshot.agent is None:
            return None
        addresses = self.snapshot.agent.addresses_of(self.bridged_link.name)
        return next((address for address in addresses if address.scope == "global"), None)

    @property
    def agent_mac(self) -> str | None:
        """The MAC address of the agent's own frames on its parent."""
        return self.bridged_link.mac if self.bridged_link is not None else None

    def is_agents_own(self, sighting: PacketSighting) -> bool:
        """Whether a frame left with the bridged agent's own MAC and IPv4 address, un-NATed."""
        return (sighting.source_mac, sighting.source) == (self.agent_mac, self.agent_address)

    @property
    def lan_gateway(self) -> str:
        """The gateway that a bridged agent must use: the gateway of its mode, otherwise of its uplink."""
        attach = self.intent.agent.attach
        if isinstance(attach, MacvlanAttach | PipeworkStaticAttach):
            return str(attach.gateway)
        return str(self.intent.gateway)

    @cached_property
    def agent_default(self) -> Route | None:
        """The default route inside the agent's namespace that its packets take."""
        if self.snapshot.agent is None:
            return None
        defaults = [route for route in self.snapshot.agent.table(TABLE_MAIN) if route.is_default and route.nexthops]
        return min(defaults, key=lambda route: route.metric, default=None)

    @cached_property
    def agent_pool(self) -> IPv4Network | None:
        """The pool of a macvlan agent's address, as the intent says; None for other modes."""
        attach = self.intent.agent.attach
        return (attach.ip_range or attach.subnet) if isinstance(attach, MacvlanAttach) else None

    @cached_property
    def bridge(self) -> str | None:
        """The host's interface by which the agent's packets arrive: its bridge, for NAT."""
        attach = self.intent.agent.attach
        if not isinstance(attach, NatAttach) or self.snapshot.carrier is not None:
            return None
        if attach.bridge is not None:
            return attach.bridge
        if self.snapshot.engine is not None:
            network = self.snapshot.engine.network(attach.network)
            if network is not None and network.bridge is not None:
                return network.bridge
        link = self.agent_link
        if link is not None and link.peer_index is not None:
            port = self.snapshot.host.link_by_index(link.peer_index)
            if port is not None:
                return port.master or port.name
        return DEFAULT_BRIDGE if self.snapshot.host.link(DEFAULT_BRIDGE) else None

    @cached_property
    def agent_subnet(self) -> IPv4Network | None:
        """The subnet from which the agent gets its address."""
        attach = self.intent.agent.attach
        if not isinstance(attach, NatAttach):
            return None
        if attach.subnet is not None:
            return attach.subnet
        if self.snapshot.engine is not None:
            network = self.snapshot.engine.network(attach.network)
            for pool in network.pools if network is not None else ():
                if ":" not in pool.subnet:
                    return IPv4Network(pool.subnet)
        if self.bridge is not None:
            for address in self.snapshot.host.addresses_of(self.bridge):
                return IPv4Network(str(address.network))
        own = self._agent_address(4)
        return IPv4Network(str(own.network)) if own is not None else None

    @cached_property
    def agent_source(self) -> str | None:
        """An address that stands for the agent's packets: its own, otherwise an address of its subnet."""
        if self.agent_address is not None:
            return self.agent_address
        return str(self.agent_subnet.network_address + 2) if self.agent_subnet is not None else None

    @cached_property
    def agent_mark(self) -> int:
        """The mark that the host's packet filter gives to the agent's packets before they are routed."""
        return self.agent_mark_for(None)

    def agent_packet(self, protocol: TransportProtocol | None = None, destination: str | None = None) -> Packet:
        """The agent's packet as the host's routing sees it arrive, or as the host's own where the two share it."""
        own = self.sent_by_host
        return Packet(
            source=None if own else self.agent_source,
            destination=destination or self.target,
            iif=None if own else self.bridge,
            mark=self.agent_mark_for(protocol),
            protocol=PROTOCOL_NUMBERS[protocol] if protocol else None,
            dport=self.intent.probe.port if protocol in ("udp", "tcp") else None,
        )

    def agent_mark_for(self, protocol: TransportProtocol | None) -> int:
        """Return the mark that the packet filter gives to the agent's packets of a protocol."""
        return self.routed_probe(protocol).mark or 0

    @property
    def agent_ttl(self) -> int | None:
        """The TTL of the agent's own packets; None where it is not known."""
        agent = self.snapshot.agent
        default = agent.sysctls.get("net/ipv4/ip_default_ttl") if agent is not None else None
        return int(default) if default is not None else None

    def arriving_probe(self, protocol: TransportProtocol | None) -> FilteredPacket:
        """Return the agent's probe as it arrives on the host."""
        number = PROTOCOL_NUMBERS[protocol] if protocol else None
        message_type = echo_request(number)
        return FilteredPacket(
            family=4, source=self.agent_source or "0.0.0.0", destination=self.target, iif=self.bridge, oif=None,  # noqa: S104
            protocol=number,
            dport=self.intent.probe.port if protocol in ("udp", "tcp") else None,
            icmp_type=message_type, icmp_code=None if message_type is None else 0,
            ttl=self.agent_ttl, mac=self.agent_link.mac if self.agent_link is not None else None,
        )  # fmt: skip

    def routed_probe(self, protocol: TransportProtocol | None) -> FilteredPacket:
        """Return the agent's probe as the host routes it, with the marks of the packet and its flow."""
        return after_prerouting(self.snapshot.host.packet_filter, self.arriving_probe(protocol))

    def agent_decision(self, protocol: TransportProtocol | None = None) -> Decision:
        """What the routing model says of the agent's packet to the probe target."""
        return self.model.decide(self.agent_packet(protocol))

    @cached_property
    def host_decision(self) -> Decision:
        """What the routing model says of the host's own packet to the probe target."""
        return self.model.decide(Packet(source=None, destination=self.target))

    @cached_property
    def decision_without_uplink(self) -> Decision:
        """What the routing model says of the agent's packet while the intended uplink is down."""
        return self.model_without_uplink(self.uplink).decide(self.agent_packet())

    def model_without_uplink(self, uplink: str) -> RoutingModel:
        """Return the routing model over the host's state while an uplink is down."""
        model = self._models_without_uplink.get(uplink)
        if model is None:
            model = self._models_without_uplink[uplink] = RoutingModel(without_interface(self.snapshot.host, uplink))
        return model

    @cached_property
    def _models_without_uplink(self) -> dict[str, RoutingModel]:
        return {}

    @cached_property
    def default_exit(self) -> str | None:
        """The uplink of the host's own packets: by the intent, otherwise by the main table."""
        return self.intent.host.default_exit or self.host_decision.interface

    @cached_property
    def rules_to_the_table(self) -> tuple[Rule, ...]:
        """Every IPv4 rule that leads to the intent's table, whatever it selects."""
        return tuple(
            r for r in self.snapshot.host.rules_of(4) if r.action == "lookup" and r.table == self.intent.egress.table
        )

    @cached_property
    def table_routes(self) -> tuple[Route, ...]:
        """The IPv4 routes of the table that must decide."""
        return self.snapshot.host.table(self.table, 4)

    def uplink_address(self, uplink: str, family: Family = 4) -> str | None:
        """The first global address of an uplink."""
        addresses = self.snapshot.host.addresses_of(uplink, family)
        return next((address.address for address in addresses if address.scope == "global"), None)

    def uplink_addresses(self, uplink: str, family: Family = 4) -> tuple[str, ...]:
        """Every address of an uplink."""
        return tuple(a.address for a in self.snapshot.host.addresses_of(uplink, family))

    def is_point_to_point(self, uplink: str) -> bool:
        """Whether an uplink leads to one other end, so that no ARP is asked on it (PPP, LTE, WireGuard, tun)."""
        link = self.snapshot.host.link(uplink)
        return link is not None and link.point_to_point

    @cached_property
    def arp_gateways(self) -> dict[str, str]:
        """By uplink, the gateway that must answer ARP: that of every uplink but point-to-point ones."""
        return {
            name: str(uplink.gateway)
            for name, uplink in self.intent.uplinks.items()
            if uplink.gateway is not None and not self.is_point_to_point(name)
        }

    @property
    def exit_neighbour(self) -> tuple[str, str] | None:
        """The interface and the next hop of the host's own packets, where they leave by no uplink and need ARP.

        None as well where that interface has no carrier, or leads to one other end.
        """
        exits = self.host_decision.exits
        link = self.snapshot.host.link(exits[0].interface) if len(exits) == 1 else None
        if link is None or link.name in self.intent.uplinks or link.point_to_point or not link.carrier:
            return None
        if link.name in ("lo", self.bridge):
            return None
        return link.name, exits[0].gateway or self.target

    def accepts_gateway(self, gateway: str | None) -> bool:
        """Whether a default route by the intended uplink may have a gateway; None stands for a route without one."""
        if gateway is None:
            return self.is_point_to_point(self.uplink)
        return self.intent.gateway is None or gateway == str(self.intent.gateway)

    def on_link(self, address: str, interface: str) -> bool:
        """Whether an address lies in a subnet of an interface."""
        wanted = ip_address(address)
        family: Family = 4 if isinstance(wanted, IPv4Address) else 6
        return any(wanted in a.network for a in self.snapshot.host.addresses_of(interface, family))

    @cached_property
    def watchable(self) -> tuple[str, ...]:
        """Every interface on which the agent's packets could show: all but loopback and the inner ports of bridges.

        A VRF joins no frames as a bridge does, and sends none: its packets show on the interfaces that belong to it.
        """
        links = self.snapshot.host.links
        vrfs = {link.name for link in links if link.kind == "vrf"}
        alone = [link for link in links if link.master is None or link.master in vrfs]
        present = [link.name for link in alone if link.name != "lo" and link.name not in vrfs]
        enslaved = [
            link.name
            for link in links
            if link.master is not None
            and link.master not in vrfs
            and (link.name in self.intent.uplinks or link.name in self.layers.counts_for)
        ]
        missing = [uplink for uplink in self.intent.uplinks if uplink not in present and uplink not in enslaved]
        return tuple(present + enslaved + missing)

    @cached_property
    def egress_interfaces(self) -> tuple[str, ...]:
        """The interfaces by which a packet could leave the host: all watched ones but the agent's bridge.

        A port of a LAN bridge is part of the bridge.
        """
        return tuple(
            name
            for name in self.watchable
            if name != self.bridge and name not in self.layers.counts_for and not self._is_container_bridge(name)
        )

    @cached_property
    def layers(self) -> LinkLayers:
        """How the host's interfaces stand on each other."""
        return link_layers(self.snapshot.host, self.intent.uplinks, self.agent_ports)

    @cached_property
    def agent_ports(self) -> tuple[str, ...]:
        """The host's ends of the agent's veth interfaces."""
        host, agent = self.snapshot.host, self.snapshot.agent
        ends = [
            host.link_by_index(link.peer_index)
            for link in (agent.links if agent is not None else ())
            if link.kind == "veth" and link.peer_index is not None
        ]
        return tuple(port.name for port in ends if port is not None and port.kind == "veth")

    @cached_property
    def _ports(self) -> dict[str, list[Link]]:
        """The ports of each bridge of the host that has any."""
        links = self.snapshot.host.links
        ports: dict[str, list[Link]] = {link.name: [] for link in links if link.kind == "bridge"}
        for link in links:
            if link.master in ports:
                ports[link.master].append(link)
        return ports

    def _is_container_bridge(self, name: str) -> bool:
        """Return whether a bridge leads to other namespaces only: Docker's, or with ports that all end there.

        A bridge that the intent names as uplink is an uplink.
        """
        if name in self.intent.uplinks:
            return False
        networks = self.snapshot.engine.networks if self.snapshot.engine else ()
        if any(network.bridge == name for network in networks):
            return True
        ports = self._ports.get(name, ())
        return (
            bool(ports)
            and all(port.kind == "veth" and port.name not in self.intent.uplinks for port in ports)
            and all(port.peer_netnsid is not None for port in ports)
        )


def is_leftover(link: Link) -> bool:
    """Return whether an interface is left over from a failed run of pipework: ``ph<process>eth1``, down."""
    return link.kind == "macvlan" and not link.up and re.match(r"ph\d", link.name) is not None


def subnets_overlap(subnet: str, other: str) -> bool:
    """Whether two subnets in CIDR form share an address."""
    family: Family = 6 if ":" in subnet else 4
    if family != (6 if ":" in other else 4):
        return False
    (address, length), (other_address, other_length) = read_prefix(subnet, family), read_prefix(other, family)
    return not (address ^ other_address) & mask(min(length, other_length), BITS[family])
