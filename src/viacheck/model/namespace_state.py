"""The networking state of a network namespace: interfaces, addresses, rules, routes, neighbours, packet filter.

The same types describe a host that was read and a lab that is to be built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_interface

from viacheck.model.address_family import Family, IPNetwork
from viacheck.model.filter_chains import PacketFilter
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One network interface, as ``ip -details link`` shows it (rtnetlink(7), RTM_GETLINK)."""

    index: int
    name: str
    kind: str | None = None
    """``veth``, ``bridge``, ``macvlan``…; None for a physical interface."""
    flags: tuple[str, ...] = ()
    operstate: str = "UNKNOWN"
    mac: str | None = None
    mtu: int = 1500
    master: str | None = None
    """Name of the bridge or bond that this interface is enslaved to."""
    peer_index: int | None = None
    """IFLA_LINK: index of a veth's other end or of a macvlan's parent, in the namespace of ``peer_netnsid``."""
    peer_netnsid: int | None = None
    mode: str | None = None
    """macvlan mode."""
    wireless: bool = False
    """The interface has a ``phy80211`` or ``wireless`` folder in sysfs."""

    @property
    def up(self) -> bool:
        """Administratively up (IFF_UP)."""
        return "UP" in self.flags

    @property
    def point_to_point(self) -> bool:
        """Leads to one other end, so that no ARP is sent (IFF_POINTOPOINT, IFF_NOARP): PPP, LTE, WireGuard, tun."""
        return not {"NOARP", "POINTOPOINT"}.isdisjoint(self.flags)

    @property
    def carrier(self) -> bool:
        """Up, and the lower layer reports a carrier (IFF_LOWER_UP)."""
        return self.up and "NO-CARRIER" not in self.flags and self.operstate not in ("DOWN", "LOWERLAYERDOWN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One address of an interface."""

    interface: str
    family: Family
    address: str
    prefixlen: int
    scope: str = "global"
    flags: tuple[str, ...] = ()
    """``dynamic``, ``secondary``, ``tentative``, ``deprecated``, ``dadfailed`` …"""
    valid_lifetime: int | None = None
    """Seconds until the address ends; None when it never ends."""
    peer: str | None = None
    """The other end of a point-to-point address (IFA_ADDRESS), which the prefix then belongs to."""

    @property
    def network(self) -> IPNetwork:
        """The subnet of the address."""
        return ip_interface(f"{self.peer or self.address}/{self.prefixlen}").network


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One entry of the ARP or neighbour-discovery table."""

    interface: str
    family: Family
    address: str
    mac: str | None = None
    state: str = "NONE"
    """``REACHABLE``, ``STALE``, ``FAILED``, ``INCOMPLETE``, ``PERMANENT`` …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkState:
    """The networking state of one network namespace."""

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    rules: tuple[Rule, ...] = ()
    """Each family in the kernel's own order."""
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    sysctls: dict[str, str] = field(default_factory=dict)
    """By path below /proc/sys with slashes: ``net/ipv4/conf/eth0/rp_filter``."""
    packet_filter: PacketFilter = field(default_factory=PacketFilter)

    def link(self, name: str) -> Link | None:
        """Return the interface of that name; None when it does not exist."""
        return next((link for link in self.links if link.name == name), None)

    def link_by_index(self, index: int) -> Link | None:
        """Return the interface with that index; None when it does not exist."""
        return next((link for link in self.links if link.index == index), None)

    def addresses_of(self, interface: str, family: Family = 4) -> tuple[Address, ...]:
        """Return the interface's addresses of a family, in the kernel's order."""
        return tuple(a for a in self.addresses if a.interface == interface and a.family == family)

    def rules_of(self, family: Family = 4) -> Iterator[Rule]:
        """Return the rules of a family in the kernel's order."""
        return (rule for rule in self.rules if rule.family == family)

    def table(self, number: int, family: Family = 4) -> tuple[Route, ...]:
        """Return the routes of a table and family."""
        return tuple([r for r in self.routes if r.table == number and r.family == family])
