"""The network state of a namespace, read by rtnetlink(7) and from /proc/sys.

Links are plain values, because a link that is gone is not recreated. Addresses, neighbours, next hops, routes and rules
are the kernel's own messages, which also create the objects again.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from viacheck.host.sysctl import read_sysctls, sysctls_in
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.rtnetlink import AF_INET, AF_INET6, RouteSocket, RtnetlinkMessage

IFF_UP, _IFF_RUNNING = 0x1, 0x40
_IFF_NOARP, _IFF_PROMISC, _IFF_ALLMULTI, _IFF_MULTICAST = 0x80, 0x100, 0x200, 0x1000
CONFIGURED_FLAGS = IFF_UP | _IFF_NOARP | _IFF_PROMISC | _IFF_ALLMULTI | _IFF_MULTICAST
"""Flags that a person or a program sets; the kernel sets the others."""
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_TXQLEN = 1, 3, 4, 5, 10, 13
_IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_LINK_NETNSID = 18, 1, 37
_NUD_PERMANENT, _NTF_PROXY = 0x80, 0x08
_RTM_F_CLONED = 0x200

_GLOBAL_SYSCTLS = ("net/ipv4/ip_forward",)
_SYSCTL_FOLDERS = ("net/ipv4/conf", "net/ipv6/conf", "net/ipv4/neigh", "net/ipv6/neigh")
# mtu follows the link's own MTU, which is restored with the link. stable_secret can be read only after it was set.
_NOT_SAVED = frozenset({"mtu", "stable_secret"})


@dataclass(frozen=True, slots=True)
class LinkState:
    """One interface, as far as it can be restored."""

    index: int
    name: str
    kind: str | None
    flags: int
    """IFF_* as in netdevice(7)."""
    mtu: int
    txqlen: int
    mac: str
    """In hex without colons; empty for an interface without a MAC address."""
    master: str | None
    parent: str | None
    """The interface that this interface is stacked on (VLAN, macvlan), when it is in the same namespace."""

    @property
    def up(self) -> bool:
        """Return whether the interface is administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def carrier(self) -> bool:
        """Return whether the interface can send: it is up and has a carrier (IFF_RUNNING)."""
        return bool(self.flags & _IFF_RUNNING)


class KernelState(Protocol):
    """The network state of a namespace, saved or current."""

    @property
    def links(self) -> tuple[LinkState, ...]: ...  # noqa: D102
    @property
    def addresses(self) -> tuple[RtnetlinkMessage, ...]: ...  # noqa: D102
    @property
    def neighbours(self) -> tuple[RtnetlinkMessage, ...]: ...  # noqa: D102
    @property
    def nexthops(self) -> tuple[RtnetlinkMessage, ...]: ...  # noqa: D102
    @property
    def routes(self) -> tuple[RtnetlinkMessage, ...]: ...  # noqa: D102
    @property
    def rules(self) -> tuple[RtnetlinkMessage, ...]: ...  # noqa: D102


class CurrentState:
    """The current state of the calling thread's namespace. Each part is read when it is first asked for."""

    def __init__(self, netlink: RouteSocket) -> None:
        self._netlink = netlink

    @cached_property
    def links(self) -> tuple[LinkState, ...]:
        """Return every interface."""
        messages = self._netlink.dump(rtnetlink.RTM_GETLINK, bytes(16))
        names = {_index(message): _text(message.get(IFLA_IFNAME)) for message in messages}
        return tuple(_link(message, names) for message in messages)

    @cached_property
    def addresses(self) -> tuple[RtnetlinkMessage, ...]:
        """Return every address, in the kernel's order."""
        return self._both_families(rtnetlink.RTM_GETADDR, 8)

    @cached_property
    def neighbours(self) -> tuple[RtnetlinkMessage, ...]:
        """Return the permanent neighbours and the proxy entries."""
        entries = self._both_families(rtnetlink.RTM_GETNEIGH, 12)
        proxies: list[RtnetlinkMessage] = []
        for family in (AF_INET, AF_INET6):
            body = struct.pack("=BxxxiHBB", family, 0, 0, _NTF_PROXY, 0)
            proxies += self._netlink.dump(rtnetlink.RTM_GETNEIGH, body)
        permanent = [entry for entry in entries if struct.unpack_from("=H", entry.body, 8)[0] & _NUD_PERMANENT]
        return (*permanent, *proxies)

    @cached_property
    def nexthops(self) -> tuple[RtnetlinkMessage, ...]:
        """Return every next hop object (ip-nexthop(8))."""
        try:
            return tuple(self._netlink.dump(rtnetlink.RTM_GETNEXTHOP, bytes(8)))
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return ()
            raise

    @cached_property
    def routes(self) -> tuple[RtnetlinkMessage, ...]:
        """Return every route of every table, without the kernel's cached routes to single destinations."""
        routes = self._both_families(rtnetlink.RTM_GETROUTE, 12)
        return tuple(route for route in routes if not struct.unpack_from("=I", route.body, 8)[0] & _RTM_F_CLONED)

    @cached_property
    def rules(self) -> tuple[RtnetlinkMessage, ...]:
        """Return every rule, in the order in which the kernel evaluates them."""
        return self._both_families(rtnetlink.RTM_GETRULE, 12)

    def _both_families(self, get: int, size: int) -> tuple[RtnetlinkMessage, ...]:
        messages = self._netlink.dump(get, bytes([AF_INET]).ljust(size, b"\0"))
        # A kernel without IPv6 answers with the objects of every family that it has.
        if os.path.exists("/proc/sys/net/ipv6"):
            messages += self._netlink.dump(get, bytes([AF_INET6]).ljust(size, b"\0"))
        return tuple(messages)


def _index(message: RtnetlinkMessage) -> int:
    return int(struct.unpack_from("=i", message.body, 4)[0])


def _text(value: bytes | None) -> str:
    return os.fsdecode((value or b"").rstrip(b"\0"))


def _link(message: RtnetlinkMessage, names: dict[int, str]) -> LinkState:
    linkinfo = dict(codec.attributes(message.get(_IFLA_LINKINFO) or b""))
    kind = _text(linkinfo.get(_IFLA_INFO_KIND)) or None
    stacked = kind != "veth" and message.get(_IFLA_LINK_NETNSID) is None
    parent = names.get(message.number(IFLA_LINK)) if stacked else None
    name = _text(message.get(IFLA_IFNAME))
    return LinkState(
        index=_index(message),
        name=name,
        kind=kind,
        flags=struct.unpack_from("=I", message.body, 8)[0] & (CONFIGURED_FLAGS | _IFF_RUNNING),
        mtu=message.number(IFLA_MTU),
        txqlen=message.number(IFLA_TXQLEN),
        mac=(message.get(IFLA_ADDRESS) or b"").hex(),
        master=names.get(message.number(IFLA_MASTER)),
        parent=parent if parent != name else None,
    )


def with_upper_links(interfaces: Iterable[str], links: Iterable[LinkState]) -> frozenset[str]:
    """Return the interfaces and those above them: stacked ones go down with theirs, a bridge may lose its address."""
    names, links = set(interfaces), list(links)
    while True:
        upper = {link.name for link in links if link.parent in names}
        upper |= {link.master for link in links if link.name in names and link.master}
        if upper <= names:
            return frozenset(names)
        names |= upper


def with_lower_links(interfaces: Iterable[str], links: Iterable[LinkState]) -> frozenset[str]:
    """Return the interfaces and those below them: bridge ports, bond members and parents carry their packets."""
    names, links = set(interfaces), list(links)
    while True:
        lower = {link.name for link in links if link.master in names}
        lower |= {link.parent for link in links if link.name in names and link.parent}
        if lower <= names:
            return frozenset(names)
        names |= lower


def network_sysctls(interfaces: frozenset[str]) -> dict[str, str]:
    """Return the network settings of some interfaces and of all, by path below /proc/sys."""
    paths = list(_GLOBAL_SYSCTLS)
    for folder in _SYSCTL_FOLDERS:
        # 'all' and 'default' first: written later, they would override the interfaces' own settings.
        for name in ("all", "default", *sorted(interfaces)):
            paths += sysctls_in(f"{folder}/{name}")
    return read_sysctls(path for path in paths if path.rpartition("/")[2] not in _NOT_SAVED)


def boot_id() -> str:
    """Return the id that the kernel gives to the current boot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def namespace_inode() -> int:
    """Return the inode of the calling thread's network namespace."""
    return os.stat("/proc/thread-self/ns/net").st_ino
