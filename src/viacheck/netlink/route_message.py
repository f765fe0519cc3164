"""One route as the kernel dumps it (rtnetlink(7)): what makes it the same route, and the message that remakes it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from functools import cached_property

from viacheck.guard.describe import RTNH, describe, hops
from viacheck.netlink import codec
from viacheck.netlink.codec import AF_INET6, Message, attribute

CHOSEN_NEXTHOP_FLAGS = 0x2 | 0x4
"""RTNH_F_PERVASIVE and RTNH_F_ONLINK are chosen; dead, linkdown, offload and trap are what the kernel found."""

_DST, _SRC, _OIF, _GATEWAY, _PRIORITY, _PREFSRC = 1, 2, 4, 5, 6, 7
_MULTIPATH, _CACHEINFO, _TABLE, _VIA, _EXPIRES, _NH_ID = 9, 12, 15, 18, 23, 30
_PROTO_KERNEL = 2
_CLOCK_TICKS = 100
"""USER_HZ, in which RTA_CACHEINFO counts the time that an IPv6 route has left."""

RouteKey = tuple[int, int, bytes, bytes, bytes, int]


class Route:
    """A route's message, with the interfaces' names of the state that it stands in.

    Attributes:
        message: as the kernel dumped it.
        names: the interfaces' names by index.
        family: AF_INET or AF_INET6.
        protocol: RTPROT_*, who made it.
        table: number of its table.
        key: the packets that it is for, and its rank among the routes for them.
    """

    def __init__(self, message: Message, names: dict[int, str]) -> None:
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
                self.table = int.from_bytes(value, codec.BYTE_ORDER)
            elif kind == _OIF:
                self._oif = int.from_bytes(value, codec.BYTE_ORDER)
            elif kind == _PRIORITY:
                priority = int.from_bytes(value, codec.BYTE_ORDER)
            elif kind == _SRC:
                source = value
        self.key: RouteKey = (self.family, self.table, body[1:4], destination, source, priority)

    @cached_property
    def interfaces(self) -> frozenset[str]:
        """Names of the interfaces that it leads out of."""
        several = None if self._oif else self.message.get(_MULTIPATH)
        indexes = [index for _f, _w, index, _i in hops(several)] if several else [self._oif]
        return frozenset(self.names[index] for index in indexes if index in self.names)

    @cached_property
    def seconds_left(self) -> float | None:
        """How long it was to last when it was read; None when for ever."""
        cacheinfo = self.message.get(_CACHEINFO)
        if cacheinfo is None or len(cacheinfo) < 12:
            return None
        ticks = struct.unpack_from("=i", cacheinfo, 8)[0]
        return ticks / _CLOCK_TICKS if ticks else None

    @cached_property
    def identity(self) -> Hashable:
        """Everything that must be equal, interfaces by name."""
        body, ways = self.message.body, []
        rest = []
        for kind, value in self.message.attributes:
            if kind == _MULTIPATH:
                for flags, weight, index, inner in hops(value):
                    ways.append((self.names.get(index, ""), flags & CHOSEN_NEXTHOP_FLAGS, weight, inner))
            elif kind == _OIF:
                rest.append((kind, self.names.get(int.from_bytes(value, codec.BYTE_ORDER), "").encode()))
            elif kind not in (_CACHEINFO, _TABLE, _EXPIRES):
                rest.append((kind, value))
        if self.message.get(_NH_ID) is not None:
            # The ways are the next hop's; some kernels show them here too.
            ways, rest = [], [pair for pair in rest if pair[0] not in (_OIF, _GATEWAY, _VIA)]
        if self.family == AF_INET6:
            ways.sort()
        flags = struct.unpack_from("=I", body, 8)[0] & CHOSEN_NEXTHOP_FLAGS
        return self.key, body[5:8], flags, tuple(ways), tuple(sorted(rest)), self.seconds_left is not None

    @cached_property
    def rank(self) -> int:
        """0 for what needs no other route, 1 for a way by a gateway, 2 for several ways or a next hop of its own."""
        if self.message.get(_MULTIPATH) is not None or self.message.get(_NH_ID) is not None:
            return 2
        return int(self.message.get(_GATEWAY) is not None or self.message.get(_VIA) is not None)

    @cached_property
    def source(self) -> bytes | None:
        """The address that the host's own packets get by it (RTA_PREFSRC)."""
        return self.message.get(_PREFSRC)

    @cached_property
    def nexthop(self) -> int:
        """Id of the next hop object that it uses; 0 for none."""
        return self.message.number(_NH_ID)

    def follows(self, addresses: frozenset[bytes]) -> bool:
        """Whether it comes and goes with one of these addresses."""
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
    def made_by_kernel_only(self) -> bool:
        """IPv6 routes without a metric come with the address that they are for; nobody can ask for one."""
        return self.family == AF_INET6 and self.key[-1] == 0

    @cached_property
    def words(self) -> str:
        """The route as ip(8) takes it."""
        return describe(self.message, self.names)

    def request(self, today: Callable[[int, dict[int, str]], int], elapsed: float) -> bytes:
        """The message that makes the route, or takes it off, without what the kernel found out by itself.

        Args:
            today: gives the index that an interface has now, for its index in this route and the names of this route.
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
        elif (several := message.get(_MULTIPATH)) is not None:
            octets = b""
            for hop_flags, weight, index, inner in hops(several):
                rest = b"".join(attribute(kind, value) for kind, value in inner)
                kept = hop_flags & CHOSEN_NEXTHOP_FLAGS
                octets += RTNH.pack(RTNH.size + len(rest), kept, weight, today(index, self.names)) + rest
            changed.append((_MULTIPATH, octets))
        elif self._oif:
            changed.append((_OIF, struct.pack("=i", today(self._oif, self.names))))
        if self.seconds_left is not None:
            changed.append((_EXPIRES, struct.pack("=I", max(1, int(self.seconds_left - elapsed)))))
        return Message(message.kind, body, message.attributes).plus(*changed).encode()
