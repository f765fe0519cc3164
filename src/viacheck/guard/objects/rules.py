"""Policy routing rules (ip-rule(8)) of both families, in the order in which the kernel asks them.

A rule belongs to no interface, so every one that is gone is put back. One that came is taken off when the change could
have made it: it repeats a rule that was there (what a post-up line does at each ifup), looks up one of the change's
tables, or names one of its interfaces.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Hashable, Iterable

from viacheck.guard.comparison import OWNED_PROTOCOLS, Comparison
from viacheck.guard.describe import describe
from viacheck.guard.difference import Difference, Entry, Request, mend_order, tell
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.rtnetlink import RtnetlinkMessage

_IIFNAME, _PRIORITY, _TABLE, _OIFNAME, _PROTOCOL = 3, 6, 15, 17, 21
_INVERT = 0x2
"""FIB_RULE_INVERT; the other flags say what the kernel found (detached, unresolved)."""


def rules(both: Comparison) -> Difference:
    """Compare the rules."""
    found = Difference()
    known = {_selector(one) for one in both.saved.rules}
    old, new = _by_priority(both.saved.rules), _by_priority(both.now.rules)
    for place in dict.fromkeys((*old, *new)):
        before, after = old.get(place, []), new.get(place, [])
        was = {_identity(one) for one in before}
        foreign = [
            one for one in after if _identity(one) not in was and not _could_be_ours(both, one, known)
        ]  # fmt: skip
        tell(found.foreign, "rule", (), _entries(foreign))
        after = [one for one in after if one not in foreign]
        removed, missing = mend_order([_identity(one) for one in before], [_identity(one) for one in after])
        if not removed and not missing:
            continue
        tell(found.lines, "rule", _entries(before), _entries(after))
        found.mendings += [
            Request(f"removed rule: {describe(after[at], {})}", rtnetlink.RTM_DELRULE, 0, _payload(after[at]))
            for at in removed
        ]
        found.mendings += [
            Request(
                f"put back rule: {describe(before[at], {})}",
                rtnetlink.RTM_NEWRULE,
                codec.NLM_F_CREATE,
                _payload(before[at]),
            )
            for at in missing
        ]
    return found


def _by_priority(messages: Iterable[RtnetlinkMessage]) -> dict[tuple[int, int], list[RtnetlinkMessage]]:
    found: dict[tuple[int, int], list[RtnetlinkMessage]] = {}
    for one in messages:
        found.setdefault((one.body[0], one.number(_PRIORITY)), []).append(one)
    return found


def _entries(messages: Iterable[RtnetlinkMessage]) -> list[Entry]:
    return [Entry(_identity(one), describe(one, {})) for one in messages]


def _identity(one: RtnetlinkMessage) -> Hashable:
    return one.number(_PRIORITY), one.number(_PROTOCOL), _selector(one)


def _selector(one: RtnetlinkMessage) -> Hashable:
    """What the rule does to which packets, whatever its place and its maker."""
    places = one.body[0:4] + one.body[7:8]
    rest = tuple(sorted(pair for pair in one.attributes if pair[0] not in (_PRIORITY, _PROTOCOL)))
    return places, struct.unpack_from("=I", one.body, 8)[0] & _INVERT, rest


def _could_be_ours(both: Comparison, one: RtnetlinkMessage, known: set[Hashable]) -> bool:
    if one.number(_PROTOCOL) in OWNED_PROTOCOLS:
        return False
    names = {os.fsdecode((one.get(kind) or b"").rstrip(b"\0")) for kind in (_IIFNAME, _OIFNAME)}
    return _selector(one) in known or one.number(_TABLE) in both.own_tables or not names.isdisjoint(both.interfaces)


def _payload(one: RtnetlinkMessage) -> bytes:
    """The message that makes the rule, and that takes it off."""
    flags = struct.unpack_from("=I", one.body, 8)[0] & _INVERT
    # The kernel leaves a priority of 0 out, and would choose another for a rule without one.
    priority = struct.pack("=I", one.number(_PRIORITY))
    return (
        RtnetlinkMessage(one.kind, one.body[:8] + struct.pack("=I", flags), one.attributes)
        .plus((_PRIORITY, priority))
        .encode()
    )
