"""One route as the kernel dumps it (rtnetlink(7)): its identity, and the message that creates it again."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Hashable
from functools import cached_property

from viacheck.netlink.codec import as_number
from viacheck.netlink.rtnetlink import AF_INET6, RtnetlinkMessage, multipath_hops

CHOSEN_NEXTHOP_FLAGS = 0x2 | 0x4
"""RTNH_F_PERVASIVE and RTNH_F_ONLINK are configured; the kernel itself sets dead, linkdown, offload and trap."""

_DST, _SRC, _OIF, _GATEWAY, _PRIORITY, _PREFSRC = 1, 2, 4, 5, 6, 7
_MULTIPATH, _CACHEINFO, _TABLE, _VIA, _EXPIRES, _NH_ID = 9, 12, 15, 18, 23, 30
_PROTO_KERNEL = 2
_CLOCK_TICKS = 100
"""USER_HZ, the unit of an IPv6 route's remaining lifetime in RTA_CACHEINFO."""

RouteKey = tuple[int, int, bytes, bytes, bytes, int]


class KernelRoute:
    """A route's message, with the interface names of the state that it belongs to.

    Attributes:
        message: as the kernel dumped it.
        names: the interfaces' names by index.
        family: AF_INET or AF_INET6.
        protocol: RTPROT_*, the program that added the route.
        table: number of its table.
        key: the packets that the route is for, and its rank among the routes for them.
    """

    def __init__(self, message: RtnetlinkMessage, names: dict[int, str]) -> None:
        self.message, self.names = message, names
        body = message.body
        self.family, self.protocol, self.table = body[0], body[5], body[4]
        self._oif = priority = 0
        destination = source = b""
        # One look at each attribute: a router has a hundred thousand routes.
        for kind, value in message.attributes:
            if kind == _DST:
                destination = value
            elif kind == _TABLE:
                self.table = as_number(value)
            elif kind == _OIF:
                self._oif = as_number(value)
            elif kind == _PRIORITY:
                priority = as_number(value)
            elif kind == _SRC:
                source = value
        self.key: RouteKey = (self.family, self.table, body[1:4], destination, source, priority)

    @cached_property
    def interfaces(self) -> frozenset[str]:
        """Names of the interfaces that the route leaves by."""
        multipath = None if self._oif else self.message.get(_MULTIPATH)
        indexes = [hop.index for hop in multipath_hops(multipath)] if multipath else [self._oif]
        return frozenset(self.names[index] for index in indexes if index in self.names)

    @cached_property
    def seconds_left(self) -> float | None:
        """The lifetime that the route had when it was read, in seconds; None when it does not expire."""
        cacheinfo = self.message.get(_CACHEINFO)
        if cacheinfo is None or len(cacheinfo) < 12:
            return None
        ticks = struct.unpack_from("=i", cacheinfo, 8)[0]
        return ticks / _CLOCK_TICKS if ticks else None

    @cached_property
    def identity(self) -> Hashable:
        """Everything that must be equal, interfaces by name."""
        body, hops = self.message.body, []
        rest = []
        for kind, value in self.message.attributes:
            if kind == _MULTIPATH:
                for hop in multipath_hops(value):
                    flags = hop.flags & CHOSEN_NEXTHOP_FLAGS
                    hops.append((self.names.get(hop.index, ""), flags, hop.weight, hop.attributes))
            elif kind == _OIF:
                rest.append((kind, self.names.get(as_number(value), "").encode()))
            elif kind not in (_CACHEINFO, _TABLE, _EXPIRES):
                rest.append((kind, value))
        if self.message.get(_NH_ID) is not None:
            # The next hops belong to the next hop object; some kernels repeat them here.
            hops, rest = [], [pair for pair in rest if pair[0] not in (_OIF, _GATEWAY, _VIA)]
        if self.family == AF_INET6:
            hops.sort()
        flags = struct.unpack_from("=I", body, 8)[0] & CHOSEN_NEXTHOP_FLAGS
        return self.key, body[5:8], flags, tuple(hops), tuple(sorted(rest)), self.seconds_left is not None

    @cached_property
    def rank(self) -> int:
        """0 for a route that needs no other, 1 for a route by a gateway, 2 for several next hops or an object."""
        if self.message.get(_MULTIPATH) is not None or self.message.get(_NH_ID) is not None:
            return 2
        return int(self.message.get(_GATEWAY) is not None or self.message.get(_VIA) is not None)

    @cached_property
    def source(self) -> bytes | None:
        """The source address that the route gives to the host's own packets (RTA_PREFSRC)."""
        return self.message.get(_PREFSRC)

    @cached_property
    def nexthop(self) -> int:
        """Id of the next hop object that the route uses; 0 without such an object."""
        return self.message.number(_NH_ID)

    def follows(self, addresses: frozenset[bytes]) -> bool:
        """Return whether the route comes and goes with one of these addresses."""
        if self.source in addresses:
            return True
        if self.protocol != _PROTO_KERNEL or not self.message.body[1]:
            return False
        return any(self._covers(address) for address in addresses)

    def _covers(self, address: bytes) -> bool:
        destination, length = self.message.get(_DST) or b"", self.message.body[1]
        if len(destination) != len(address):
            return False
        shift = 8 * len(address) - length
        return int.from_bytes(destination, "big") >> shift == int.from_bytes(address, "big") >> shift

    @property
    def made_by_kernel(self) -> bool:
        """The kernel made the route for an address or a link (RTPROT_KERNEL)."""
        return self.protocol == _PROTO_KERNEL

    @property
    def made_by_kernel_only(self) -> bool:
        """An IPv6 route without a metric comes with the address that it is for; no request can add it."""
        return self.family == AF_INET6 and self.key[-1] == 0

    def request(self, today: Callable[[int, dict[int, str]], int], elapsed: float) -> bytes:
        """Return the message that adds or deletes the route, without what the kernel found out by itself.

        Args:
            today: returns the current index of an interface, given its index in this route and the names of this route.
            elapsed: seconds since the route was read.

        Raises:
            InterfaceGone: by ``today``.
        """
        message = self.message.without(_CACHEINFO, _EXPIRES)
        flags = struct.unpack_from("=I", message.body, 8)[0] & CHOSEN_NEXTHOP_FLAGS
        body = message.body[:8] + struct.pack("=I", flags)
        changed: list[tuple[int, bytes]] = []
        if message.get(_NH_ID) is not None:
            message = message.without(_OIF, _GATEWAY, _VIA, _MULTIPATH)
        elif (multipath := message.get(_MULTIPATH)) is not None:
            hops = (
                dataclasses.replace(hop, flags=hop.flags & CHOSEN_NEXTHOP_FLAGS, index=today(hop.index, self.names))
                for hop in multipath_hops(multipath)
            )
            changed.append((_MULTIPATH, b"".join(hop.encode() for hop in hops)))
        elif self._oif:
            changed.append((_OIF, struct.pack("=i", today(self._oif, self.names))))
        if self.seconds_left is not None:
            changed.append((_EXPIRES, struct.pack("=I", max(1, int(self.seconds_left - elapsed)))))
        return RtnetlinkMessage(message.kind, body, message.attributes).plus(*changed).encode()
