"""Requests about links, addresses, routes, rules and neighbours as the kernel takes them (rtnetlink(7)).

They are packed here and not by pyroute2, whose import takes 185 ms and which takes 0.25 ms for each message. A test
compares the messages with those of pyroute2.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from viacheck.netlink import rtnetlink
from viacheck.netlink.codec import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    attribute,
    encode_message,
)
from viacheck.netlink.rtnetlink import AF_INET, AF_INET6, IFF_UP, MultipathHop

Values = Mapping[str, Any]

_FLAGS = {"add": NLM_F_CREATE | NLM_F_EXCL, "replace": NLM_F_CREATE | NLM_F_REPLACE, "set": 0, "del": 0}
_COMPATIBLE_TABLE, _MAIN = 252, 254
"""RT_TABLE_COMPAT stands for a table whose number is in an attribute alone."""
_UNICAST, _STATIC = 1, 4
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8, "source": 16}
_RTAX_MTU = 2

_INTERFACE, _INTERFACE_ADDRESS = struct.Struct("=BBHiII"), struct.Struct("=BBBBi")
_ROUTE_OR_RULE, _NEIGHBOUR = struct.Struct("=BBBBBBBBI"), struct.Struct("=BBHiHBB")
_CACHE_INFO = struct.Struct("=IIII")

_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_MACVLAN_MODE, _VETH_INFO_PEER, _IFLA_LINKINFO = 1, 2, 1, 1, 18
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_NET_NS_FD = 1, 3, 4, 28
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO = 1, 2, 6
_RTA_DST, _RTA_SRC, _RTA_GATEWAY, _RTA_METRICS, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 1, 2, 5, 8, 9, 15, 18
_FRA_TABLE = 15


@dataclass(frozen=True, slots=True)
class VethPeer:
    """The other end of a veth pair."""

    index: int
    name: str
    mac: str | None
    mtu: int
    net_fd: int


def encode_request(noun: str, verb: str, values: Values) -> bytes:
    """Return a message that the kernel acknowledges, with the sequence number 0.

    Args:
        noun: ``link``, ``addr``, ``route``, ``rule`` or ``neigh``.
        verb: ``add``, ``replace``, ``set`` or ``del``.
        values: as :mod:`netns_lab.rtnetlink_batch` names them.

    Raises:
        struct.error: a number does not fit into its place.
        OSError, ValueError: the text of an address, a prefix or a range cannot be read.
    """
    new, delete, pieces, attributes = _NOUNS[noun]
    octets = b"".join(pieces(verb, values))
    for name, value in values.items():
        if name in attributes:
            kind, pack = attributes[name]
            octets += attribute(kind, pack(value))
    flags = NLM_F_REQUEST | NLM_F_ACK | _FLAGS[verb]
    return encode_message(delete if verb == "del" else new, flags, 0, octets)


_u8, _u16, _u32, _u64_network_order = (struct.Struct(layout).pack for layout in ("=B", "=H", "=I", ">Q"))


def _name(text: str) -> bytes:
    return os.fsencode(text) + b"\0"


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _family(address: str) -> int:
    return AF_INET6 if ":" in address else AF_INET


def _address(text: str) -> bytes:
    return socket.inet_pton(_family(text), text)


def _ports(text: str) -> bytes:
    first, last = text.split(":")
    return struct.pack("=HH", int(first), int(last))


def _users(text: str) -> bytes:
    first, last = text.split(":")
    return struct.pack("=II", int(first), int(last))


def _link(_verb: str, values: Values) -> Iterator[bytes]:
    """Yield struct ifinfomsg and the kind of interface."""
    up = IFF_UP if values.get("state") == "up" else 0
    yield _INTERFACE.pack(0, 0, 0, values["index"], up, IFF_UP if "state" in values else 0)
    peer, mode = values.get("veth_peer"), values.get("macvlan_mode")
    kind = "veth" if peer is not None else values.get("kind")
    if kind is not None:
        info = attribute(_IFLA_INFO_KIND, _name(kind))
        if peer is not None:
            info += attribute(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, b"".join(_veth_end(peer))))
        elif mode is not None:
            info += attribute(_IFLA_INFO_DATA, attribute(_IFLA_MACVLAN_MODE, _u32(_MACVLAN_MODES[mode])))
        yield attribute(_IFLA_LINKINFO, info)


def _veth_end(peer: VethPeer) -> Iterator[bytes]:
    yield _INTERFACE.pack(0, 0, 0, peer.index, 0, 0)
    yield attribute(_IFLA_IFNAME, _name(peer.name))
    yield attribute(_IFLA_MTU, _u32(peer.mtu))
    if peer.mac is not None:
        yield attribute(_IFLA_ADDRESS, _mac(peer.mac))
    yield attribute(_IFLA_NET_NS_FD, _u32(peer.net_fd))


def _interface_address(_verb: str, values: Values) -> Iterator[bytes]:
    """Yield struct ifaddrmsg, the address and its lifetime."""
    address = values["address"]
    family, local = _family(address), values.get("local")
    yield _INTERFACE_ADDRESS.pack(family, values["prefixlen"], 0, values.get("scope", 0), values["index"])
    yield attribute(_IFA_ADDRESS, _address(address))
    if family == AF_INET:
        yield attribute(_IFA_LOCAL, _address(local or address))
    if "lifetime" in values:
        yield attribute(_IFA_CACHEINFO, _CACHE_INFO.pack(values["lifetime"], values["lifetime"], 0, 0))


def _prefix(kind: int, text: str | None) -> tuple[int, bytes]:
    """Return the length of a prefix in CIDR form, and its attribute; the prefix of length 0 has none."""
    if text is None:
        return 0, b""
    address, _, length = text.partition("/")
    octets = _address(address)
    bits = int(length) if length else 8 * len(octets)
    return bits, attribute(kind, octets) if bits else b""


def _route(verb: str, values: Values) -> Iterator[bytes]:
    """Yield struct rtmsg, the prefixes, the table and the next hops."""
    destination_bits, destination = _prefix(_RTA_DST, values["dst"])
    source_bits, source = _prefix(_RTA_SRC, values.get("src"))
    table = values.get("table", _MAIN)
    yield _ROUTE_OR_RULE.pack(
        _family(values["dst"]), destination_bits, source_bits, values.get("tos", 0), _short(table),
        values.get("proto", 0 if verb == "del" else _STATIC), values.get("scope", 0), values.get("type", _UNICAST),
        values.get("flags", 0),
    )  # fmt: skip
    yield destination
    yield source
    yield attribute(_RTA_TABLE, _u32(table))
    if "mtu" in values:
        yield attribute(_RTA_METRICS, attribute(_RTAX_MTU, _u32(values["mtu"])))
    for kind, octets in _gateway(values):
        yield attribute(kind, octets)
    if "multipath" in values:
        yield attribute(_RTA_MULTIPATH, b"".join(_hop(dict(hop)).encode() for hop in values["multipath"]))


def _hop(values: Values) -> MultipathHop:
    return MultipathHop(values.get("flags", 0), values["hops"], values.get("oif", 0), tuple(_gateway(values)))


def _gateway(values: Values) -> Iterator[tuple[int, bytes]]:
    if "gateway" in values:
        yield _RTA_GATEWAY, _address(values["gateway"])
    if "via" in values:
        # struct rtvia, for a gateway of the other family.
        yield _RTA_VIA, _u16(_family(values["via"])) + _address(values["via"])


def _rule(_verb: str, values: Values) -> Iterator[bytes]:
    """Yield struct fib_rule_hdr, the prefixes and the table."""
    destination_bits, destination = _prefix(_RTA_DST, values.get("dst"))
    source_bits, source = _prefix(_RTA_SRC, values.get("src"))
    yield _ROUTE_OR_RULE.pack(
        values["family"], destination_bits, source_bits, values.get("tos", 0), _short(values.get("table", 0)), 0, 0,
        values["action"], values.get("flags", 0),
    )  # fmt: skip
    yield destination
    yield source


def _short(table: int) -> int:
    """Return the number of a table in the octet of a header."""
    return table if table <= 255 else _COMPATIBLE_TABLE


def _neighbour(_verb: str, values: Values) -> Iterator[bytes]:
    """Yield struct ndmsg."""
    yield _NEIGHBOUR.pack(_family(values["dst"]), 0, 0, values["ifindex"], values["state"], 0, 0)


_Noun = tuple[int, int, Callable[[str, Values], Iterator[bytes]], Mapping[str, tuple[int, Callable[[Any], bytes]]]]
_NOUNS: Mapping[str, _Noun] = {
    "link": (rtnetlink.RTM_NEWLINK, rtnetlink.RTM_DELLINK, _link, {
        "address": (_IFLA_ADDRESS, _mac), "ifname": (_IFLA_IFNAME, _name), "mtu": (_IFLA_MTU, _u32), "link": (5, _u32),
        "master": (10, _u32), "net_ns_fd": (_IFLA_NET_NS_FD, _u32),
    }),
    "addr": (rtnetlink.RTM_NEWADDR, rtnetlink.RTM_DELADDR, _interface_address, {"flags": (8, _u32)}),
    "route": (rtnetlink.RTM_NEWROUTE, rtnetlink.RTM_DELROUTE, _route, {
        "oif": (4, _u32), "priority": (6, _u32), "prefsrc": (7, _address), "pref": (20, _u8),
    }),
    "rule": (rtnetlink.RTM_NEWRULE, rtnetlink.RTM_DELRULE, _rule, {
        "iifname": (3, _name), "goto": (4, _u32), "priority": (6, _u32), "fwmark": (10, _u32),
        "tun_id": (12, _u64_network_order), "suppress_ifgroup": (13, _u32), "suppress_prefixlen": (14, _u32),
        "table": (_FRA_TABLE, _u32), "fwmask": (16, _u32), "oifname": (17, _name), "l3mdev": (19, _u8),
        "uid_range": (20, _users), "protocol": (21, _u8), "ip_proto": (22, _u8), "sport_range": (23, _ports),
        "dport_range": (24, _ports),
    }),
    "neigh": (rtnetlink.RTM_NEWNEIGH, rtnetlink.RTM_DELNEIGH, _neighbour, {
        "dst": (1, _address), "lladdr": (2, _mac),
    }),
}  # fmt: skip
"""By noun: the messages that add and delete, what precedes the plain attributes, and the plain attributes by name."""
