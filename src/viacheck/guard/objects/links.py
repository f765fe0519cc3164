"""Interfaces: name, master, MAC, MTU, queue length, up or down. One that is gone is not made again (rtnetlink(7))."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from viacheck.guard.comparison import Comparison
from viacheck.guard.difference import Difference, Request
from viacheck.guard.saved_state import (
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_TXQLEN,
    KEPT_FLAGS,
    LinkState,
)
from viacheck.netlink import rtnetlink
from viacheck.netlink.codec import attribute


def links(both: Comparison) -> Difference:
    """Compare the interfaces."""
    found = Difference()
    for old in both.saved.links:
        new, mine = both.links.get(old.name), old.name in both.interfaces
        if new is None:
            (found.lines if mine else found.foreign).append(f"- link: {old.name} is gone, and is not made again")
            continue
        down = (rtnetlink.RTM_NEWLINK, _message(new.index, change=IFF_UP))
        for words, payload in _changes(both, old, new):
            (found.lines if mine else found.foreign).append(f"- link: {words}")
            if mine:
                found.mendings.append(Request(f"link: {words}", rtnetlink.RTM_NEWLINK, 0, payload, down))
        if mine and old.carrier and new.up and not new.carrier:
            found.lines.append(f"- link: {old.name} has no carrier")
            found.settling = True
    known = {link.name for link in both.saved.links}
    found.foreign += [f"+ link: {name}" for name in both.links if name not in known]
    return found


def _changes(both: Comparison, old: LinkState, new: LinkState) -> Iterator[tuple[str, bytes]]:
    """What to set on an interface, in words and as the message that does it."""
    bare, name = _message(new.index), old.name
    if new.name != name:
        yield f"{name} (is {new.name})", bare + attribute(IFLA_IFNAME, name.encode() + b"\0")
    if new.master != old.master:
        master = both.index.get(old.master, 0) if old.master else 0
        words = f"{name} master {old.master}" if old.master else f"{name} nomaster"
        yield f"{words} (is {new.master})", bare + attribute(IFLA_MASTER, struct.pack("=I", master))
    if new.mac != old.mac:
        octets = bytes.fromhex(old.mac)
        yield f"{name} address {octets.hex(':')}", bare + attribute(IFLA_ADDRESS, octets)
    if new.mtu != old.mtu:
        yield f"{name} mtu {old.mtu} (is {new.mtu})", bare + attribute(IFLA_MTU, struct.pack("=I", old.mtu))
    if new.txqlen != old.txqlen:
        yield f"{name} txqueuelen {old.txqlen}", bare + attribute(IFLA_TXQLEN, struct.pack("=I", old.txqlen))
    differing = (old.flags ^ new.flags) & KEPT_FLAGS
    if differing:
        words = ("up" if old.up else "down") if differing & IFF_UP else "flags"
        words += f" 0x{old.flags & KEPT_FLAGS:x} (is 0x{new.flags & KEPT_FLAGS:x})" if differing != IFF_UP else ""
        yield f"{name} {words}", _message(new.index, old.flags & differing, differing)


def _message(index: int, flags: int = 0, change: int = 0) -> bytes:
    """An ifinfomsg: the flags in ``change`` are set to what they are in ``flags``."""
    return struct.pack("=BxHiII", 0, 0, index, flags, change)
