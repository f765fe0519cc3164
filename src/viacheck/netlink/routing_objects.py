"""Rules and routes of the kernel's messages as the values of a snapshot, so that they are compared and shown like them.

Standard library and model alone, because the watchdog runs without site-packages.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import Literal

from viacheck.model.address_family import Family
from viacheck.model.policy_rule import PortRange, Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.routing_names import PROTOCOLS, ROUTE_TYPES, SCOPES, WITHOUT_NEXTHOP
from viacheck.netlink import codec
from viacheck.netlink.rtnetlink import AF_INET, AF_INET6, RtnetlinkMessage, address_text, multipath_hops

_PREFERENCES: dict[int, Literal["low", "medium", "high"]] = {1: "high", 3: "low"}
_NEXTHOP_FLAGS = ((0x1, "dead"), (0x2, "pervasive"), (0x4, "onlink"), (0x10, "linkdown"))
"""RTNH_F_* of linux/rtnetlink.h."""
_ACTIONS: dict[int, Literal["lookup", "goto", "nop", "blackhole", "unreachable", "prohibit"]] = {
    1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit",
}  # fmt: skip
"""FR_ACT_* of linux/fib_rules.h."""
_NONE = 0xFFFFFFFF
_INVERT, _IIF_DETACHED, _OIF_DETACHED = 0x2, 0x8, 0x10
_RTAX_MTU = 2

_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK = 1, 2, 3, 4, 6, 10
_FRA_TUN_ID, _FRA_SUPPRESS_IFGROUP, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME = range(12, 18)
_FRA_PAD, _FRA_L3MDEV, _FRA_UID_RANGE, _FRA_PROTOCOL, _FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_DPORT_RANGE = range(18, 25)
_FRA_SPORT_MASK, _FRA_DPORT_MASK, _WHOLE_PORT = 28, 29, 0xFFFF
"""From Linux 6.15 on, a port is sent with a mask, which is whole unless another was chosen."""
_READ = frozenset({
    _FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK, _FRA_TUN_ID, _FRA_SUPPRESS_IFGROUP,
    _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME, _FRA_PAD, _FRA_L3MDEV, _FRA_UID_RANGE,
    _FRA_PROTOCOL, _FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_DPORT_RANGE,
})  # fmt: skip


def rule_of(message: RtnetlinkMessage) -> Rule:
    """Return the rule of RTM_NEWRULE or RTM_DELRULE; an attribute that is not known here stays unread."""
    body = message.body
    flags = struct.unpack_from("=I", body, 8)[0]
    action = _ACTIONS.get(body[7], "lookup")
    users = message.get(_FRA_UID_RANGE)
    uid_first, uid_last = codec.unpack("=II", users) if users else (None, None)
    fwmask, protocol = _number(message, _FRA_FWMASK), message.number(_FRA_PROTOCOL)
    l3mdev = message.number(_FRA_L3MDEV)
    tun_id = message.get(_FRA_TUN_ID)
    return Rule(
        family=_family(body[0]),
        priority=message.number(_FRA_PRIORITY),
        action=action,
        table=(message.number(_FRA_TABLE, body[4]) or None) if action == "lookup" else None,
        goto=_number(message, _FRA_GOTO),
        invert=bool(flags & _INVERT),
        source=prefix(message.get(_FRA_SRC), body[2], body[0]) if body[2] else None,
        destination=prefix(message.get(_FRA_DST), body[1], body[0]) if body[1] else None,
        iif=_name(message, _FRA_IIFNAME),
        iif_detached=bool(flags & _IIF_DETACHED),
        oif=_name(message, _FRA_OIFNAME),
        oif_detached=bool(flags & _OIF_DETACHED),
        fwmark=_number(message, _FRA_FWMARK),
        fwmask=None if fwmask == _NONE else fwmask,
        tos=body[3] or None,
        ipproto=_number(message, _FRA_IP_PROTO),
        sport=_ports(message, _FRA_SPORT_RANGE),
        dport=_ports(message, _FRA_DPORT_RANGE),
        uid_first=uid_first,
        uid_last=uid_last,
        # In network order (fib_rules.h).
        tun_id=int.from_bytes(tun_id, "big") if tun_id else None,
        l3mdev=bool(l3mdev),
        suppress_prefixlength=_number(message, _FRA_SUPPRESS_PREFIXLEN),
        suppress_ifgroup=_number(message, _FRA_SUPPRESS_IFGROUP),
        protocol=PROTOCOLS.get(protocol, str(protocol)) if protocol else None,
        unread=tuple(
            f"attribute-{kind} 0x{value.hex()}"
            for kind, value in message.attributes
            if not _is_read(kind & codec.NLA_TYPE_MASK, value)
        ),
    )


def _is_read(kind: int, value: bytes) -> bool:
    if kind in (_FRA_SPORT_MASK, _FRA_DPORT_MASK):
        return codec.as_number(value) == _WHOLE_PORT
    return kind in _READ


_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_METRICS, _RTA_MULTIPATH = (
    1, 2, 4, 5, 6, 7, 8, 9,
)  # fmt: skip
_RTA_TABLE, _RTA_VIA, _RTA_PREF, _RTA_NH_ID = 15, 18, 20, 30


def route_of(message: RtnetlinkMessage, names: Mapping[int, str]) -> Route:
    """Return the route of RTM_NEWROUTE or RTM_DELROUTE; ``names`` are the interfaces' names by index."""
    body = message.body
    type_ = ROUTE_TYPES[body[7]] if body[7] < len(ROUTE_TYPES) else str(body[7])
    multipath = message.get(_RTA_MULTIPATH)
    nexthops: tuple[Nexthop, ...] = ()
    if type_ in WITHOUT_NEXTHOP:
        pass
    elif multipath is not None:
        nexthops = tuple(
            _nexthop(dict(hop.attributes), hop.index, hop.flags, hop.weight + 1, names)
            for hop in multipath_hops(multipath)
        )
    else:
        flags = struct.unpack_from("=I", body, 8)[0]
        hop = _nexthop(dict(message.attributes), message.number(_RTA_OIF), flags, 1, names)
        nexthops = (hop,) if hop.gateway or hop.interface else ()
    preferred, metrics = message.get(_RTA_PREFSRC), message.get(_RTA_METRICS)
    inner = dict(codec.attributes(metrics)) if metrics else {}
    return Route(
        family=_family(body[0]),
        table=message.number(_RTA_TABLE, body[4]),
        destination=prefix(message.get(_RTA_DST), body[1], body[0]),
        type=type_,
        nexthops=nexthops,
        metric=message.number(_RTA_PRIORITY),
        scope=SCOPES.get(body[6], str(body[6])),
        tos=body[3],
        protocol=PROTOCOLS.get(body[5], str(body[5])),
        source=address_text(preferred) if preferred is not None else None,
        mtu=codec.as_number(inner[_RTAX_MTU]) if _RTAX_MTU in inner else None,
        source_prefix=prefix(message.get(_RTA_SRC), body[2], body[0]) if body[2] else None,
        preference=_PREFERENCES.get(message.number(_RTA_PREF), "medium"),
        nexthop_id=message.number(_RTA_NH_ID) or None,
    )


def prefix(octets: bytes | None, length: int, family: int) -> str:
    """Return a network in CIDR form."""
    return f"{address_text(octets or bytes(4 if family == AF_INET else 16))}/{length}"


def _family(family: int) -> Family:
    return 6 if family == AF_INET6 else 4


def _number(message: RtnetlinkMessage, kind: int) -> int | None:
    value = message.get(kind)
    number = None if value is None else codec.as_number(value)
    return None if kind in (_FRA_SUPPRESS_PREFIXLEN, _FRA_SUPPRESS_IFGROUP) and number == _NONE else number


def _name(message: RtnetlinkMessage, kind: int) -> str | None:
    value = message.get(kind)
    return None if value is None else os.fsdecode(value.rstrip(bytes(1)))


def _ports(message: RtnetlinkMessage, kind: int) -> PortRange | None:
    value = message.get(kind)
    if value is None:
        return None
    first, last = codec.unpack("=HH", value)
    return PortRange(first=first, last=last)


def _nexthop(attributes: Mapping[int, bytes], index: int, flags: int, weight: int, names: Mapping[int, str]) -> Nexthop:
    gateway, via = attributes.get(_RTA_GATEWAY), attributes.get(_RTA_VIA)
    if gateway is None and via is not None:
        # struct rtvia: the family in two octets, then the address.
        gateway = via[2:]
    return Nexthop(
        gateway=address_text(gateway) if gateway is not None else None,
        interface=names.get(index, f"if{index}") if index else None,
        weight=weight,
        flags=tuple(name for bit, name in _NEXTHOP_FLAGS if flags & bit),
    )
