"""Batches of rtnetlink requests: sent to a namespace in one system call, every answer checked.

An encoded message is kept: a process builds a lab, and parts of it, more than once.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from netns_lab.rtnetlink_encode import VethPeer, encode_request
from viacheck.host.namespace import Namespace
from viacheck.model.namespace_state import Address, Link, Neighbour
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.routing_names import PROTOCOLS, ROUTE_TYPES, SCOPES
from viacheck.netlink import codec, rtnetlink

ANSWER_TIMEOUT = 5.0
MESSAGES_AT_ONCE = 500
"""Messages that fit into a socket's buffers, answers included."""
_ROUTE_TYPES = {name: number for number, name in enumerate(ROUTE_TYPES)}
_RULE_ACTIONS = {"lookup": 1, "goto": 2, "nop": 3, "blackhole": 6, "unreachable": 7, "prohibit": 8}
_RULE_INVERTED = 2
_PROTOCOLS, _SCOPES = ({name: number for number, name in names.items()} for names in (PROTOCOLS, SCOPES))
_PREFERENCES = {"low": 3, "high": 1}
"""RFC 4191, section 2.2."""
_ONLINK = 4
_NO_DAD, _NO_PREFIX_ROUTE = 0x02, 0x200


class LabBuildError(Exception):
    """The kernel refused a part of the lab; the message names the request and the kernel's reason."""


@dataclass(frozen=True, slots=True)
class LabRequest:
    """One rtnetlink request: ``LabRequest("link", "set", (("index", 2), ("state", "up")))``."""

    noun: str
    verb: str
    values: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return f"{self.noun} {self.verb} " + " ".join(f"{key}={value}" for key, value in self.values)


def request(noun: str, verb: str, **values: Any) -> LabRequest:
    """Return a request; values of None are left out."""
    return LabRequest(noun, verb, tuple((key, value) for key, value in values.items() if value is not None))


@lru_cache(maxsize=4096)
def _encoded(request: LabRequest) -> bytes:
    return encode_request(request.noun, request.verb, dict(request.values))


def encode(requests: Sequence[LabRequest]) -> bytes:
    """Return requests as the kernel takes them (rtnetlink(7)), in order, with sequence numbers from 1."""
    return b"".join(codec.numbered(_encoded(request), number) for number, request in enumerate(requests, start=1))


def open_socket() -> codec.NetlinkSocket:
    """Open a socket in the calling thread's namespace, for several batches from any thread."""
    return codec.NetlinkSocket(socket.NETLINK_ROUTE, ANSWER_TIMEOUT)


def send(
    namespace: Namespace,
    requests: Sequence[LabRequest],
    missing_ok: bool = False,
    by: codec.NetlinkSocket | None = None,
) -> None:
    """Send requests in order, in one batch, and wait for the kernel's answer to each.

    Args:
        namespace: where they count.
        requests: the requests.
        missing_ok: the refusal of a missing object (ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL) is not an error.
        by: an open socket of the namespace; without it the namespace's thread opens one.

    Raises:
        LabBuildError: when the kernel refuses a request; it names the first refused request and the reason.
    """
    if not requests:
        return
    batch = encode(requests)
    answers = _exchange(namespace, batch, len(requests), by)
    harmless = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL) if missing_ok else ()
    for number, sent in enumerate(requests, start=1):
        code = answers.get(number)
        if code is None:
            raise LabBuildError(f"{namespace.name}: no answer from the kernel to: {sent}")
        if code and code not in harmless:
            raise LabBuildError(f"{namespace.name}: {os.strerror(code)}: {sent}")


def attempt(namespace: Namespace, requests: Sequence[LabRequest]) -> list[tuple[int, int]]:
    """Send requests in order; return the position and the errno of each refused request.

    A request that does not fit into a message, because a number is too large, counts as refused with EINVAL.

    Raises:
        LabBuildError: when the kernel does not answer.
    """
    refused = [(place, errno.EINVAL) for place, wanted in enumerate(requests) if not _fits(wanted)]
    unfit = {place for place, _code in refused}
    places = [place for place in range(len(requests)) if place not in unfit]
    for start in range(0, len(places), MESSAGES_AT_ONCE):
        part = places[start : start + MESSAGES_AT_ONCE]
        answers = _exchange(namespace, encode([requests[place] for place in part]), len(part))
        for number, place in enumerate(part, start=1):
            if number not in answers:
                raise LabBuildError(f"{namespace.name}: no answer from the kernel to: {requests[place]}")
            if answers[number]:
                refused.append((place, answers[number]))
    return sorted(refused)


def _fits(request: LabRequest) -> bool:
    try:
        _encoded(request)
    except (struct.error, ValueError, OSError):
        return False
    return True


def settle(namespace: Namespace, links: Sequence[Link], by: codec.NetlinkSocket | None = None) -> None:
    """Ask for each interface by itself, so that the kernel completes the last change of the interface's carrier.

    Otherwise a port may lose the first frames, and the first ARP request stalls for a second. ``by`` is as for
    :func:`send`.
    """
    flags = codec.NLM_F_REQUEST | codec.NLM_F_ACK
    bodies = [struct.pack("=BBHiII", 0, 0, 0, link.index, 0, 0) for link in links]
    batch = b"".join(
        codec.encode_message(rtnetlink.RTM_GETLINK, flags, number, body) for number, body in enumerate(bodies, start=1)
    )
    if batch:
        _exchange(namespace, batch, len(links), by)


def _exchange(namespace: Namespace, batch: bytes, count: int, by: codec.NetlinkSocket | None = None) -> dict[int, int]:
    """Send a batch and return the errno by sequence number (0: done)."""
    if by is not None:
        return by.exchange(batch, count)

    def exchange() -> dict[int, int]:
        with open_socket() as netlink:
            return netlink.exchange(batch, count)

    return namespace.call(exchange)


def add_address(address: Address, index: int) -> LabRequest:
    """Add an address without duplicate address detection: a lab's addresses are unique by construction."""
    return address_request("add", address, index)


def address_request(verb: str, address: Address, index: int) -> LabRequest:
    """Add or delete an address, with its lifetime and, for IPv4, its scope."""
    flags = (_NO_PREFIX_ROUTE if "noprefixroute" in address.flags else 0) | (_NO_DAD if address.family == 6 else 0)
    point_to_point = address.peer is not None and address.family == 4
    return request(
        "addr", verb,
        index=index,
        address=address.peer if point_to_point else address.address,
        local=address.address if point_to_point else None,
        prefixlen=address.prefixlen,
        scope=_SCOPES.get(address.scope) or None if address.family == 4 else None,
        flags=flags or None,
        lifetime=address.valid_lifetime,
    )  # fmt: skip


def add_rule(rule: Rule) -> LabRequest:
    """Add a rule."""
    return rule_request("add", rule)


def rule_request(verb: str, rule: Rule) -> LabRequest:
    """Add or delete a rule."""
    return request(
        "rule", verb,
        family=_af(rule.family),
        priority=rule.priority,
        action=_RULE_ACTIONS[rule.action],
        flags=_RULE_INVERTED if rule.invert else None,
        table=rule.table if rule.action == "lookup" else None,
        goto=rule.goto,
        src=rule.source, dst=rule.destination,
        iifname=rule.iif, oifname=rule.oif,
        fwmark=rule.fwmark, fwmask=rule.fwmask,
        tos=rule.tos,
        ip_proto=rule.ipproto,
        sport_range=f"{rule.sport.first}:{rule.sport.last}" if rule.sport else None,
        dport_range=f"{rule.dport.first}:{rule.dport.last}" if rule.dport else None,
        uid_range=f"{rule.uid_first}:{rule.uid_last}" if rule.uid_first is not None else None,
        tun_id=rule.tun_id,
        l3mdev=1 if rule.l3mdev else None,
        suppress_prefixlen=rule.suppress_prefixlength,
        suppress_ifgroup=rule.suppress_ifgroup,
        protocol=_protocol(rule.protocol),
    )  # fmt: skip


def route_request(verb: str, route: Route, indexes: dict[str, int]) -> LabRequest:
    """Add, replace or delete a route; ``indexes`` maps the machine's interfaces to their index."""
    hops = [_hop(hop, route.family, indexes) for hop in route.nexthops]
    single = hops[0] if len(hops) == 1 else {}
    scope = _SCOPES.get(route.scope, 0)
    if single and not route.nexthops[0].gateway and route.family == 4:
        scope = scope or _SCOPES["link"]
    return request(
        "route", verb,
        dst=route.destination,
        table=route.table,
        type=_ROUTE_TYPES[route.type],
        priority=route.metric or None,
        prefsrc=route.source,
        tos=route.tos or None,
        proto=_protocol(route.protocol),
        src=route.source_prefix,
        pref=_PREFERENCES.get(route.preference),
        mtu=route.mtu,
        oif=single.get("oif"),
        gateway=single.get("gateway"),
        via=single.get("via"),
        flags=single.get("flags"),
        scope=scope if route.family == 4 and scope else None,
        multipath=tuple(tuple(hop.items()) for hop in hops) if len(hops) > 1 else None,
    )  # fmt: skip


def _hop(hop: Nexthop, family: int, indexes: dict[str, int]) -> dict[str, Any]:
    values: dict[str, Any] = {"hops": hop.weight - 1}
    if hop.interface:
        values["oif"] = indexes[hop.interface]
    if hop.gateway is not None:
        values["gateway" if (":" in hop.gateway) == (family == 6) else "via"] = hop.gateway
    if "onlink" in hop.flags:
        values["flags"] = _ONLINK
    return values


def _protocol(name: str | None) -> int | None:
    """Return the number of a route's origin (rtnetlink(7), rtm_protocol), given by name or number."""
    if name is None:
        return None
    return _PROTOCOLS.get(name, int(name) if name.isdecimal() else None)


def add_neighbour(neighbour: Neighbour, index: int) -> LabRequest:
    """Pin a neighbour's MAC address."""
    return request(
        "neigh",
        "add",
        ifindex=index,
        dst=neighbour.address,
        lladdr=neighbour.mac,
        state=0x80,
    )


def add_link(link: Link, master_index: int | None = None, parent_index: int | None = None) -> LabRequest:
    """Add an interface other than a veth."""
    return request(
        "link", "add", index=link.index, ifname=link.name, kind=link.kind, address=link.mac, mtu=link.mtu,
        master=master_index, link=parent_index, macvlan_mode=link.mode if link.kind == "macvlan" else None,
    )  # fmt: skip


def add_macvlan(link: Link, namespace: Namespace) -> LabRequest:
    """Add a macvlan interface, on a parent of the machine that gets the request, in another namespace."""
    return request(
        "link", "add", index=link.index, ifname=link.name, kind="macvlan", address=link.mac, mtu=link.mtu,
        link=link.peer_index, macvlan_mode=link.mode, net_ns_fd=namespace.net_fd,
    )  # fmt: skip


def add_veth(link: Link, peer: Link, peer_namespace: Namespace) -> LabRequest:
    """Add a veth pair with its other end in another namespace. Both ends are down: a veth cannot be created up."""
    other = VethPeer(peer.index, peer.name, peer.mac, peer.mtu, peer_namespace.net_fd)
    return request(
        "link", "add", index=link.index, ifname=link.name, address=link.mac, mtu=link.mtu, veth_peer=other
    )  # fmt: skip


def _af(family: int) -> int:
    return int(socket.AF_INET if family == 4 else socket.AF_INET6)
