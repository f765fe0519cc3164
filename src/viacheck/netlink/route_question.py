"""Asks the kernel for the route of a packet by RTM_GETROUTE, through a socket that stays open (rtnetlink(7)).

``ip route get`` starts a process for each question; the flight recorder asks for every class of traffic after every
change.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.codec import attribute
from viacheck.netlink.routing_objects import route_of
from viacheck.netlink.rtnetlink import RouteSocket

_RTA_DST, _RTA_SRC, _RTA_IIF = 1, 2, 3
_RTA_MARK, _RTA_UID, _RTA_IP_PROTO, _RTA_DPORT = 16, 25, 27, 29
_BODY = struct.Struct("=BBBBBBBBI")
_LOOKUP_TABLE = 0x1000
"""RTM_F_LOOKUP_TABLE: the answer names the table that decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteQuestion:
    """The packet that is asked about."""

    destination: str
    source: str | None = None
    iif: int | None = None
    """Index of the interface that the packet arrives on; None for a packet of the namespace itself."""
    mark: int = 0
    protocol: int | None = None
    dport: int | None = None
    uid: int = 0

    @property
    def payload(self) -> bytes:
        """The question as the kernel takes it."""
        family = socket.AF_INET6 if ":" in self.destination else socket.AF_INET
        octets = [attribute(_RTA_DST, socket.inet_pton(family, self.destination))]
        if self.source is not None:
            octets.append(attribute(_RTA_SRC, socket.inet_pton(family, self.source)))
        if self.iif is not None:
            octets.append(attribute(_RTA_IIF, struct.pack("=I", self.iif)))
        if self.mark:
            octets.append(attribute(_RTA_MARK, struct.pack("=I", self.mark)))
        octets.append(attribute(_RTA_UID, struct.pack("=I", self.uid)))
        if self.protocol is not None:
            octets.append(attribute(_RTA_IP_PROTO, bytes([self.protocol])))
        if self.dport is not None:
            octets.append(attribute(_RTA_DPORT, struct.pack(">H", self.dport)))
        length = 128 if family == socket.AF_INET6 else 32
        body = _BODY.pack(family, length, length if self.source is not None else 0, 0, 0, 0, 0, 0, _LOOKUP_TABLE)
        return body + b"".join(octets)


@dataclass(frozen=True, slots=True)
class RouteReply:
    """The kernel's answer."""

    interface: str | None
    """None where the packet goes nowhere."""
    text: str
    """The route, or the reason why the packet goes nowhere."""


def ask_route(netlink: RouteSocket, question: RouteQuestion, names: Mapping[int, str]) -> RouteReply:
    """Return the route that the kernel takes for a packet; ``names`` are the interfaces' names by index.

    Raises:
        OSError: the socket fails; a route that does not exist is an answer.
    """
    try:
        message = netlink.ask(rtnetlink.RTM_GETROUTE, question.payload)
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ENOTCONN, errno.ETIMEDOUT):
            raise
        return RouteReply(None, os.strerror(error.errno or 0))
    except codec.MalformedMessage as error:
        return RouteReply(None, str(error))
    route = route_of(message, names)
    if route.type != "unicast":
        return RouteReply(None, route.type)
    (hop,) = route.nexthops[:1] or (None,)
    interface = hop.interface if hop is not None else None
    via = f"via {hop.gateway} " if hop is not None and hop.gateway else ""
    return RouteReply(interface, f"table {route.table}: {via}dev {interface}")
