"""The TTL of a packet (IPv6: hop limit) in the conditions of packet filter rules, and what rules make of it."""

from __future__ import annotations

HIGHEST = 255


def ttl_values(comparison: str, bound: int) -> tuple[str, ...] | None:
    """Return the TTLs equal to (``eq``), below (``lt``) or above (``gt``) a bound, as a range; None where none is."""
    ranges = {"eq": (bound, bound), "lt": (0, bound - 1), "gt": (bound + 1, HIGHEST)}
    first, last = ranges.get(comparison, (1, 0))
    return (f"{first}-{last}",) if first <= last else None


def changed_ttl(ttl: int | None, change: str) -> int | None:
    """Return a TTL after a change (``=N``, ``+N``, ``-N``); None when it is unknown."""
    number = int(change[1:])
    if change[0] == "=":
        return number
    return None if ttl is None else min(max(ttl + (number if change[0] == "+" else -number), 0), HIGHEST)
