"""Addresses of the interfaces, in their order, with what was chosen for them: label, broadcast, metric, lifetimes.

The first IPv4 address of a network is its primary one, and IPv6 prefers the newest, so the order is part of the state.
What has a lifetime has an owner (a DHCP client, router advertisements): where that one put another address, it stays.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterable

from viacheck.guard.comparison import Comparison
from viacheck.guard.describe import describe
from viacheck.guard.difference import Difference, Entry, Request, mend_order, tell
from viacheck.netlink import codec, rtnetlink
from viacheck.netlink.rtnetlink import AF_INET6, RtnetlinkMessage

FOREVER = 0xFFFFFFFF
_ADDRESS, _LOCAL, _CACHEINFO, _FLAGS = 1, 2, 6, 8
_TEMPORARY, _NODAD, _DADFAILED, _TENTATIVE = 0x01, 0x02, 0x08, 0x40
# Home, manage-temporary, no-prefix-route and join-multicast are chosen; the kernel works the others out.
_CHOSEN = 0x10 | 0x100 | 0x200 | 0x400

_Place = tuple[str, int]
"""Interface and family."""


def local(address: RtnetlinkMessage) -> bytes:
    """The interface's own address (IFA_LOCAL, or IFA_ADDRESS where both are the same)."""
    return address.get(_LOCAL) or address.get(_ADDRESS) or b""


def foreign_addresses(both: Comparison) -> frozenset[bytes]:
    """Addresses of the interfaces that came or went by somebody else's hand."""
    found: set[bytes] = set()
    old, new = _by_place(both.saved.addresses, both.old_names), _by_place(both.now.addresses, both.new_names)
    for place in dict.fromkeys((*old, *new)):
        if place[0] in both.interfaces:
            went, came = _owned(both, old.get(place, []), new.get(place, []))
            found |= {local(one) for one in (*went, *came)}
    return frozenset(found)


def addresses(both: Comparison) -> Difference:
    """Compare the addresses."""
    found = Difference()
    old, new = _by_place(both.saved.addresses, both.old_names), _by_place(both.now.addresses, both.new_names)
    for place in dict.fromkeys((*old, *new)):
        wanted, present = old.get(place, []), new.get(place, [])
        if place[0] not in both.interfaces:
            tell(found.foreign, "address", _entries(wanted, both.old_names), _entries(present, both.new_names))
            continue
        went, came = _owned(both, wanted, present)
        tell(found.foreign, "address", _entries(went, both.old_names), _entries(came, both.new_names))
        wanted = [one for one in wanted if one not in went]
        present = [one for one in present if one not in came]
        if place[1] == AF_INET6:
            # The kernel keeps a list for each scope, the newest address first.
            for scope in dict.fromkeys(one.body[3] for one in (*wanted, *present)):
                of_scope = [[one for one in side if one.body[3] == scope] for side in (wanted, present)]
                _restore(both, found, place[0], of_scope[0][::-1], of_scope[1][::-1])
            _settle(both, found, place[0], wanted, present)
        else:
            _restore(both, found, place[0], wanted, present)
    return found


def _by_place(messages: Iterable[RtnetlinkMessage], names: dict[int, str]) -> dict[_Place, list[RtnetlinkMessage]]:
    found: dict[_Place, list[RtnetlinkMessage]] = {}
    for one in messages:
        index = struct.unpack_from("=I", one.body, 4)[0]
        found.setdefault((names.get(index, str(index)), one.body[0]), []).append(one)
    return found


def _owned(
    both: Comparison, wanted: list[RtnetlinkMessage], present: list[RtnetlinkMessage]
) -> tuple[list[RtnetlinkMessage], list[RtnetlinkMessage]]:
    """What others took away, and what they brought."""
    old, new = {local(one) for one in wanted}, {local(one) for one in present}
    came = [one for one in present if local(one) not in old and _lifetimes(one)[1] != FOREVER]
    went = []
    for one in wanted:
        valid = _lifetimes(one)[1]
        if local(one) in new or valid == FOREVER:
            continue
        # Its owner put another in its place; it ran out meanwhile; only the kernel itself makes temporary ones.
        if came or valid <= both.elapsed or (one.body[0] == AF_INET6 and _flags(one) & _TEMPORARY):
            went.append(one)
    return went, came


def _entries(messages: Iterable[RtnetlinkMessage], names: dict[int, str]) -> list[Entry]:
    return [Entry(_identity(one), describe(one, names)) for one in messages]


def _identity(one: RtnetlinkMessage) -> Hashable:
    """What must be equal, within one interface and family. Lifetimes run, so only their kind counts."""
    preferred, valid = _lifetimes(one)
    lifetime = valid != FOREVER or ("deprecated" if preferred == 0 else preferred != FOREVER)
    rest = tuple(sorted((kind, value) for kind, value in one.attributes if kind not in (_CACHEINFO, _FLAGS)))
    return one.body[1], one.body[3], _flags(one) & _CHOSEN, lifetime, rest


def _restore(
    both: Comparison, found: Difference, name: str, wanted: list[RtnetlinkMessage], present: list[RtnetlinkMessage]
) -> None:
    """Put addresses back; both lists begin with the oldest address."""
    old, new = _entries(wanted, both.old_names), _entries(present, both.new_names)
    removed, missing = mend_order([one.identity for one in old], [one.identity for one in new])
    if not removed and not missing:
        return
    tell(found.lines, "address", old, new)
    # The last first: a primary address takes its secondary ones with it.
    for at in reversed(removed):
        _remove(both, found, present[at])
    for at in missing:
        _put_back(both, found, name, wanted[at])


def _settle(
    both: Comparison, found: Difference, name: str, wanted: list[RtnetlinkMessage], present: list[RtnetlinkMessage]
) -> None:
    """See that an address which had passed its uniqueness check can be used at once, as before.

    The check (RFC 4862) was passed when the address was first given; another would leave it unusable for seconds. So it
    is put back marked as not to be checked, and the mark is taken off when the kernel has accepted it.
    """
    before = {local(one): one for one in wanted}
    for one in present:
        original = before.get(local(one))
        if original is None:
            continue
        flags, words = _flags(one), describe(one, both.new_names)
        if flags & _TENTATIVE and not _flags(original) & _TENTATIVE:
            found.lines.append(f"- address: {words} is still tentative")
            found.settling = not flags & _DADFAILED
            if not flags & (_NODAD | _DADFAILED):
                _remove(both, found, one)
                _put_back(both, found, name, original)
        elif flags & _NODAD and not _flags(original) & _NODAD:
            found.lines.append(f"- address: {words} is marked nodad")
            payload = _payload(one, _flags(one) & _CHOSEN, _lifetimes(one))
            found.mendings.append(
                Request(f"address: {words} no longer nodad", rtnetlink.RTM_NEWADDR, codec.NLM_F_REPLACE, payload)
            )


def _remove(both: Comparison, found: Difference, one: RtnetlinkMessage) -> None:
    words = f"removed address: {describe(one, both.new_names)}"
    found.mendings.append(Request(words, rtnetlink.RTM_DELADDR, 0, one.encode()))


def _put_back(both: Comparison, found: Difference, name: str, one: RtnetlinkMessage) -> None:
    if name not in both.index:
        return
    moved = RtnetlinkMessage(one.kind, one.body[:4] + struct.pack("=I", both.index[name]), one.attributes)
    flags = _flags(one) & (_CHOSEN | _NODAD)
    if one.body[0] == AF_INET6 and not _flags(one) & _TENTATIVE:
        flags |= _NODAD
    preferred, valid = (_remaining(both, seconds) for seconds in _lifetimes(one))
    payload = _payload(moved, flags, (preferred, valid))
    verb = codec.NLM_F_CREATE | codec.NLM_F_EXCL
    words = f"put back address: {describe(one, both.old_names)}"
    found.mendings.append(Request(words, rtnetlink.RTM_NEWADDR, verb, payload))


def _payload(one: RtnetlinkMessage, flags: int, lifetimes: tuple[int, int]) -> bytes:
    body = bytes([one.body[0], one.body[1], flags & 0xFF, one.body[3]]) + one.body[4:]
    cacheinfo = struct.pack("=IIII", *lifetimes, 0, 0)
    bare = RtnetlinkMessage(one.kind, body, one.attributes)
    return bare.plus((_FLAGS, struct.pack("=I", flags)), (_CACHEINFO, cacheinfo)).encode()


def _remaining(both: Comparison, seconds: int) -> int:
    return seconds if seconds == FOREVER else max(0, seconds - int(both.elapsed))


def _lifetimes(one: RtnetlinkMessage) -> tuple[int, int]:
    """Preferred and valid lifetime in seconds when the message was read."""
    cacheinfo = one.get(_CACHEINFO)
    if cacheinfo is None:
        return FOREVER, FOREVER
    preferred, valid = struct.unpack_from("=II", cacheinfo)
    return preferred, valid


def _flags(one: RtnetlinkMessage) -> int:
    return one.number(_FLAGS, one.body[2])
