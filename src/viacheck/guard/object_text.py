"""The kernel's routing objects as text for people, from their rtnetlink(7) messages.

Rules and routes get their text from :mod:`viacheck.model.policy_rule` and :mod:`viacheck.model.route`, the only
formatters. A text may leave a detail out; no code decides by it, and the message itself is compared and restored.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping

from viacheck.model.address_family import FAMILY_OPTION
from viacheck.model.policy_rule import rule_text
from viacheck.model.route import route_details
from viacheck.model.routing_names import SCOPES
from viacheck.netlink import rtnetlink
from viacheck.netlink.routing_objects import route_of, rule_of
from viacheck.netlink.rtnetlink import AF_INET6, RtnetlinkMessage, address_text

_INFINITE = 0xFFFFFFFF


def object_text(message: RtnetlinkMessage, names: Mapping[int, str]) -> str:
    """Return the text of one object; ``names`` are the interfaces' names by index."""
    if message.kind == rtnetlink.RTM_NEWRULE:
        text = rule_text(rule_of(message))
    elif message.kind == rtnetlink.RTM_NEWROUTE:
        text = route_details(route_of(message, names))
    else:
        text = " ".join(_PARTS[message.kind](message, names))
    return FAMILY_OPTION[6 if message.body[0] == AF_INET6 else 4] + text


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
        if (preferred, valid) != (_INFINITE, _INFINITE):
            yield f"valid_lft {_lifetime(valid)} preferred_lft {_lifetime(preferred)}"
    if message.number(9):
        yield f"metric {message.number(9)}"


def _lifetime(seconds: int) -> str:
    return "forever" if seconds == _INFINITE else str(seconds)


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
        members = (struct.unpack_from("=IB", group, place) for place in range(0, len(group), 8))
        yield "group " + "/".join(f"{member},{weight + 1}" for member, weight in members)
    if message.get(4) is not None:
        yield "blackhole"
    if (gateway := message.get(6)) is not None:
        yield f"via {address_text(gateway)}"
    if message.get(5) is not None:
        yield f"dev {names.get(message.number(5), '?')}"


_PARTS = {
    rtnetlink.RTM_NEWADDR: _address,
    rtnetlink.RTM_NEWNEIGH: _neighbour,
    rtnetlink.RTM_NEWNEXTHOP: _nexthop,
}
