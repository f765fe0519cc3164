"""Neighbours that somebody wrote down, and addresses answered for (proxy): a link that goes down forgets both."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from viacheck.guard.comparison import Comparison
from viacheck.guard.describe import describe
from viacheck.guard.difference import Difference, Entry, Request, mend_set, tell
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.rtnetlink import RtnetlinkMessage

_DST, _LLADDR, _PROTOCOL = 1, 2, 12
_KEPT = (_DST, _LLADDR, _PROTOCOL)


def neighbours(both: Comparison) -> Difference:
    """Compare the permanent neighbours of the interfaces."""
    found = Difference()
    wanted, old = _of_interfaces(both, both.saved.neighbours, both.old_names)
    present, new = _of_interfaces(both, both.now.neighbours, both.new_names)
    removed, missing = mend_set([one.identity for one in old], [one.identity for one in new])
    tell(found.lines, "neighbour", (old[at] for at in missing), (new[at] for at in removed))
    for at in removed:
        words = f"removed neighbour: {new[at].words}"
        found.mendings.append(Request(words, rtnetlink.RTM_DELNEIGH, 0, _kept(present[at]).encode()))
    for at in missing:
        one, index = wanted[at], both.index.get(both.old_names[_index(wanted[at])])
        if index is not None:
            payload = _kept(
                RtnetlinkMessage(one.kind, one.body[:4] + struct.pack("=i", index) + one.body[8:], one.attributes)
            )
            verb = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
            found.mendings.append(
                Request(f"put back neighbour: {old[at].words}", rtnetlink.RTM_NEWNEIGH, verb, payload.encode())
            )
    return found


def _of_interfaces(
    both: Comparison, messages: Iterable[RtnetlinkMessage], names: dict[int, str]
) -> tuple[list[RtnetlinkMessage], list[Entry]]:
    own = [one for one in messages if names.get(_index(one)) in both.interfaces]
    return own, [
        Entry((one.body[0], one.body[8:], names[_index(one)], _kept(one).attributes), describe(one, names))
        for one in own
    ]


def _kept(one: RtnetlinkMessage) -> RtnetlinkMessage:
    return RtnetlinkMessage(one.kind, one.body, tuple(pair for pair in one.attributes if pair[0] in _KEPT))


def _index(one: RtnetlinkMessage) -> int:
    return int(struct.unpack_from("=i", one.body, 4)[0])
