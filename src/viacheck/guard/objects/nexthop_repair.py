"""Compare and restore next hop objects (ip-nexthop(8)): a link that goes down takes them and their routes along."""

from __future__ import annotations

import struct

from viacheck.guard.comparison import DAEMON_PROTOCOLS, InterfaceGone, StateComparison
from viacheck.guard.difference import StateDifference
from viacheck.guard.object_text import object_text
from viacheck.guard.repair import RouteSocketRepair
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.codec import attribute, attributes
from viacheck.netlink.route_message import CHOSEN_NEXTHOP_FLAGS
from viacheck.netlink.rtnetlink import RtnetlinkMessage

_ID, _GROUP, _OIF, _RES_GROUP = 1, 2, 5, 12
_READ_ONLY = (14, 15, 17)
"""NHA_OP_FLAGS, NHA_GROUP_STATS, NHA_HW_STATS_USED: the kernel reports them and accepts none of them."""
_UNBALANCED_TIME = 4
"""Inside _RES_GROUP: a clock, and no setting."""
_NESTED = 0x8000


def concerned_nexthops(comparison: StateComparison) -> frozenset[int]:
    """Return the ids of the next hops by the change's interfaces, and of the groups with such a next hop."""
    concerned: set[int] = set()
    sides = (
        (comparison.saved.nexthops, comparison.saved_names),
        (comparison.current.nexthops, comparison.current_names),
    )
    for messages, names in sides:
        concerned |= {
            nexthop.number(_ID) for nexthop in messages if names.get(nexthop.number(_OIF)) in comparison.interfaces
        }
    for nexthop in (*comparison.saved.nexthops, *comparison.current.nexthops):
        group = nexthop.get(_GROUP) or b""
        if any(struct.unpack_from("=I", group, place)[0] in concerned for place in range(0, len(group), 8)):
            concerned.add(nexthop.number(_ID))
    return frozenset(concerned)


def nexthops_removed_by_person(comparison: StateComparison) -> frozenset[int]:
    """Return the ids of the next hops that a person removed: the kernel removed their routes with them."""
    present = {nexthop.number(_ID) for nexthop in comparison.current.nexthops}
    missing = (nexthop for nexthop in comparison.saved.nexthops if nexthop.number(_ID) not in present)
    return frozenset(nexthop.number(_ID) for nexthop in missing if comparison.removed_by_person(nexthop))


def compare_nexthops(comparison: StateComparison) -> StateDifference:
    """Compare the next hops; the members of groups are restored before the groups."""
    difference, concerned = StateDifference(), concerned_nexthops(comparison)
    saved = {nexthop.number(_ID): nexthop for nexthop in comparison.saved.nexthops}
    current = {nexthop.number(_ID): nexthop for nexthop in comparison.current.nexthops}
    for number in sorted(current.keys() - saved.keys()):
        text = object_text(current[number], comparison.current_names)
        others = not comparison.saved.reconfigures or current[number].body[2] in DAEMON_PROTOCOLS
        if number not in concerned or others:
            difference.foreign.append(f"+ nexthop: {text}")
            continue
        difference.lines.append(f"+ nexthop: {text}")
        payload = bytes(8) + attribute(_ID, struct.pack("=I", number))
        difference.repairs.append(RouteSocketRepair(f"removed nexthop: {text}", rtnetlink.RTM_DELNEXTHOP, 0, payload))
    for number, nexthop in sorted(saved.items(), key=lambda item: item[1].get(_GROUP) is not None):
        wanted = _payload(comparison, nexthop, comparison.saved_names)
        present = _payload(comparison, current[number], comparison.current_names) if number in current else None
        if wanted is not None and wanted == present:
            continue
        text = object_text(nexthop, comparison.saved_names)
        if number not in current and comparison.removed_by_person(nexthop):
            difference.foreign.append(f"- nexthop: {text}{comparison.person_text(nexthop)}")
            continue
        (difference.lines if number in concerned else difference.foreign).append(f"- nexthop: {text}")
        if number in concerned and wanted is not None:
            verb = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
            difference.unclear += comparison.unclear("nexthop", text, nexthop)
            repair = RouteSocketRepair(f"restored nexthop: {text}", rtnetlink.RTM_NEWNEXTHOP, verb, wanted)
            difference.repairs.append(repair)
    return difference


def _payload(comparison: StateComparison, nexthop: RtnetlinkMessage, names: dict[int, str]) -> bytes | None:
    """Return the message that creates a next hop, the same for equal ones; None when its interface is missing."""
    flags = struct.unpack_from("=I", nexthop.body, 4)[0] & CHOSEN_NEXTHOP_FLAGS
    family, _scope, protocol = nexthop.body[:3]
    # The kernel derives the scope, and accepts none.
    body = struct.pack("=BBBBI", family, 0, protocol, 0, flags)
    message = RtnetlinkMessage(nexthop.kind, body, nexthop.attributes).without(*_READ_ONLY)
    resilient = nexthop.get(_RES_GROUP)
    if resilient is not None:
        configured = (attribute(*pair) for pair in attributes(resilient) if pair[0] != _UNBALANCED_TIME)
        message = message.plus((_RES_GROUP | _NESTED, b"".join(configured)))
    if nexthop.get(_OIF) is None:
        return message.encode()
    try:
        index = comparison.current_index(nexthop.number(_OIF), names)
    except InterfaceGone:
        return None
    return message.plus((_OIF, struct.pack("=I", index))).encode()
