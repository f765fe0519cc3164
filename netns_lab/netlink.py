"""Batches of rtnetlink requests: compiled by pyroute2, sent to a namespace in one system call, every answer checked.

Compiling costs about 0.25 ms a message, so what was compiled once is kept: a lab that is built again costs little more
than the kernel's own work.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from pyroute2 import IPBatch

from fixtures.access.namespace import Namespace
from fixtures.model.snapshot import Address, Link, Neighbour, Route, Rule

NLMSG_ERROR = 2
RTM_GETLINK = 18
NLM_F_REQUEST_ACK = 0x5
NLM_F_CREATE_EXCL = 0x600
ANSWER_TIMEOUT = 5.0
_ROUTE_TYPES = {"unicast": 1, "local": 2, "broadcast": 3, "blackhole": 6, "unreachable": 7, "prohibit": 8, "throw": 9}
_RULE_ACTIONS = {"lookup": 1, "goto": 2, "nop": 3, "blackhole": 6, "unreachable": 7, "prohibit": 8}


class LabBuildError(Exception):
    """The kernel refused a part of the lab; the message names the request and the kernel's reason."""


@dataclass(frozen=True, slots=True)
class Request:
    """One rtnetlink request in pyroute2's words: ``Request("link", "set", (("index", 2), ("state", "up")))``."""

    noun: str
    verb: str
    values: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return f"{self.noun} {self.verb} " + " ".join(f"{key}={value}" for key, value in self.values)


@dataclass(frozen=True, slots=True)
class _VethPeer:
    """The other end of a veth pair."""

    index: int
    name: str
    mac: str | None
    mtu: int
    net_fd: int


def request(noun: str, verb: str, **values: Any) -> Request:
    """Make a request; values of None are left out."""
    return Request(noun, verb, tuple((key, value) for key, value in values.items() if value is not None))


@cache
def _compiler() -> IPBatch:
    return IPBatch()


@lru_cache(maxsize=4096)
def _compiled(one: Request) -> bytes:
    compiler = _compiler()
    compiler.reset()
    values: dict[str, Any] = dict(one.values)
    if "veth_peer" in values:
        values["linkinfo"] = _veth(values.pop("veth_peer"))
    if "multipath" in values:
        values["multipath"] = [dict(hop) for hop in values["multipath"]]
    getattr(compiler, one.noun)(one.verb, **values)
    return bytes(compiler.batch)


def _veth(peer: _VethPeer) -> dict[str, Any]:
    """Spell the link out: pyroute2's own ``peer=`` drops the peer's index, which a description fixes."""
    attributes = [("IFLA_IFNAME", peer.name), ("IFLA_ADDRESS", peer.mac), ("IFLA_MTU", peer.mtu)]
    end = {"index": peer.index, "attrs": [*attributes, ("IFLA_NET_NS_FD", peer.net_fd)]}
    return {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", end)]})]}


def encode(requests: Sequence[Request]) -> bytes:
    """Requests as the kernel takes them (rtnetlink(7)), one behind the other, with sequence numbers from 1 on."""
    batch = bytearray()
    for number, one in enumerate(requests):
        message = bytearray(_compiled(one))
        struct.pack_into("=I", message, 8, number + 1)
        batch += message
    return bytes(batch)


def send(namespace: Namespace, requests: Sequence[Request], missing_ok: bool = False) -> None:
    """Send requests in order, in one batch, and wait until the kernel has answered each.

    With ``missing_ok`` a refusal because the thing is not there (ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL) is no error.

    Raises:
        LabBuildError: naming the first request that was refused, and why.
    """
    if not requests:
        return
    batch = encode(requests)
    answers = namespace.call(lambda: _exchange(batch, len(requests)))
    harmless = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL) if missing_ok else ()
    for number, one in enumerate(requests):
        code = answers.get(number + 1)
        if code is None:
            raise LabBuildError(f"{namespace.name}: no answer from the kernel to: {one}")
        if code and code not in harmless:
            raise LabBuildError(f"{namespace.name}: {os.strerror(code)}: {one}")


def settle(namespace: Namespace, links: Sequence[Link]) -> None:
    """Ask for each interface by itself, which makes the kernel finish what its carrier's last change began.

    Without it a port may lose the first frames, and the first ARP request stalls for a second.
    """
    batch = bytearray()
    for number, link in enumerate(links):
        batch += struct.pack("=IHHII", 32, RTM_GETLINK, NLM_F_REQUEST_ACK, number + 1, 0)
        batch += struct.pack("=BBHiII", 0, 0, 0, link.index, 0, 0)
    if batch:
        namespace.call(lambda: _exchange(bytes(batch), len(links)))


def _exchange(batch: bytes, count: int) -> dict[int, int]:
    """Send one batch and collect the errno of each sequence number (0: done)."""
    answers: dict[int, int] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(ANSWER_TIMEOUT)
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        netlink.bind((0, 0))
        netlink.sendto(batch, (0, 0))
        while len(answers) < count:
            try:
                received = netlink.recv(1 << 16)
            except TimeoutError:
                break
            offset = 0
            while offset + 16 <= len(received):
                length, kind, _flags, sequence = struct.unpack_from("=IHHI", received, offset)
                if kind == NLMSG_ERROR:
                    answers[sequence] = -struct.unpack_from("=i", received, offset + 16)[0]
                offset += (length + 3) & ~3
    return answers


def add_address(address: Address, index: int) -> Request:
    """Add an address, without duplicate address detection: a lab's addresses are unique by construction."""
    return request(
        "addr",
        "add",
        index=index,
        address=address.address,
        prefixlen=address.prefixlen,
        family=_af(address.family),
        flags=0x02 if address.family == 6 else None,
    )


def add_rule(rule: Rule) -> Request:
    """Add a rule."""
    return rule_request("add", rule)


def rule_request(verb: str, rule: Rule) -> Request:
    """Add or delete a rule."""
    source, source_length = _prefix(rule.source)
    destination, destination_length = _prefix(rule.destination)
    return request(
        "rule", verb,
        family=_af(rule.family),
        priority=rule.priority,
        action=_RULE_ACTIONS[rule.action],
        table=rule.table if rule.action == "lookup" else None,
        goto=rule.goto,
        src=source, src_len=source_length,
        dst=destination, dst_len=destination_length,
        iifname=rule.iif, oifname=rule.oif,
        fwmark=rule.fwmark, fwmask=rule.fwmask,
        ip_proto=rule.ipproto,
        dport_range=f"{rule.dport.first}:{rule.dport.last}" if rule.dport else None,
        suppress_prefixlen=rule.suppress_prefixlength,
    )  # fmt: skip


def route_request(verb: str, route: Route, indexes: dict[str, int]) -> Request:
    """Add, replace or delete a route; ``indexes`` maps the machine's interfaces to their index."""
    hops = [
        {"oif": indexes[hop.interface] if hop.interface else None, "gateway": hop.gateway, "hops": hop.weight - 1}
        for hop in route.nexthops
    ]
    single = hops[0] if len(hops) == 1 else {}
    return request(
        "route", verb,
        family=_af(route.family),
        dst=route.destination,
        table=route.table,
        type=_ROUTE_TYPES[route.type],
        priority=route.metric or None,
        prefsrc=route.source,
        oif=single.get("oif"),
        gateway=single.get("gateway"),
        scope=None if single.get("gateway") or not single or route.family == 6 else 253,
        multipath=[tuple(hop.items()) for hop in hops] if len(hops) > 1 else None,
    )  # fmt: skip


def add_neighbour(neighbour: Neighbour, index: int) -> Request:
    """Pin a neighbour's MAC address."""
    return request(
        "neigh",
        "add",
        ifindex=index,
        dst=neighbour.address,
        lladdr=neighbour.mac,
        family=_af(neighbour.family),
        state=0x80,
    )


def add_link(link: Link, master_index: int | None = None, parent_index: int | None = None) -> Request:
    """Make an interface that is no veth."""
    return request(
        "link", "add", index=link.index, ifname=link.name, kind=link.kind, address=link.mac, mtu=link.mtu,
        master=master_index, link=parent_index, macvlan_mode=link.mode if link.kind == "macvlan" else None,
    )  # fmt: skip


def add_macvlan(link: Link, namespace: Namespace) -> Request:
    """Make a macvlan interface on a parent of the machine that is asked, at once in another namespace."""
    return request(
        "link", "add", index=link.index, ifname=link.name, kind="macvlan", address=link.mac, mtu=link.mtu,
        link=link.peer_index, macvlan_mode=link.mode, net_ns_fd=namespace.net_fd,
    )  # fmt: skip


def add_veth(link: Link, peer: Link, peer_namespace: Namespace) -> Request:
    """Make a veth pair, its other end at once in the other namespace. Neither is up yet: a veth must not begin so."""
    other = _VethPeer(peer.index, peer.name, peer.mac, peer.mtu, peer_namespace.net_fd)
    return request(
        "link", "add", index=link.index, ifname=link.name, address=link.mac, mtu=link.mtu, veth_peer=other
    )  # fmt: skip


def _af(family: int) -> int:
    return int(socket.AF_INET if family == 4 else socket.AF_INET6)


def _prefix(network: str | None) -> tuple[str | None, int | None]:
    if network is None:
        return None, None
    address, _, length = network.partition("/")
    return address, int(length or (128 if ":" in address else 32))
