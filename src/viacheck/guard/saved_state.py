"""The networking state of a namespace, read in one go, kept in a file that is written whole or not at all.

Links are plain values, since making an interface anew is nobody's wish; addresses, neighbours, next hops, routes and
rules are the kernel's own messages, each with its words for people. Whoever loads the file needs nothing else to put
everything back.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from viacheck.atomic_file import write_file
from viacheck.guard.describe import describe
from viacheck.host.sysctl import read_sysctls, sysctls_in
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.rtnetlink import AF_INET, AF_INET6, RouteSocket, RtnetlinkMessage

SCHEMA = "viacheck.saved-state/1"
UNFINISHED, FINISHED, OUTCOME, LOG = "saved-state.json", "restored-state.json", "outcome.json", "watchdog.log"
"""Files in the state directory: a state that still has to be put back, the last one that was, how that went."""

IFF_UP, _IFF_RUNNING = 0x1, 0x40
_IFF_NOARP, _IFF_PROMISC, _IFF_ALLMULTI, _IFF_MULTICAST = 0x80, 0x100, 0x200, 0x1000
KEPT_FLAGS = IFF_UP | _IFF_NOARP | _IFF_PROMISC | _IFF_ALLMULTI | _IFF_MULTICAST
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_TXQLEN = 1, 3, 4, 5, 10, 13
_IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_LINK_NETNSID = 18, 1, 37
NUD_PERMANENT, NTF_PROXY = 0x80, 0x08
_RTM_F_CLONED = 0x200

_GLOBAL_SYSCTLS = ("net/ipv4/ip_forward",)
_SYSCTL_FOLDERS = ("net/ipv4/conf", "net/ipv6/conf", "net/ipv4/neigh", "net/ipv6/neigh")
# Follows the link's own MTU, which is put back as such; a secret that can be read only once it was set.
_NO_STATE = frozenset({"mtu", "stable_secret"})


class NoSavedState(Exception):
    """The file holds no state that can be put back here; the message says why."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """One interface: what of it can be put back."""

    index: int
    name: str
    kind: str | None
    flags: int
    """IFF_* as in netdevice(7)."""
    mtu: int
    txqlen: int
    mac: str
    """In hex without colons; empty where there is none."""
    master: str | None
    parent: str | None
    """The interface that this one is stacked on (VLAN, macvlan), when it is in the same namespace."""

    @property
    def up(self) -> bool:
        """Administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def carrier(self) -> bool:
        """It can send: up, and the layer below has a carrier (IFF_RUNNING)."""
        return bool(self.flags & _IFF_RUNNING)


class NetworkState(Protocol):
    """The state of a namespace, saved or of this moment."""

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


class LiveState:
    """The state of the calling thread's namespace, each part read when it is first asked for."""

    def __init__(self, netlink: RouteSocket) -> None:
        self._netlink = netlink

    @cached_property
    def links(self) -> tuple[LinkState, ...]:
        """Every interface."""
        messages = self._netlink.dump(rtnetlink.RTM_GETLINK, bytes(16))
        names = {_index(message): _text(message.get(IFLA_IFNAME)) for message in messages}
        return tuple(_link(message, names) for message in messages)

    @cached_property
    def addresses(self) -> tuple[RtnetlinkMessage, ...]:
        """Every address, in the kernel's order."""
        return self._both_families(rtnetlink.RTM_GETADDR, 8)

    @cached_property
    def neighbours(self) -> tuple[RtnetlinkMessage, ...]:
        """The neighbours that somebody wrote down, and the addresses that are answered for (proxy)."""
        learned = self._both_families(rtnetlink.RTM_GETNEIGH, 12)
        proxies: list[RtnetlinkMessage] = []
        for family in (AF_INET, AF_INET6):
            body = struct.pack("=BxxxiHBB", family, 0, 0, NTF_PROXY, 0)
            proxies += self._netlink.dump(rtnetlink.RTM_GETNEIGH, body)
        written = [one for one in learned if struct.unpack_from("=H", one.body, 8)[0] & NUD_PERMANENT]
        return (*written, *proxies)

    @cached_property
    def nexthops(self) -> tuple[RtnetlinkMessage, ...]:
        """Every next hop that is an object of its own (ip-nexthop(8))."""
        try:
            return tuple(self._netlink.dump(rtnetlink.RTM_GETNEXTHOP, bytes(8)))
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return ()
            raise

    @cached_property
    def routes(self) -> tuple[RtnetlinkMessage, ...]:
        """Every route of every table, without what the kernel derived for single destinations."""
        found = self._both_families(rtnetlink.RTM_GETROUTE, 12)
        return tuple(one for one in found if not struct.unpack_from("=I", one.body, 8)[0] & _RTM_F_CLONED)

    @cached_property
    def rules(self) -> tuple[RtnetlinkMessage, ...]:
        """Every rule, in the order in which the kernel asks them."""
        return self._both_families(rtnetlink.RTM_GETRULE, 12)

    def _both_families(self, get: int, size: int) -> tuple[RtnetlinkMessage, ...]:
        found = self._netlink.dump(get, bytes([AF_INET]).ljust(size, b"\0"))
        # A kernel without IPv6 answers with the objects of every family it has.
        if os.path.exists("/proc/sys/net/ipv6"):
            found += self._netlink.dump(get, bytes([AF_INET6]).ljust(size, b"\0"))
        return tuple(found)


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
        flags=struct.unpack_from("=I", message.body, 8)[0] & (KEPT_FLAGS | _IFF_RUNNING),
        mtu=message.number(IFLA_MTU),
        txqlen=message.number(IFLA_TXQLEN),
        mac=(message.get(IFLA_ADDRESS) or b"").hex(),
        master=names.get(message.number(IFLA_MASTER)),
        parent=parent if parent != name else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """A namespace's state at one moment, and what of it a change is about."""

    interfaces: tuple[str, ...]
    """The interfaces that the change may touch, and those stacked on them."""
    tables: tuple[int, ...]
    """Routing tables that belong to the change, whatever stands in them."""
    saved: str
    """When, as local time for people (ISO 8601)."""
    boottime: float
    """When, in seconds since the system's start (CLOCK_BOOTTIME): lifetimes run on from there."""
    boot_id: str
    namespace: int
    """Inode of the network namespace."""
    command: str
    links: tuple[LinkState, ...]
    addresses: tuple[RtnetlinkMessage, ...]
    neighbours: tuple[RtnetlinkMessage, ...]
    nexthops: tuple[RtnetlinkMessage, ...]
    routes: tuple[RtnetlinkMessage, ...]
    rules: tuple[RtnetlinkMessage, ...]
    sysctls: dict[str, str]
    """By path below /proc/sys."""

    def elapsed(self) -> float:
        """Seconds since the state was read."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.boottime


def take_state(netlink: RouteSocket, interfaces: Iterable[str], tables: Iterable[int], command: str) -> SavedState:
    """Read the state of the calling thread's network namespace.

    Raises:
        OSError: with the kernel's errno.
    """
    live = LiveState(netlink)
    concerned = _with_stacked(frozenset(interfaces), live.links)
    return SavedState(
        interfaces=tuple(sorted(concerned)),
        tables=tuple(sorted(tables)),
        saved=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        boottime=time.clock_gettime(time.CLOCK_BOOTTIME),
        boot_id=current_boot(),
        namespace=current_namespace(),
        command=command,
        links=live.links,
        addresses=live.addresses,
        neighbours=live.neighbours,
        nexthops=live.nexthops,
        routes=live.routes,
        rules=live.rules,
        sysctls=_sysctls(concerned),
    )


def current_boot() -> str:
    """What the kernel calls the time since the system's last start."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def current_namespace() -> int:
    """Inode of the calling thread's network namespace."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def _with_stacked(interfaces: frozenset[str], links: tuple[LinkState, ...]) -> frozenset[str]:
    """Whatever is stacked on an interface goes down with it, and a bridge may take its port's address."""
    found = set(interfaces)
    while True:
        more = {link.name for link in links if link.parent in found and link.name not in found}
        more |= {link.master for link in links if link.name in found and link.master} - found
        if not more:
            return frozenset(found)
        found |= more


def _sysctls(interfaces: frozenset[str]) -> dict[str, str]:
    paths = list(_GLOBAL_SYSCTLS)
    for folder in _SYSCTL_FOLDERS:
        # 'all' and 'default' first: written later, they would overrule the interfaces' own.
        for name in ("all", "default", *sorted(interfaces)):
            paths += sysctls_in(f"{folder}/{name}")
    return read_sysctls(path for path in paths if path.rpartition("/")[2] not in _NO_STATE)


_MESSAGES = {
    "addresses": rtnetlink.RTM_NEWADDR,
    "neighbours": rtnetlink.RTM_NEWNEIGH,
    "nexthops": rtnetlink.RTM_NEWNEXTHOP,
    "routes": rtnetlink.RTM_NEWROUTE,
    "rules": rtnetlink.RTM_NEWRULE,
}


def save(state: SavedState, path: str) -> None:
    """Write the state to a file that only its owner may read, whole or not at all, and safe from a crash.

    Raises:
        OSError: when the file cannot be written.
    """
    names = {link.index: link.name for link in state.links}
    document: dict[str, Any] = {"schema": SCHEMA}
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        if field.name in _MESSAGES:
            value = [{"is": describe(one, names), "message": one.encode().hex()} for one in value]
        elif field.name == "links":
            value = [dataclasses.asdict(link) for link in value]
        document[field.name] = value
    write_file(path, json.dumps(document, indent=1), mode=0o600)


def load(path: str) -> SavedState:
    """Read a state back.

    Raises:
        NoSavedState: when there is no such file, or it holds something else.
    """
    try:
        with open(path) as file:
            document = json.load(file)
        if document.pop("schema") != SCHEMA:
            raise NoSavedState(f"{path}: is no saved state of this version")
        for name, kind in _MESSAGES.items():
            document[name] = tuple(_decoded(kind, one["message"]) for one in document[name])
        document["links"] = tuple(LinkState(**link) for link in document["links"])
        document["interfaces"], document["tables"] = tuple(document["interfaces"]), tuple(document["tables"])
        return SavedState(**document)
    except OSError as error:
        raise NoSavedState(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise NoSavedState(f"{path}: holds no saved state ({type(error).__name__}: {error})") from None


def _decoded(kind: int, text: str) -> RtnetlinkMessage:
    return RtnetlinkMessage.decode(kind, bytes.fromhex(text))
