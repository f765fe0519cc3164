"""Next hops that are objects of their own (ip-nexthop(8)): a link that goes down takes them and their routes along."""

from __future__ import annotations

import struct

from viacheck.guard.comparison import OWNED_PROTOCOLS, Comparison, InterfaceGone
from viacheck.guard.describe import describe
from viacheck.guard.difference import Difference, Request
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.codec import attribute, attributes
from viacheck.netlink.route_message import CHOSEN_NEXTHOP_FLAGS
from viacheck.netlink.rtnetlink import RtnetlinkMessage

_ID, _GROUP, _OIF, _RES_GROUP = 1, 2, 5, 12
_TOLD = (14, 15, 17)
"""NHA_OP_FLAGS, NHA_GROUP_STATS, NHA_HW_STATS_USED: what the kernel tells, and refuses to be told."""
_UNBALANCED_TIME = 4
"""Inside _RES_GROUP: a clock, not a choice."""
_NESTED = 0x8000


def own_nexthops(both: Comparison) -> frozenset[int]:
    """Ids of the next hops by the change's interfaces, and of the groups that have one of those in them."""
    mine: set[int] = set()
    sides = ((both.saved.nexthops, both.old_names), (both.now.nexthops, both.new_names))
    for messages, names in sides:
        mine |= {one.number(_ID) for one in messages if names.get(one.number(_OIF)) in both.interfaces}
    for one in (*both.saved.nexthops, *both.now.nexthops):
        group = one.get(_GROUP) or b""
        if any(struct.unpack_from("=I", group, at)[0] in mine for at in range(0, len(group), 8)):
            mine.add(one.number(_ID))
    return frozenset(mine)


def nexthops(both: Comparison) -> Difference:
    """Compare the next hops; those that groups are made of are put back before the groups."""
    found, mine = Difference(), own_nexthops(both)
    old = {one.number(_ID): one for one in both.saved.nexthops}
    new = {one.number(_ID): one for one in both.now.nexthops}
    for number in sorted(new.keys() - old.keys()):
        words = describe(new[number], both.new_names)
        if number not in mine or new[number].body[2] in OWNED_PROTOCOLS:
            found.foreign.append(f"+ nexthop: {words}")
            continue
        found.lines.append(f"+ nexthop: {words}")
        payload = bytes(8) + attribute(_ID, struct.pack("=I", number))
        found.mendings.append(Request(f"removed nexthop: {words}", rtnetlink.RTM_DELNEXTHOP, 0, payload))
    for number, one in sorted(old.items(), key=lambda item: item[1].get(_GROUP) is not None):
        wanted = _payload(both, one, both.old_names)
        present = _payload(both, new[number], both.new_names) if number in new else None
        if wanted is not None and wanted == present:
            continue
        words = describe(one, both.old_names)
        (found.lines if number in mine else found.foreign).append(f"- nexthop: {words}")
        if number in mine and wanted is not None:
            verb = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
            found.mendings.append(Request(f"put back nexthop: {words}", rtnetlink.RTM_NEWNEXTHOP, verb, wanted))
    return found


def _payload(both: Comparison, one: RtnetlinkMessage, names: dict[int, str]) -> bytes | None:
    """The message that makes a next hop, the same for equal ones; None when its interface is gone."""
    flags = struct.unpack_from("=I", one.body, 4)[0] & CHOSEN_NEXTHOP_FLAGS
    family, _scope, protocol = one.body[:3]
    # The kernel works the scope out, and refuses to be told.
    bare = RtnetlinkMessage(one.kind, struct.pack("=BBBBI", family, 0, protocol, 0, flags), one.attributes).without(
        *_TOLD
    )
    resilient = one.get(_RES_GROUP)
    if resilient is not None:
        chosen = (attribute(*pair) for pair in attributes(resilient) if pair[0] != _UNBALANCED_TIME)
        bare = bare.plus((_RES_GROUP | _NESTED, b"".join(chosen)))
    if one.get(_OIF) is None:
        return bare.encode()
    try:
        return bare.plus((_OIF, struct.pack("=I", both.today(one.number(_OIF), names)))).encode()
    except InterfaceGone:
        return None
