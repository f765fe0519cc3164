"""Compare and restore policy routing rules (ip-rule(8)) of both families, in the order of their evaluation.

A rule belongs to no interface, so every missing rule is restored. A new rule is removed when the change could have
added it: it repeats a saved rule (as a post-up line does at each ifup), looks up a table of the change, or names an
interface of the change. A change that runs no network manager adds no rule but a repeated one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Hashable, Iterable

from viacheck.guard.comparison import DAEMON_PROTOCOLS, StateComparison
from viacheck.guard.difference import ListEntry, StateDifference, add_lines, ordered_changes
from viacheck.guard.object_text import object_text
from viacheck.guard.repair import RouteSocketRepair
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.rtnetlink import RtnetlinkMessage

_IIFNAME, _PRIORITY, _TABLE, _OIFNAME, _PROTOCOL = 3, 6, 15, 17, 21
_INVERT = 0x2
"""FIB_RULE_INVERT; the kernel itself sets the other flags (detached, unresolved)."""


def compare_rules(comparison: StateComparison) -> StateDifference:
    """Compare the rules."""
    difference = StateDifference()
    known = {_selector(rule) for rule in comparison.saved.rules}
    saved, current = _by_priority(comparison.saved.rules), _by_priority(comparison.current.rules)
    for priority in dict.fromkeys((*saved, *current)):
        before, after = saved.get(priority, []), current.get(priority, [])
        identities = {_identity(rule) for rule in before}
        foreign = [
            rule for rule in after if _identity(rule) not in identities and not _of_the_change(comparison, rule, known)
        ]
        add_lines(difference.foreign, "rule", (), _entries(foreign))
        after = [rule for rule in after if rule not in foreign]
        present = {_identity(rule) for rule in after}
        removed_by_person = [
            rule for rule in before if _identity(rule) not in present and comparison.removed_by_person(rule)
        ]
        add_lines(difference.foreign, "rule", _entries(removed_by_person, comparison.person_text), ())
        before = [rule for rule in before if rule not in removed_by_person]
        removed, missing = ordered_changes([_identity(rule) for rule in before], [_identity(rule) for rule in after])
        if not removed and not missing:
            continue
        add_lines(difference.lines, "rule", _entries(before), _entries(after))
        for rule in (after[place] for place in removed):
            text = f"removed rule: {object_text(rule, {})}"
            difference.repairs.append(RouteSocketRepair(text, rtnetlink.RTM_DELRULE, 0, _payload(rule)))
        for rule in (before[place] for place in missing):
            text = f"restored rule: {object_text(rule, {})}"
            difference.unclear += comparison.unclear("rule", object_text(rule, {}), rule)
            repair = RouteSocketRepair(text, rtnetlink.RTM_NEWRULE, codec.NLM_F_CREATE, _payload(rule))
            difference.repairs.append(repair)
    return difference


def _by_priority(rules: Iterable[RtnetlinkMessage]) -> dict[tuple[int, int], list[RtnetlinkMessage]]:
    """Return the rules by family and priority."""
    groups: dict[tuple[int, int], list[RtnetlinkMessage]] = {}
    for rule in rules:
        groups.setdefault((rule.body[0], rule.number(_PRIORITY)), []).append(rule)
    return groups


def _entries(
    rules: Iterable[RtnetlinkMessage], more: Callable[[RtnetlinkMessage], str] = lambda _rule: ""
) -> list[ListEntry]:
    return [ListEntry(_identity(rule), object_text(rule, {}) + more(rule)) for rule in rules]


def _identity(rule: RtnetlinkMessage) -> Hashable:
    return rule.number(_PRIORITY), rule.number(_PROTOCOL), _selector(rule)


def _selector(rule: RtnetlinkMessage) -> Hashable:
    """Return the rule's selectors and action, without its priority and its origin."""
    fixed = rule.body[0:4] + rule.body[7:8]
    rest = tuple(sorted(pair for pair in rule.attributes if pair[0] not in (_PRIORITY, _PROTOCOL)))
    return fixed, struct.unpack_from("=I", rule.body, 8)[0] & _INVERT, rest


def _of_the_change(comparison: StateComparison, rule: RtnetlinkMessage, known: set[Hashable]) -> bool:
    """Return whether the change could have added the rule."""
    if rule.number(_PROTOCOL) in DAEMON_PROTOCOLS:
        return False
    if not comparison.saved.reconfigures:
        return _selector(rule) in known
    names = {os.fsdecode((rule.get(kind) or b"").rstrip(b"\0")) for kind in (_IIFNAME, _OIFNAME)}
    return (
        _selector(rule) in known
        or rule.number(_TABLE) in comparison.tables
        or not names.isdisjoint(comparison.interfaces)
    )


def _payload(rule: RtnetlinkMessage) -> bytes:
    """Return the message that adds or deletes the rule."""
    flags = struct.unpack_from("=I", rule.body, 8)[0] & _INVERT
    # The kernel omits a priority of 0, and chooses another for a rule without a priority.
    priority = struct.pack("=I", rule.number(_PRIORITY))
    body = rule.body[:8] + struct.pack("=I", flags)
    return RtnetlinkMessage(rule.kind, body, rule.attributes).plus((_PRIORITY, priority)).encode()
