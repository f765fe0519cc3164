"""Compare and restore interfaces: name, master, MAC, MTU, queue length, up or down. A missing link is not recreated."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from viacheck.guard.comparison import StateComparison
from viacheck.guard.difference import StateDifference
from viacheck.guard.network_state import (
    CONFIGURED_FLAGS,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_TXQLEN,
    LinkState,
)
from viacheck.guard.repair import RouteSocketRepair
from viacheck.netlink import rtnetlink
from viacheck.netlink.codec import attribute


def compare_links(comparison: StateComparison) -> StateDifference:
    """Compare the interfaces."""
    difference = StateDifference()
    for saved in comparison.saved.links:
        current, concerned = comparison.links.get(saved.name), saved.name in comparison.interfaces
        lines = difference.lines if concerned else difference.foreign
        if current is None:
            lines.append(f"- link: {saved.name} is missing and is not recreated")
            continue
        down = (rtnetlink.RTM_NEWLINK, _message(current.index, change=IFF_UP))
        for text, payload, admin in _changes(comparison, saved, current):
            ours = concerned and (admin or comparison.saved.reconfigures)
            (difference.lines if ours else difference.foreign).append(f"- link: {text}")
            if ours:
                repair = RouteSocketRepair(f"link: {text}", rtnetlink.RTM_NEWLINK, 0, payload, down)
                difference.repairs.append(repair)
        if concerned and saved.carrier and current.up and not current.carrier:
            difference.lines.append(f"- link: {saved.name} has no carrier")
            difference.settling = True
    known = {link.name for link in comparison.saved.links}
    difference.foreign += [f"+ link: {name}" for name in comparison.links if name not in known]
    return difference


def _changes(comparison: StateComparison, saved: LinkState, current: LinkState) -> Iterator[tuple[str, bytes, bool]]:
    """Yield the settings to restore, each as text and as its message, and whether it is up or down."""
    bare, name = _message(current.index), saved.name
    if current.name != name:
        yield f"{name} (is {current.name})", bare + attribute(IFLA_IFNAME, name.encode() + b"\0"), False
    if current.master != saved.master:
        master = comparison.index.get(saved.master, 0) if saved.master else 0
        text = f"{name} master {saved.master}" if saved.master else f"{name} nomaster"
        yield f"{text} (is {current.master})", bare + attribute(IFLA_MASTER, struct.pack("=I", master)), False
    if current.mac != saved.mac:
        octets = bytes.fromhex(saved.mac)
        yield f"{name} address {octets.hex(':')}", bare + attribute(IFLA_ADDRESS, octets), False
    if current.mtu != saved.mtu:
        payload = bare + attribute(IFLA_MTU, struct.pack("=I", saved.mtu))
        yield f"{name} mtu {saved.mtu} (is {current.mtu})", payload, False
    if current.txqlen != saved.txqlen:
        payload = bare + attribute(IFLA_TXQLEN, struct.pack("=I", saved.txqlen))
        yield f"{name} txqueuelen {saved.txqlen}", payload, False
    differing = (saved.flags ^ current.flags) & CONFIGURED_FLAGS & ~IFF_UP
    if differing:
        text = f"flags 0x{saved.flags & CONFIGURED_FLAGS:x} (is 0x{current.flags & CONFIGURED_FLAGS:x})"
        yield f"{name} {text}", _message(current.index, saved.flags & differing, differing), False
    if saved.up != current.up:
        yield f"{name} {'up' if saved.up else 'down'}", _message(current.index, saved.flags & IFF_UP, IFF_UP), True


def _message(index: int, flags: int = 0, change: int = 0) -> bytes:
    """Return an ifinfomsg that sets the flags in ``change`` as they are in ``flags``."""
    return struct.pack("=BxHiII", 0, 0, index, flags, change)
