"""An index of policy routing rules: which of 10,000 rules may select a packet, by a few look-ups in dictionaries.

Tuple space search (Srinivasan, Suri and Varghese, SIGCOMM 1999): rules that look at the same bits of a packet are one
group, and a dictionary of the group has the positions of its rules by the value of those bits.
"""

from __future__ import annotations

from collections.abc import Iterable

from viacheck.analysis.routing.packet import LookupKey

Bits = tuple[int, int, int, bool]
"""Masks of source, destination and mark, and whether the rule names the interface of arrival."""
Value = tuple[int, int, int, str | None]
"""What these bits and the interface must be; 0 and None where the rule does not look."""


class RuleIndex:
    """The positions of rules by their selectors."""

    def __init__(self, rules: Iterable[tuple[int, Bits, Value]]) -> None:
        """Index the selectors of the rules at these positions, which are in ascending order."""
        groups: dict[Bits, dict[Value, list[int]]] = {}
        for position, bits, value in rules:
            groups.setdefault(bits, {}).setdefault(value, []).append(position)
        self._groups = list(groups.items())

    def candidates(self, key: LookupKey) -> list[int]:
        """Return the positions of the rules whose indexed selectors match, in ascending order."""
        matching: list[list[int]] = []
        for (source_mask, destination_mask, mark_mask, by_iif), positions in self._groups:
            if source_mask and key.source is None and key.family == 6:
                # No source is chosen yet: IPv6 refuses (RT6_LOOKUP_F_HAS_SADDR), IPv4 compares 0.0.0.0.
                continue
            value = (
                (key.source or 0) & source_mask, key.destination & destination_mask, key.mark & mark_mask,
                key.iif if by_iif else None,
            )  # fmt: skip
            same = positions.get(value)
            if same is not None:
                matching.append(same)
        return matching[0] if len(matching) == 1 else sorted(position for same in matching for position in same)
