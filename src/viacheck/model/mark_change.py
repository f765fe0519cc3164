"""What a rule does to the mark of a packet or of its flow (``meta mark``, ``ct mark``; MARK, CONNMARK).

A change is text, as a snapshot holds it: ``VALUE/MASK`` clears the bits of the mask and flips those of the value;
``copy BITS/MASK`` does the same with the bits that the other mark has under BITS (iptables-extensions(8), "CONNMARK").
``drawn VALUE/MASK …`` makes one of these changes, at random or by a hash of the flow.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

ALL_BITS = 0xFFFFFFFF
UNKNOWN = "unknown"
"""The change of a rule that its reader cannot compute."""
_COPY = "copy "
_DRAWN = "drawn "
MOST_DRAWN = 256
"""A change is not held as one of more changes than these."""


def mark_text(value: int, mask: int) -> str:
    """Return a mark, or a change that sets one, as ``VALUE/MASK`` in hex."""
    return f"0x{value:x}/0x{mask:x}"


def copied(bits: int, mask: int) -> str:
    """Return the change that copies bits of the other mark."""
    return f"{_COPY}{mark_text(bits, mask)}"


def drawn(values: Iterable[int], mask: int = ALL_BITS) -> str:
    """Return the change that sets the bits of a mask to one of these values; ``unknown`` for too many of them."""
    first = islice(values, MOST_DRAWN + 1)
    texts = list(dict.fromkeys(mark_text(value & ALL_BITS, mask) for value in first))
    if not texts or len(texts) > MOST_DRAWN:
        return UNKNOWN
    return texts[0] if len(texts) == 1 else _DRAWN + " ".join(texts)


def drawn_changes(change: str) -> tuple[str, ...]:
    """Return the changes of which one is made; empty for a change that is always the same."""
    return tuple(change.removeprefix(_DRAWN).split()) if change.startswith(_DRAWN) else ()


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
    if change == UNKNOWN or drawn_changes(change):
        return None
    value, mask = value_and_mask(change)
    if is_copy(change):
        if other is None and value:
            return None
        value &= other or 0
    if mask == ALL_BITS:
        return value
    return None if mark is None else (mark & ~mask & ALL_BITS) ^ value
