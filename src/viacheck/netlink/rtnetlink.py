"""rtnetlink(7): dumps of links, addresses, neighbours, next hops, routes and rules, and requests that change them.

A message that the kernel dumps holds everything the kernel knows of an object, including what no tool prints, and the
same message creates the object again. The guard therefore saves messages and not text. Standard library only, as
:mod:`viacheck.netlink.codec`.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from viacheck.netlink import codec
from viacheck.netlink.codec import (
    NLA_TYPE_MASK,
    MalformedMessage,
    NetlinkSocket,
    as_string,
    attribute,
    attributes,
    string,
)

AF_INET, AF_INET6 = int(socket.AF_INET), int(socket.AF_INET6)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWNEXTHOP, RTM_DELNEXTHOP, RTM_GETNEXTHOP = 104, 105, 106

BODY_SIZE = {
    RTM_NEWLINK: 16, RTM_DELLINK: 16, RTM_NEWADDR: 8, RTM_DELADDR: 8, RTM_NEWROUTE: 12, RTM_DELROUTE: 12,
    RTM_NEWNEIGH: 12, RTM_DELNEIGH: 12, RTM_NEWRULE: 12, RTM_DELRULE: 12, RTM_NEWNEXTHOP: 8, RTM_DELNEXTHOP: 8,
}  # fmt: skip
"""Octets between the netlink header and the attributes, by type of message."""

# linux/rtnetlink.h: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV4_RULE, RTMGRP_IPV6_IFADDR,
# RTMGRP_IPV6_ROUTE, and RTNLGRP_IPV6_RULE (group 19), which has no RTMGRP name.
CHANGE_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18

LINK_GROUP = 0x1
"""RTMGRP_LINK."""
IFLA_IFNAME = 3
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000
_AF_BRIDGE = 7
_DUMP_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class RtnetlinkMessage:
    """One object of the kernel: the fixed part of its message, and its attributes in the kernel's order."""

    kind: int
    body: bytes
    attributes: tuple[tuple[int, bytes], ...] = ()

    @classmethod
    def decode(cls, kind: int, payload: bytes) -> RtnetlinkMessage:
        """Decode the octets that follow the netlink header.

        Raises:
            MalformedMessage: when the type is unknown, or the octets are too short.
        """
        size = BODY_SIZE.get(kind)
        if size is None or len(payload) < size:
            raise MalformedMessage(f"an rtnetlink message of type {kind} and {len(payload)} octets")
        return cls(kind, payload[:size], tuple(attributes(payload[size:])))

    def encode(self) -> bytes:
        """Return the octets that follow the netlink header."""
        return self.body + b"".join(attribute(kind, value) for kind, value in self.attributes)

    def get(self, kind: int) -> bytes | None:
        """Return an attribute's value; None when the message does not have the attribute."""
        return next((value for given, value in self.attributes if given & NLA_TYPE_MASK == kind), None)

    def number(self, kind: int, default: int = 0) -> int:
        """Return an attribute of one, two, four or eight octets as a number."""
        value = self.get(kind)
        return default if value is None else codec.as_number(value)

    def without(self, *kinds: int) -> RtnetlinkMessage:
        """Return the message without some attributes."""
        left = tuple((kind, value) for kind, value in self.attributes if kind & NLA_TYPE_MASK not in kinds)
        return RtnetlinkMessage(self.kind, self.body, left)

    def plus(self, *more: tuple[int, bytes]) -> RtnetlinkMessage:
        """Return the message with these attributes in place of any of the same type."""
        left = self.without(*(kind & NLA_TYPE_MASK for kind, _ in more))
        return RtnetlinkMessage(self.kind, self.body, left.attributes + more)


@dataclass(frozen=True, slots=True)
class LinkChange:
    """One interface, as a message about links describes it."""

    index: int
    name: str
    """Empty where the message does not have it."""
    flags: int
    """IFF_* of netdevice(7)."""
    gone: bool
    """The interface was deleted."""

    @classmethod
    def of(cls, message: RtnetlinkMessage) -> LinkChange:
        """Read a message of type RTM_NEWLINK or RTM_DELLINK."""
        index, flags = struct.unpack_from("=iI", message.body, 4)
        name = as_string(message.get(IFLA_IFNAME) or b"")
        # A bridge reports a port that leaves it as deleted, in its own family; the interface is still there.
        return cls(index, name, flags, message.kind == RTM_DELLINK and message.body[0] != _AF_BRIDGE)


@dataclass(frozen=True, slots=True)
class MultipathHop:
    """One next hop of RTA_MULTIPATH (struct rtnexthop of rtnetlink(7))."""

    flags: int
    weight: int
    """The weight that ip(8) shows, minus 1."""
    index: int
    """Of the interface."""
    attributes: tuple[tuple[int, bytes], ...]

    def encode(self) -> bytes:
        """Return the octets of the next hop."""
        rest = b"".join(attribute(kind, value) for kind, value in self.attributes)
        return _RTNH.pack(_RTNH.size + len(rest), self.flags, self.weight, self.index) + rest


_RTNH = struct.Struct("=HBBi")


def multipath_hops(value: bytes) -> Iterator[MultipathHop]:
    """Yield the next hops of RTA_MULTIPATH.

    Raises:
        MalformedMessage: when a length is shorter than a next hop's header or longer than the octets that are left.
    """
    offset, size = 0, len(value)
    while offset + _RTNH.size <= size:
        length, flags, weight, index = _RTNH.unpack_from(value, offset)
        if not _RTNH.size <= length <= size - offset:
            raise MalformedMessage(f"a next hop of {length} octets in {size - offset}")
        yield MultipathHop(flags, weight, index, tuple(attributes(value[offset + _RTNH.size : offset + length])))
        offset += (length + 3) & ~3


def address_text(octets: bytes) -> str:
    """Return an address as ip(8) prints it; octets of another length in hex."""
    family = {4: AF_INET, 16: AF_INET6}.get(len(octets))
    return octets.hex() if family is None else socket.inet_ntop(family, octets)


class RouteSocket(NetlinkSocket):
    """An rtnetlink socket of the calling thread's network namespace."""

    def __init__(self) -> None:
        """Open the socket.

        Raises:
            OSError: when the kernel does not have rtnetlink.
        """
        super().__init__(socket.NETLINK_ROUTE)

    def dump(self, get: int, body: bytes) -> list[RtnetlinkMessage]:
        """Return all objects of one kind, as one consistent list in the kernel's order.

        Raises:
            OSError: with the kernel's errno (EOPNOTSUPP: the kernel does not have such objects); EAGAIN when the list
                changed at every attempt to read it.
        """
        for _attempt in range(_DUMP_ATTEMPTS):
            try:
                messages = self.dump_messages(get, body)
            except InterruptedError:
                continue
            return [RtnetlinkMessage.decode(message.type, message.payload) for message in messages]
        raise OSError(errno.EAGAIN, "the kernel's state changed each time while it was read")

    def request(self, kind: int, flags: int, payload: bytes) -> None:
        """Send a request that changes the kernel's state, and wait for the acknowledgement.

        Raises:
            OSError: with the kernel's errno.
        """
        self.send_request(kind, codec.NLM_F_ACK | flags, payload)
        while True:
            for answer in self.answers():
                if answer.type == codec.NLMSG_ERROR:
                    codec.raise_error(answer.payload)
                    return

    def link(self, name: str) -> LinkChange:
        """Return an interface by its name.

        Raises:
            OSError: ENODEV when there is no such interface.
        """
        return LinkChange.of(self.ask(RTM_GETLINK, bytes(BODY_SIZE[RTM_NEWLINK]) + string(IFLA_IFNAME, name)))

    def ask(self, kind: int, payload: bytes) -> RtnetlinkMessage:
        """Ask for one object.

        Raises:
            OSError: with the kernel's errno.
        """
        answer = self.ask_message(kind, payload)
        return RtnetlinkMessage.decode(answer.type, answer.payload)


class ChangeListener:
    """Reports that something changed in the calling thread's network namespace; a new dump shows what."""

    def __init__(self) -> None:
        """Begin to listen.

        Raises:
            OSError: when the kernel does not have rtnetlink.
        """
        self._socket = NetlinkSocket(socket.NETLINK_ROUTE, groups=CHANGE_GROUPS)

    def __enter__(self) -> ChangeListener:
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()

    def forget(self) -> None:
        """Drop the changes that were reported so far."""
        for _datagram in self._socket.waiting():
            pass

    def wait(self, seconds: float) -> None:
        """Return when something changes, and after ``seconds`` at the latest."""
        try:
            self._socket.receive(timeout=max(seconds, 0.001))
        except OSError:
            return
