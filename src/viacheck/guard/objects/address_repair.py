"""Compare and restore the interfaces' addresses, in their order, with label, broadcast, metric and lifetimes.

The first IPv4 address of a network is its primary address, and IPv6 prefers the newest, so the order is part of the
state. An address with a lifetime belongs to a program (a DHCP client, router advertisements): where the program added
another address, that one stays.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterable

from viacheck.guard.comparison import StateComparison
from viacheck.guard.difference import ListEntry, StateDifference, add_lines, ordered_changes
from viacheck.guard.object_text import object_text
from viacheck.guard.repair import RouteSocketRepair
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.rtnetlink import AF_INET6, RtnetlinkMessage

INFINITE = 0xFFFFFFFF
"""Lifetime of an address that does not expire."""
_ADDRESS, _LOCAL, _CACHEINFO, _FLAGS = 1, 2, 6, 8
_TEMPORARY, _NODAD, _DADFAILED, _TENTATIVE = 0x01, 0x02, 0x08, 0x40
# home, mngtmpaddr, noprefixroute and autojoin are configured; the kernel itself sets the others.
_CONFIGURED = 0x10 | 0x100 | 0x200 | 0x400

_SCOPE_LINK = 253

_Group = tuple[str, int]
"""Interface and family."""


def local_address(address: RtnetlinkMessage) -> bytes:
    """Return the interface's own address (IFA_LOCAL, or IFA_ADDRESS where both are the same)."""
    return address.get(_LOCAL) or address.get(_ADDRESS) or b""


def foreign_addresses(comparison: StateComparison) -> frozenset[bytes]:
    """Return the addresses of the change's interfaces that something else added or removed."""
    addresses: set[bytes] = set()
    saved, current = _both_states(comparison)
    for group in dict.fromkeys((*saved, *current)):
        if group[0] in comparison.interfaces:
            removed, added = _foreign_changes(comparison, saved.get(group, []), current.get(group, []))
            addresses |= {local_address(address) for address in (*removed, *added)}
    return frozenset(addresses)


def compare_addresses(comparison: StateComparison) -> StateDifference:
    """Compare the addresses."""
    difference = StateDifference()
    saved, current = _both_states(comparison)
    for group in dict.fromkeys((*saved, *current)):
        interface, family = group
        before, after = saved.get(group, []), current.get(group, [])
        if interface not in comparison.interfaces:
            _add_lines(difference.foreign, comparison, before, after)
            continue
        removed, added = _foreign_changes(comparison, before, after)
        kept = [address for address in removed if comparison.removed_by_person(address)]
        difference.foreign += [
            f"- address: {object_text(address, comparison.saved_names)}{comparison.person_text(address)}"
            for address in kept
        ]
        _add_lines(difference.foreign, comparison, [address for address in removed if address not in kept], added)
        before = [address for address in before if address not in removed]
        after = [address for address in after if address not in added]
        if family == AF_INET6:
            # The kernel keeps a list for each scope, with the newest address first.
            for scope in dict.fromkeys(address.body[3] for address in (*before, *after)):
                oldest_first = [
                    [address for address in side if address.body[3] == scope][::-1] for side in (before, after)
                ]
                _restore(comparison, difference, interface, *oldest_first)
            _settle(comparison, difference, interface, before, after)
        else:
            _restore(comparison, difference, interface, before, after)
    return difference


def _both_states(
    comparison: StateComparison,
) -> tuple[dict[_Group, list[RtnetlinkMessage]], dict[_Group, list[RtnetlinkMessage]]]:
    saved = _by_group(comparison.saved.addresses, comparison.saved_names)
    return saved, _by_group(comparison.current.addresses, comparison.current_names)


def _by_group(messages: Iterable[RtnetlinkMessage], names: dict[int, str]) -> dict[_Group, list[RtnetlinkMessage]]:
    groups: dict[_Group, list[RtnetlinkMessage]] = {}
    for address in messages:
        index = struct.unpack_from("=I", address.body, 4)[0]
        groups.setdefault((names.get(index, str(index)), address.body[0]), []).append(address)
    return groups


def _foreign_changes(
    comparison: StateComparison, before: list[RtnetlinkMessage], after: list[RtnetlinkMessage]
) -> tuple[list[RtnetlinkMessage], list[RtnetlinkMessage]]:
    """Return the addresses that something else removed, and those that it added."""
    saved = {local_address(address) for address in before}
    current = {local_address(address) for address in after}
    added = [
        address
        for address in after
        if local_address(address) not in saved
        and (_lifetimes(address)[1] != INFINITE or (not comparison.saved.reconfigures and not _made_by_kernel(address)))
    ]
    leased = any(_lifetimes(address)[1] != INFINITE for address in added)
    removed = []
    for address in before:
        valid = _lifetimes(address)[1]
        if local_address(address) in current:
            continue
        if comparison.removed_by_person(address):
            removed.append(address)
            continue
        if valid == INFINITE:
            continue
        # Its program added another instead; it expired meanwhile; or only the kernel adds it (a temporary address).
        temporary = address.body[0] == AF_INET6 and _flags(address) & _TEMPORARY
        if leased or valid <= comparison.elapsed or temporary:
            removed.append(address)
    return removed, added


def _made_by_kernel(address: RtnetlinkMessage) -> bool:
    """Return whether the kernel may have made the address when the link came up: an IPv6 link-local address."""
    return address.body[0] == AF_INET6 and address.body[3] == _SCOPE_LINK


def _add_lines(
    lines: list[str], comparison: StateComparison, before: list[RtnetlinkMessage], after: list[RtnetlinkMessage]
) -> None:
    add_lines(lines, "address", _entries(before, comparison.saved_names), _entries(after, comparison.current_names))


def _entries(messages: Iterable[RtnetlinkMessage], names: dict[int, str]) -> list[ListEntry]:
    return [ListEntry(_identity(address), object_text(address, names)) for address in messages]


def _identity(address: RtnetlinkMessage) -> Hashable:
    """Return all that must be equal, within one interface and family. Of a lifetime, which runs, only the kind."""
    preferred, valid = _lifetimes(address)
    lifetime = valid != INFINITE or ("deprecated" if preferred == 0 else preferred != INFINITE)
    rest = tuple(sorted((kind, value) for kind, value in address.attributes if kind not in (_CACHEINFO, _FLAGS)))
    return address.body[1], address.body[3], _flags(address) & _CONFIGURED, lifetime, rest


def _restore(
    comparison: StateComparison,
    difference: StateDifference,
    interface: str,
    before: list[RtnetlinkMessage],
    after: list[RtnetlinkMessage],
) -> None:
    """Restore addresses; both lists begin with the oldest address."""
    removed, missing = ordered_changes(
        [_identity(address) for address in before], [_identity(address) for address in after]
    )
    if not removed and not missing:
        return
    _add_lines(difference.lines, comparison, before, after)
    # The last first: a primary address takes its secondary addresses with it.
    for place in reversed(removed):
        _remove(comparison, difference, after[place])
    for place in missing:
        _add(comparison, difference, interface, before[place])


def _settle(
    comparison: StateComparison,
    difference: StateDifference,
    interface: str,
    before: list[RtnetlinkMessage],
    after: list[RtnetlinkMessage],
) -> None:
    """Make an address that had passed duplicate address detection usable at once, as before.

    The address passed the detection (RFC 4862) when it was first added; another would make it unusable for seconds. It
    is therefore added with nodad, and the flag is removed when the kernel has accepted it.
    """
    saved = {local_address(address): address for address in before}
    for address in after:
        original = saved.get(local_address(address))
        if original is None:
            continue
        flags, text = _flags(address), object_text(address, comparison.current_names)
        if flags & _TENTATIVE and not _flags(original) & _TENTATIVE:
            difference.lines.append(f"- address: {text} is still tentative")
            difference.settling = not flags & _DADFAILED
            if not flags & (_NODAD | _DADFAILED):
                _remove(comparison, difference, address)
                _add(comparison, difference, interface, original)
        elif flags & _NODAD and not _flags(original) & _NODAD:
            difference.lines.append(f"- address: {text} has the flag nodad")
            payload = _payload(address, _flags(address) & _CONFIGURED, _lifetimes(address))
            difference.repairs.append(
                RouteSocketRepair(f"address: {text} without nodad", rtnetlink.RTM_NEWADDR, codec.NLM_F_REPLACE, payload)
            )


def _remove(comparison: StateComparison, difference: StateDifference, address: RtnetlinkMessage) -> None:
    text = f"removed address: {object_text(address, comparison.current_names)}"
    difference.repairs.append(RouteSocketRepair(text, rtnetlink.RTM_DELADDR, 0, address.encode()))


def _add(comparison: StateComparison, difference: StateDifference, interface: str, address: RtnetlinkMessage) -> None:
    if interface not in comparison.index:
        return
    body = address.body[:4] + struct.pack("=I", comparison.index[interface])
    moved = RtnetlinkMessage(address.kind, body, address.attributes)
    flags = _flags(address) & (_CONFIGURED | _NODAD)
    if address.body[0] == AF_INET6 and not _flags(address) & _TENTATIVE:
        flags |= _NODAD
    preferred, valid = (_remaining(comparison, seconds) for seconds in _lifetimes(address))
    payload = _payload(moved, flags, (preferred, valid))
    verb = codec.NLM_F_CREATE | codec.NLM_F_EXCL
    text = f"restored address: {object_text(address, comparison.saved_names)}"
    difference.unclear += comparison.unclear("address", object_text(address, comparison.saved_names), address)
    difference.repairs.append(RouteSocketRepair(text, rtnetlink.RTM_NEWADDR, verb, payload))


def _payload(address: RtnetlinkMessage, flags: int, lifetimes: tuple[int, int]) -> bytes:
    body = bytes([address.body[0], address.body[1], flags & 0xFF, address.body[3]]) + address.body[4:]
    cacheinfo = struct.pack("=IIII", *lifetimes, 0, 0)
    message = RtnetlinkMessage(address.kind, body, address.attributes)
    return message.plus((_FLAGS, struct.pack("=I", flags)), (_CACHEINFO, cacheinfo)).encode()


def _remaining(comparison: StateComparison, seconds: int) -> int:
    return seconds if seconds == INFINITE else max(0, seconds - int(comparison.elapsed))


def _lifetimes(address: RtnetlinkMessage) -> tuple[int, int]:
    """Return the preferred and the valid lifetime, in seconds when the message was read."""
    cacheinfo = address.get(_CACHEINFO)
    if cacheinfo is None:
        return INFINITE, INFINITE
    preferred, valid = struct.unpack_from("=II", cacheinfo)
    return preferred, valid


def _flags(address: RtnetlinkMessage) -> int:
    return address.number(_FLAGS, address.body[2])
