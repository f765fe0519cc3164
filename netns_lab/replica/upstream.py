"""What lies beyond a host, made up from what its snapshot and intent tell: a gateway behind each uplink.

A gateway has the addresses that the intent gives it, and those of the host's routes that somebody holds as far as the
host's neighbour table knows (ip-neighbour(8)); probe target and resolvers answer behind every one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address

from netns_lab.draft import MachineDraft
from netns_lab.plan import PROBE_TARGET6
from netns_lab.services.dhcp_server import DHCPPool
from viacheck.model.intent import Intent
from viacheck.model.snapshot import Address, IPNetwork, NetworkState

GATEWAY_PORT = "lan0"
_SILENT = frozenset({"FAILED"})
_ALIVE = frozenset({"REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT"})
_LIKELY_LENGTH = {4: 24, 6: 64}
"""Of a subnet that the host has no address in."""
_LEASE_SECONDS = 3600


class Upstream:
    """The neighbourhood of one host."""

    def __init__(self, host: NetworkState, intent: Intent, resolvers: tuple[str, ...]) -> None:
        """Nothing is made up yet; ``resolvers`` are the ones that the agent asks."""
        self._host, self._intent = host, intent
        self._own = {address.address for address in host.addresses}
        self._answering = dict.fromkeys(
            (str(intent.probe.target), str(intent.probe.target6 or PROBE_TARGET6), *resolvers)
        )

    def gateway(self, interface: str) -> MachineDraft:
        """The machine behind an interface of the host, which is to be plugged into :data:`GATEWAY_PORT`."""
        gateway = MachineDraft(f"gw-{interface}")
        here = self._subnets(interface)
        held = dict.fromkeys((*self._routers(interface, 4), *self._routers(interface, 6)), GATEWAY_PORT)
        others = [one for name in self._intent.uplinks if name != interface for one in self._subnets(name)]
        for address in self._answering:
            on_link = _in_any(address, here)
            if address in self._own or (not on_link and _in_any(address, others)):
                continue
            held.setdefault(address, GATEWAY_PORT if on_link else "lo")
            gateway.answers_on = (*gateway.answers_on, address)
        for address, place in held.items():
            length = _length(address, here) if place == GATEWAY_PORT else ip_address(address).max_prefixlen
            gateway.address(place, f"{address}/{length}")
        for network, via in self._ways_back(interface):
            gateway.route(str(network), via=via, dev=GATEWAY_PORT)
        if self._intent.mode == "pipework-dhcp" and interface == self._intent.egress.uplink:
            gateway.dhcp = self._pool(interface, here)
        return gateway

    def is_silent(self, interface: str) -> bool:
        """Whether the host had asked for the intent's gateway on an uplink in vain."""
        uplink = self._intent.uplinks.get(interface)
        return uplink is not None and self._neighbour_state(str(uplink.gateway), interface) in _SILENT

    def mac_of_gateway(self, interface: str) -> str | None:
        """The MAC address by which the host knew a gateway there."""
        routers = set(self._routers(interface, 4)) | set(self._routers(interface, 6))
        segment = self._segment(interface)
        macs = (one.mac for one in self._host.neighbours if one.interface in segment and one.address in routers)
        return next((mac for mac in macs if mac), None)

    def leads_somewhere(self, interface: str) -> bool:
        """Whether the host has a route by a gateway on that interface."""
        return any(
            hop.gateway is not None and hop.interface == interface
            for route in self._host.routes
            for hop in route.nexthops
        )

    def _segment(self, interface: str) -> set[str]:
        """The interfaces by which the host is on a segment: the one that leads there, and the bridge that it is in."""
        link = self._host.link(interface)
        return {interface} | ({link.master} if link is not None and link.master is not None else set())

    def _subnets(self, interface: str) -> list[IPNetwork]:
        segment = self._segment(interface)
        return [address.network for address in self._host.addresses if address.interface in segment]

    def _routers(self, interface: str, family: int) -> Iterator[str]:
        """The addresses of gateways on a segment, the intent's own first."""
        uplink = self._intent.uplinks.get(interface)
        named = None if uplink is None else str(uplink.gateway) if family == 4 else uplink.gateway6
        if named is not None:
            yield str(named)
        segment = self._segment(interface)
        for address in dict.fromkeys(
            hop.gateway
            for route in self._host.routes
            for hop in route.nexthops
            if hop.gateway is not None and hop.interface in segment
        ):
            if ip_address(address).version != family or address == str(named) or address in self._own:
                continue
            state = self._neighbour_state(address, interface)
            # Where the intent names a gateway, another one is believed in only when it was heard of.
            if state in _ALIVE or (named is None and state not in _SILENT):
                yield address

    def _neighbour_state(self, address: str, interface: str) -> str | None:
        segment = self._segment(interface)
        found = (one.state for one in self._host.neighbours if one.interface in segment and one.address == address)
        return next(found, None)

    def _ways_back(self, interface: str) -> Iterator[tuple[IPNetwork, str]]:
        """IPv6 is not translated on its way out: the networks behind the host, and the host's own address."""
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
        """What a DHCP server there hands out: the upper half of the subnet, but for what somebody has."""
        gateway = self._intent.uplinks[interface].gateway
        subnet = next((one for one in subnets if one.version == 4 and gateway in one), None)
        if subnet is None or subnet.num_addresses < 8:
            return None
        taken = {int(IPv4Address(one)) for one in (*self._own, str(gateway)) if ":" not in one}
        first, last = int(subnet[subnet.num_addresses // 2]), int(subnet[-2])
        last = min((one - 1 for one in taken if first < one <= last), default=last)
        return DHCPPool(
            subnet=str(subnet), first=str(IPv4Address(first)), last=str(IPv4Address(last)), router=str(gateway),
            lease_seconds=_LEASE_SECONDS,
        )  # fmt: skip


def _in_any(address: str, networks: list[IPNetwork]) -> bool:
    return any(ip_address(address) in network for network in networks)


def _length(address: str, subnets: list[IPNetwork]) -> int:
    """The prefix length of an address on a segment."""
    parsed = ip_address(address)
    return next((one.prefixlen for one in subnets if parsed in one), _LIKELY_LENGTH[parsed.version])
