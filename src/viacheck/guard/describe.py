"""The text of the kernel's routing objects, as ip(8) writes them, for reports, logs and the saved file."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping

from viacheck.model.iproute_text import route_details, rule_text
from viacheck.netlink import rtnetlink
from viacheck.netlink.routing_objects import SCOPES, route_of, rule_of
from viacheck.netlink.rtnetlink import AF_INET6, RtnetlinkMessage, address_text

_FOREVER = 0xFFFFFFFF


def describe(message: RtnetlinkMessage, names: Mapping[int, str]) -> str:
    """Return the text of one object; ``names`` are the interfaces' names by index."""
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
    yield f"scope {SCOPES.get(message.body[3], message.body[3])}"
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
    yield route_details(route_of(message, names))


def _rule(message: RtnetlinkMessage, _names: Mapping[int, str]) -> Iterator[str]:
    yield rule_text(rule_of(message))


_WORDS = {
    rtnetlink.RTM_NEWADDR: _address,
    rtnetlink.RTM_NEWNEIGH: _neighbour,
    rtnetlink.RTM_NEWNEXTHOP: _nexthop,
    rtnetlink.RTM_NEWROUTE: _route,
    rtnetlink.RTM_NEWRULE: _rule,
}
