"""Compare and restore permanent neighbours and proxy entries: a link that goes down loses both."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from viacheck.guard.comparison import StateComparison
from viacheck.guard.difference import ListEntry, StateDifference, add_lines, unordered_changes
from viacheck.guard.object_text import object_text
from viacheck.guard.repair import RouteSocketRepair
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.rtnetlink import RtnetlinkMessage

_DST, _LLADDR, _PROTOCOL = 1, 2, 12
_CONFIGURED = (_DST, _LLADDR, _PROTOCOL)


def compare_neighbours(comparison: StateComparison) -> StateDifference:
    """Compare the neighbours of the interfaces."""
    difference = StateDifference()
    saved, saved_entries = _of_interfaces(comparison, comparison.saved.neighbours, comparison.saved_names)
    current, current_entries = _of_interfaces(comparison, comparison.current.neighbours, comparison.current_names)
    removed, missing = unordered_changes(
        [entry.identity for entry in saved_entries], [entry.identity for entry in current_entries]
    )
    if not comparison.saved.reconfigures:
        add_lines(difference.foreign, "neighbour", (), (current_entries[place] for place in removed))
        removed = []
    kept = [place for place in missing if comparison.removed_by_person(saved[place])]
    texts = ((saved_entries[place], comparison.person_text(saved[place])) for place in kept)
    difference.foreign += [f"- neighbour: {entry.text}{person}" for entry, person in texts]
    missing = [place for place in missing if place not in kept]
    add_lines(
        difference.lines,
        "neighbour",
        (saved_entries[place] for place in missing),
        (current_entries[place] for place in removed),
    )
    for place in removed:
        text, payload = f"removed neighbour: {current_entries[place].text}", _configured(current[place]).encode()
        difference.repairs.append(RouteSocketRepair(text, rtnetlink.RTM_DELNEIGH, 0, payload))
    for place in missing:
        neighbour = saved[place]
        index = comparison.index.get(comparison.saved_names[_index(neighbour)])
        if index is not None:
            body = neighbour.body[:4] + struct.pack("=i", index) + neighbour.body[8:]
            payload = _configured(RtnetlinkMessage(neighbour.kind, body, neighbour.attributes)).encode()
            verb = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
            text = f"restored neighbour: {saved_entries[place].text}"
            difference.unclear += comparison.unclear("neighbour", saved_entries[place].text, neighbour)
            difference.repairs.append(RouteSocketRepair(text, rtnetlink.RTM_NEWNEIGH, verb, payload))
    return difference


def _of_interfaces(
    comparison: StateComparison, messages: Iterable[RtnetlinkMessage], names: dict[int, str]
) -> tuple[list[RtnetlinkMessage], list[ListEntry]]:
    neighbours = [message for message in messages if names.get(_index(message)) in comparison.interfaces]
    entries = [ListEntry(_identity(neighbour, names), object_text(neighbour, names)) for neighbour in neighbours]
    return neighbours, entries


def _identity(neighbour: RtnetlinkMessage, names: dict[int, str]) -> tuple[object, ...]:
    return neighbour.body[0], neighbour.body[8:], names[_index(neighbour)], _configured(neighbour).attributes


def _configured(neighbour: RtnetlinkMessage) -> RtnetlinkMessage:
    """Return the message without what the kernel adds, such as its cache's ages."""
    kept = tuple(pair for pair in neighbour.attributes if pair[0] in _CONFIGURED)
    return RtnetlinkMessage(neighbour.kind, neighbour.body, kept)


def _index(neighbour: RtnetlinkMessage) -> int:
    return int(struct.unpack_from("=i", neighbour.body, 4)[0])
