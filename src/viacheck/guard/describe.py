"""The kernel's routing objects in the words that ip(8) takes, for reports, logs and the saved file."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping

from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.rtnetlink import AF_INET, AF_INET6, RtnetlinkMessage, address_text, multipath_hops

_TYPES = ("unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit",
          "throw", "nat", "xresolve")  # fmt: skip
_PROTOCOLS = {1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 11: "zebra", 12: "bird", 16: "dhcp",
              18: "keepalived", 186: "bgp", 188: "ospf"}  # fmt: skip
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
_RULE_ACTIONS = {2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_RTN_UNICAST, _TABLE_MAIN, _FOREVER = 1, 254, 0xFFFFFFFF


def describe(message: RtnetlinkMessage, names: Mapping[int, str]) -> str:
    """One object in words; ``names`` are the interfaces' names by index."""
    words = _WORDS[message.kind](message, names)
    family = "-6 " if message.body[0] == AF_INET6 else ""
    return family + " ".join(words)


def _address(message: RtnetlinkMessage, names: Mapping[int, str]) -> Iterator[str]:
    local = message.get(2) or message.get(1) or b""
    peer = message.get(1)
    yield (
        address_text(local) + (f" peer {address_text(peer)}" if peer and peer != local else "") + f"/{message.body[1]}"
    )
    yield f"dev {names.get(struct.unpack_from('=I', message.body, 4)[0], '?')}"
    yield f"scope {_SCOPES.get(message.body[3], message.body[3])}"
    if (broadcast := message.get(4)) is not None:
        yield f"brd {address_text(broadcast)}"
    if (label := message.get(3)) is not None:
        yield f"label {os.fsdecode(label.rstrip(bytes(1)))}"
    if (lifetimes := message.get(6)) is not None:
        preferred, valid = struct.unpack_from("=II", lifetimes)
        if (preferred, valid) != (_FOREVER, _FOREVER):
            yield f"valid_lft {_lifetime(valid)} preferred_lft {_lifetime(preferred)}"
    if message.number(9):
        yield f"metric {message.number(9)}"


def _lifetime(seconds: int) -> str:
    return "forever" if seconds == _FOREVER else str(seconds)


def _neighbour(message: RtnetlinkMessage, names: Mapping[int, str]) -> Iterator[str]:
    proxy = message.body[10] & 0x08
    yield ("proxy " if proxy else "") + address_text(message.get(1) or b"")
    if hardware := message.get(2):
        yield f"lladdr {hardware.hex(':')}"
    yield f"dev {names.get(struct.unpack_from('=i', message.body, 4)[0], '?')}"
    if not proxy:
        yield "nud permanent"


def _nexthop(message: RtnetlinkMessage, names: Mapping[int, str]) -> Iterator[str]:
    yield f"nexthop id {message.number(1)}"
    if (group := message.get(2)) is not None:
        members = (struct.unpack_from("=IB", group, at) for at in range(0, len(group), 8))
        yield "group " + "/".join(f"{member},{weight + 1}" for member, weight in members)
    if message.get(4) is not None:
        yield "blackhole"
    if (gateway := message.get(6)) is not None:
        yield f"via {address_text(gateway)}"
    if message.get(5) is not None:
        yield f"dev {names.get(message.number(5), '?')}"


def _route(message: RtnetlinkMessage, names: Mapping[int, str]) -> Iterator[str]:
    body = message.body
    if body[7] != _RTN_UNICAST:
        yield _TYPES[body[7]] if body[7] < len(_TYPES) else str(body[7])
    yield prefix(message.get(1), body[1], body[0]) if body[1] else "default"
    if body[2]:
        yield f"from {prefix(message.get(2), body[2], body[0])}"
    if body[3]:
        yield f"tos 0x{body[3]:x}"
    if message.get(30) is not None:
        yield f"nhid {message.number(30)}"
    if (several := message.get(9)) is not None:
        for hop in multipath_hops(several):
            yield f"nexthop {_way(dict(hop.attributes), hop.index, names)} weight {hop.weight + 1}"
    else:
        way = _way(dict(message.attributes), message.number(4) or None, names)
        if way:
            yield way
    table = message.number(15, body[4])
    if table != _TABLE_MAIN:
        yield f"table {table}"
    yield f"proto {_PROTOCOLS.get(body[5], body[5])}"
    if body[6]:
        yield f"scope {_SCOPES.get(body[6], body[6])}"
    if (source := message.get(7)) is not None:
        yield f"src {address_text(source)}"
    if message.number(6):
        yield f"metric {message.number(6)}"


def _way(inner: Mapping[int, bytes], index: int | None, names: Mapping[int, str]) -> str:
    words = []
    if (gateway := inner.get(5)) is not None:
        words.append(f"via {address_text(gateway)}")
    elif (via := inner.get(18)) is not None:
        words.append(f"via inet6 {address_text(via[2:])}")
    if index:
        words.append(f"dev {names.get(index, '?')}")
    return " ".join(words)


_RULE_NUMBERS = {10: "fwmark", 12: "tun_id", 13: "suppress_ifgroup", 19: "l3mdev", 22: "ipproto"}
_RULE_RANGES = {20: ("uidrange", "=II"), 23: ("sport", "=HH"), 24: ("dport", "=HH")}
# Told by other words of the rule, or empty (padding; no prefix length is suppressed).
_RULE_TOLD = frozenset({1, 2, 3, 4, 6, 14, 15, 16, 17, 18, 21, 28, 29})


def _rule(message: RtnetlinkMessage, _names: Mapping[int, str]) -> Iterator[str]:
    body = message.body
    yield f"priority {message.number(6)}"
    if struct.unpack_from("=I", body, 8)[0] & 0x2:
        yield "not"
    yield "from " + (prefix(message.get(2), body[2], body[0]) if body[2] else "all")
    if body[1]:
        yield f"to {prefix(message.get(1), body[1], body[0])}"
    if body[3]:
        yield f"tos 0x{body[3]:x}"
    for kind, word in ((3, "iif"), (17, "oif")):
        if (name := message.get(kind)) is not None:
            yield f"{word} {os.fsdecode(name.rstrip(bytes(1)))}"
    for kind, value in message.attributes:
        number = int.from_bytes(value, "big" if kind == 12 else _ORDER)
        if kind in _RULE_NUMBERS:
            mask = message.number(16, 0xFFFFFFFF)
            shown = f"0x{number:x}" + (f"/0x{mask:x}" if mask != 0xFFFFFFFF else "") if kind == 10 else str(number)
            if not (kind == 13 and number == 0xFFFFFFFF):
                yield f"{_RULE_NUMBERS[kind]} {shown}"
        elif kind in _RULE_RANGES:
            word, shape = _RULE_RANGES[kind]
            first, last = struct.unpack_from(shape, value)
            yield f"{word} {first}-{last}"
        elif kind not in _RULE_TOLD:
            yield f"attribute {kind} 0x{value.hex()}"
    if body[7] == 1:
        yield f"lookup {message.number(15, body[4])}"
    else:
        yield _RULE_ACTIONS.get(body[7], str(body[7]))
    if message.get(4) is not None:
        yield str(message.number(4))
    if message.number(14, 0xFFFFFFFF) != 0xFFFFFFFF:
        yield f"suppress_prefixlength {message.number(14)}"


_ORDER = codec.BYTE_ORDER

_WORDS = {
    rtnetlink.RTM_NEWADDR: _address,
    rtnetlink.RTM_NEWNEIGH: _neighbour,
    rtnetlink.RTM_NEWNEXTHOP: _nexthop,
    rtnetlink.RTM_NEWROUTE: _route,
    rtnetlink.RTM_NEWRULE: _rule,
}


def prefix(octets: bytes | None, length: int, family: int) -> str:
    """A network in CIDR form."""
    return f"{address_text(octets or bytes(4 if family == AF_INET else 16))}/{length}"
