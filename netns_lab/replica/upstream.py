"""The network upstream of a host, assumed from its snapshot and intent: a gateway behind each uplink.

A gateway has the addresses of the intent and of the host's routes, except those that the host's neighbour table reports
as failed (ip-neighbour(8)); probe target and resolvers answer behind every gateway.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address

from netns_lab.draft import MachineDraft
from netns_lab.plan import PROBE_TARGET6
from netns_lab.services.dhcp_server import DHCPPool
from viacheck.model.address_family import IPNetwork
from viacheck.model.intent import Intent
from viacheck.model.namespace_state import Address, NetworkState

GATEWAY_PORT = "lan0"
_SILENT = frozenset({"FAILED"})
_ALIVE = frozenset({"REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT"})
_LIKELY_LENGTH = {4: 24, 6: 64}
"""The prefix length of a subnet in which the host has no address."""
_LEASE_SECONDS = 3600


class Upstream:
    """The gateways of one host."""

    def __init__(
        self,
        host: NetworkState,
        intent: Intent,
        resolvers: tuple[str, ...],
        routed: str | None = None,
        silent_beyond: tuple[str, ...] = (),
    ) -> None:
        """Assume nothing yet.

        Args:
            host: the host's state.
            intent: the intent.
            resolvers: the addresses that the agent sends DNS queries to.
            routed: the agent's subnet, if the intended uplink's gateway routes it to the host.
            silent_beyond: interfaces behind whose gateways nothing answers.
        """
        self._silent_beyond = silent_beyond
        self._host, self._intent, self._routed = host, intent, routed
        self._own = {address.address for address in host.addresses}
        self._answering = dict.fromkeys(
            (str(intent.probe.target), str(intent.probe.target6 or PROBE_TARGET6), *resolvers)
        )

    def gateway(self, interface: str) -> MachineDraft:
        """Return the gateway behind an interface of the host; the cable ends at its :data:`GATEWAY_PORT`."""
        gateway = MachineDraft(f"gw-{interface}")
        subnets = self._subnets(interface)
        interfaces = dict.fromkeys((*self._routers(interface, 4), *self._routers(interface, 6)), GATEWAY_PORT)
        for child in self._children(interface):
            # The gateway of an interface that stands on this one is on the same wire.
            subnets += self._subnets(child)
            interfaces |= dict.fromkeys((*self._routers(child, 4), *self._routers(child, 6)), GATEWAY_PORT)
        others = [subnet for name in self._intent.uplinks if name != interface for subnet in self._subnets(name)]
        for address in self._answering if interface not in self._silent_beyond else ():
            on_link = _in_any(address, subnets)
            if address in self._own or (not on_link and _in_any(address, others)):
                continue
            interfaces.setdefault(address, GATEWAY_PORT if on_link else "lo")
            gateway.answers_on = (*gateway.answers_on, address)
        link = self._host.link(interface)
        for own in self._host.addresses_of(interface):
            # Such an address shares no subnet with its gateway.
            if own.prefixlen == 32 or (link is not None and link.point_to_point):
                gateway.route(f"{own.address}/32", dev=GATEWAY_PORT)
            if own.peer is not None:
                interfaces.setdefault(own.peer, GATEWAY_PORT)
        is_egress = interface == self._intent.egress.uplink
        if self._routed is not None and is_egress and (hosts := self._host.addresses_of(interface)):
            gateway.route(self._routed, via=hosts[0].address, dev=GATEWAY_PORT)
        for address, port in interfaces.items():
            length = _length(address, subnets) if port == GATEWAY_PORT else ip_address(address).max_prefixlen
            gateway.address(port, f"{address}/{length}")
        for network, via in self._return_routes(interface):
            # A gateway may have no address of the host's subnet: a router that announces itself has its link-local one.
            gateway.route(f"{via}/128", dev=GATEWAY_PORT)
            gateway.route(str(network), via=via, dev=GATEWAY_PORT)
        if self._intent.mode == "pipework-dhcp" and interface == self._intent.egress.uplink:
            gateway.dhcp = self._pool(interface, subnets)
        return gateway

    def _children(self, interface: str) -> Iterator[str]:
        """Yield the uplinks that are macvlan interfaces on an interface of the host."""
        parent = self._host.link(interface)
        for link in self._host.links:
            on_host = link.kind == "macvlan" and link.peer_netnsid is None
            if parent is not None and on_host and link.peer_index == parent.index and link.name in self._intent.uplinks:
                yield link.name

    def is_silent(self, interface: str) -> bool:
        """Return whether no gateway on an uplink answers: the intent's did not, and no route has another one."""
        return self._is_failed(interface, 4) and not list(self._other_routers(interface, 4))

    def _is_failed(self, interface: str, family: int) -> bool:
        """Return whether the intent's gateway on an uplink did not answer the host."""
        gateway = self._intended(interface, family)
        return gateway is not None and self._neighbour_state(gateway, interface) in _SILENT

    def mac_of_gateway(self, interface: str) -> str | None:
        """Return the MAC address of an interface's gateway in the host's neighbour table."""
        routers = set(self._routers(interface, 4)) | set(self._routers(interface, 6))
        segment = self._segment(interface)
        macs = (
            neighbour.mac
            for neighbour in self._host.neighbours
            if neighbour.interface in segment and neighbour.address in routers
        )
        return next((mac for mac in macs if mac), None)

    def has_gateway(self, interface: str) -> bool:
        """Return whether the host has a route by a gateway on that interface, or a default route by it to one end."""
        link = self._host.link(interface)
        one_end = link is not None and link.point_to_point
        return any(
            hop.interface == interface and (hop.gateway is not None or (one_end and route.is_default))
            for route in self._host.routes
            for hop in route.nexthops
        )

    def _segment(self, interface: str) -> set[str]:
        """Return the host's interfaces on a segment: the interface itself, and the bridge that it is a port of."""
        link = self._host.link(interface)
        return {interface} | ({link.master} if link is not None and link.master is not None else set())

    def _subnets(self, interface: str) -> list[IPNetwork]:
        segment = self._segment(interface)
        return [address.network for address in self._host.addresses if address.interface in segment]

    def _routers(self, interface: str, family: int) -> Iterator[str]:
        """Yield the addresses of gateways on a segment, the intent's gateway first."""
        intended, others = self._intended(interface, family), list(self._other_routers(interface, family))
        # A silent gateway of the intent, beside one that answers, is a wrong address in the site file.
        if intended is not None and not (others and self._is_failed(interface, family)):
            yield intended
        yield from others

    def _other_routers(self, interface: str, family: int) -> Iterator[str]:
        """Yield the gateways of the host's routes on a segment, but the intent's."""
        segment, intended = self._segment(interface), self._intended(interface, family)
        for address in dict.fromkeys(
            hop.gateway
            for route in self._host.routes
            for hop in route.nexthops
            if hop.gateway is not None and hop.interface in segment
        ):
            if ip_address(address).version != family or address == intended or address in self._own:
                continue
            state = self._neighbour_state(address, interface)
            # Where the intent names a gateway, another gateway exists only if the neighbour table has it.
            if state in _ALIVE or (intended is None and state not in _SILENT):
                yield address

    def _intended(self, interface: str, family: int) -> str | None:
        """Return the intent's gateway on an uplink; None without one."""
        uplink = self._intent.uplinks.get(interface)
        gateway = None if uplink is None else uplink.gateway if family == 4 else uplink.gateway6
        return None if gateway is None else str(gateway)

    def _neighbour_state(self, address: str, interface: str) -> str | None:
        segment = self._segment(interface)
        states = (
            neighbour.state
            for neighbour in self._host.neighbours
            if neighbour.interface in segment and neighbour.address == address
        )
        return next(states, None)

    def _return_routes(self, interface: str) -> Iterator[tuple[IPNetwork, str]]:
        """Yield the IPv6 networks behind the host with the host's address: no NAT hides them from the gateway."""
        host6 = next((a for a in self._host.addresses_of(interface, 6) if a.scope == "global"), None)
        if host6 is None:
            return
        for address in self._host.addresses:
            if address.family == 6 and address.scope == "global" and self._is_inside(address):
                yield address.network, host6.address

    def _is_inside(self, address: Address) -> bool:
        link = self._host.link(address.interface)
        return link is not None and link.kind == "bridge" and address.interface not in self._intent.uplinks

    def _pool(self, interface: str, subnets: list[IPNetwork]) -> DHCPPool | None:
        """Return a DHCP pool: the upper half of the subnet, up to the first address that is taken."""
        gateway = self._intent.uplinks[interface].gateway
        subnet = next((subnet for subnet in subnets if subnet.version == 4 and gateway in subnet), None)
        if subnet is None or subnet.num_addresses < 8:
            return None
        taken = {int(IPv4Address(address)) for address in (*self._own, str(gateway)) if ":" not in address}
        first, last = int(subnet[subnet.num_addresses // 2]), int(subnet[-2])
        last = min((number - 1 for number in taken if first < number <= last), default=last)
        return DHCPPool(
            subnet=str(subnet), first=str(IPv4Address(first)), last=str(IPv4Address(last)), router=str(gateway),
            lease_seconds=_LEASE_SECONDS,
        )  # fmt: skip


def _in_any(address: str, networks: list[IPNetwork]) -> bool:
    return any(ip_address(address) in network for network in networks)


def _length(address: str, subnets: list[IPNetwork]) -> int:
    """Return the prefix length of an address on a segment."""
    parsed = ip_address(address)
    return next((subnet.prefixlen for subnet in subnets if parsed in subnet), _LIKELY_LENGTH[parsed.version])
