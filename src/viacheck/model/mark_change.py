"""What a rule does to the mark of a packet or of its flow (``meta mark``, ``ct mark``; MARK, CONNMARK).

A change is text, as a snapshot holds it: ``VALUE/MASK`` clears the bits of the mask and flips those of the value;
``copy BITS/MASK`` does the same with the bits that the other mark has under BITS (iptables-extensions(8), "CONNMARK").
"""

from __future__ import annotations

ALL_BITS = 0xFFFFFFFF
UNKNOWN = "unknown"
"""The change of a rule that its reader cannot compute."""
_COPY = "copy "


def mark_text(value: int, mask: int) -> str:
    """Return a mark, or a change that sets one, as ``VALUE/MASK`` in hex."""
    return f"0x{value:x}/0x{mask:x}"


def copied(bits: int, mask: int) -> str:
    """Return the change that copies bits of the other mark."""
    return f"{_COPY}{mark_text(bits, mask)}"


def is_copy(change: str) -> bool:
    """Return whether a change copies bits of the other mark."""
    return change.startswith(_COPY)


def value_and_mask(text: str) -> tuple[int, int]:
    """Return the two numbers of a mark or a change; without a mask all bits count."""
    value, _, mask = text.removeprefix(_COPY).partition("/")
    return int(value, 16), int(mask, 16) if mask else ALL_BITS


def changed(mark: int | None, other: int | None, change: str) -> int | None:
    """Return a mark after a change; None when it cannot be evaluated.

    Args:
        mark: the mark before.
        other: the other mark, of the flow for the packet's and of the packet for the flow's.
        change: as the module describes it, or ``unknown``.
    """
    if change == UNKNOWN:
        return None
    value, mask = value_and_mask(change)
    if is_copy(change):
        if other is None and value:
            return None
        value &= other or 0
    if mask == ALL_BITS:
        return value
    return None if mark is None else (mark & ~mask & ALL_BITS) ^ value
