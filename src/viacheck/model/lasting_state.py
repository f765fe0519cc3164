"""A snapshot without what is another value after every boot, so that two boots of one host can be compared.

Docker and pipework name a veth at random or by a process id; the kernel draws a MAC address for a bridge and a veth,
and makes an IPv6 address of it (RFC 4291, appendix A); interface indexes and process ids are counted. Each gets a name
that stays: a veth is named by its bridge.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from viacheck.model.filter_chains import FilterChain, FilterRule
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import Snapshot

MADE_UP_NAME = re.compile(r"veth[0-9a-f]{6,8}|veth\w*pl\d+")
"""Docker's name for a veth (libnetwork, GenerateIfaceName), and pipework's, which ends with a process id."""


def lasting(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot whose values are the same after a reboot that changes nothing."""
    engine = snapshot.engine
    if engine is not None and engine.container is not None:
        engine = replace(engine, container=replace(engine.container, pid=0))
    return replace(
        snapshot,
        host=lasting_network(snapshot.host),
        agent=lasting_network(snapshot.agent) if snapshot.agent is not None else None,
        engine=engine,
    )


def lasting_network(state: NetworkState) -> NetworkState:
    """Return the networking state of a namespace in which every such value has its lasting name."""
    names = _Names(_interface_names(state), _address_names(state))
    return replace(
        state,
        links=tuple(map(names.link, state.links)),
        addresses=tuple(map(names.address, state.addresses)),
        rules=tuple(map(names.rule, state.rules)),
        routes=tuple(map(names.route, state.routes)),
        sysctls={names.path(path): value for path, value in state.sysctls.items()},
        packet_filter=replace(state.packet_filter, chains=tuple(map(names.chain, state.packet_filter.chains))),
    )


def _interface_names(state: NetworkState) -> dict[str, str]:
    """Map each made-up name to a lasting name; several veths on one bridge are numbered."""
    names, numbers = {}, Counter[str]()
    for link in sorted(state.links, key=lambda link: link.index):
        if link.kind == "veth" and MADE_UP_NAME.fullmatch(link.name):
            place = f"veth on {link.master}" if link.master else "veth"
            numbers[place] += 1
            names[link.name] = place if numbers[place] == 1 else f"{place} ({numbers[place]})"
    return names


def _address_names(state: NetworkState) -> dict[str, str]:
    """Map each IPv6 address that is made of a drawn MAC address to a lasting name."""
    identifiers = {_interface_identifier(link.mac) for link in state.links if link.mac and _is_drawn(link.mac)}
    names = {}
    for address in state.addresses:
        if address.family == 6:
            packed = IPv6Address(address.address).packed
            if packed[8:] in identifiers:
                names[address.address] = f"{IPv6Address(packed[:8] + bytes(8))}<MAC>"
    return names


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _is_drawn(mac: str) -> bool:
    """Whether a MAC address is locally administered (IEEE 802, second bit): software drew it."""
    return re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", mac) is not None and bool(_octets(mac)[0] & 2)


def _interface_identifier(mac: str) -> bytes:
    octets = _octets(mac)
    return bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]


@dataclass(frozen=True, slots=True)
class _Names:
    """The lasting names of one namespace."""

    interfaces: Mapping[str, str]
    addresses: Mapping[str, str]

    def link(self, link: Link) -> Link:
        mac = "drawn" if link.mac and _is_drawn(link.mac) else link.mac
        return replace(link, index=0, peer_index=None, name=self._interface(link.name), mac=mac)

    def address(self, address: Address) -> Address:
        return replace(
            address,
            interface=self._interface(address.interface),
            address=self.addresses.get(address.address, address.address),
        )

    def rule(self, rule: Rule) -> Rule:
        return replace(
            rule,
            iif=None if rule.iif is None else self._interface(rule.iif),
            oif=None if rule.oif is None else self._interface(rule.oif),
        )

    def route(self, route: Route) -> Route:
        host, slash, length = route.destination.partition("/")
        if host not in self.addresses and not self.interfaces.keys() & {hop.interface for hop in route.nexthops}:
            # 100,000 routes stay as they are.
            return route
        return replace(
            route,
            destination=self.addresses.get(host, host) + slash + length,
            nexthops=tuple(map(self._nexthop, route.nexthops)),
        )

    def path(self, path: str) -> str:
        return "/".join(map(self._interface, path.split("/")))

    def chain(self, chain: FilterChain) -> FilterChain:
        return replace(chain, rules=tuple(map(self._filter_rule, chain.rules)))

    def _filter_rule(self, rule: FilterRule) -> FilterRule:
        return replace(
            rule,
            matches=tuple(replace(match, values=tuple(map(self._interface, match.values))) for match in rule.matches),
        )

    def _nexthop(self, hop: Nexthop) -> Nexthop:
        return replace(hop, interface=None if hop.interface is None else self._interface(hop.interface))

    def _interface(self, name: str) -> str:
        return self.interfaces.get(name, name)
