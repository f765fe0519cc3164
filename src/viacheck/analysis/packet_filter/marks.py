"""The marks of a packet and of its flow, and what rules do to them (``meta mark``, ``ct mark``; MARK, CONNMARK).

A change is text, as a snapshot holds it: ``VALUE/MASK`` clears the bits of the mask and flips those of the value;
``copy BITS/MASK`` does the same with the bits that the other mark has under BITS (iptables-extensions(8), "CONNMARK").
"""

from __future__ import annotations

ALL_BITS = 0xFFFFFFFF
COPY = "copy "


def value_and_mask(text: str) -> tuple[int, int]:
    """Return the two numbers of ``VALUE/MASK``; without a mask all bits count."""
    value, _, mask = text.removeprefix(COPY).partition("/")
    return int(value, 16), int(mask, 16) if mask else ALL_BITS


def changed(mark: int | None, other: int | None, change: str) -> int | None:
    """Return a mark after a change; None when it cannot be evaluated.

    Args:
        mark: the mark before.
        other: the other mark, of the flow for the packet's and of the packet for the flow's.
        change: as the module describes it, or ``unknown``.
    """
    if change == "unknown":
        return None
    value, mask = value_and_mask(change)
    if change.startswith(COPY):
        if other is None and value:
            return None
        value &= other or 0
    if mask == ALL_BITS:
        return value
    return None if mark is None else (mark & ~mask & ALL_BITS) ^ value
