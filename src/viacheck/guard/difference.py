"""The difference between a saved state and the current state: its lines for people, and the repairs that remove it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from viacheck.guard.repair import Repair

T = TypeVar("T")


@dataclass(slots=True)
class StateDifference:
    """The difference of the whole state, or of one kind of object."""

    lines: list[str] = field(default_factory=list)
    """``-`` for a missing object, ``+`` for an object that was not saved."""
    repairs: list[Repair] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    """Lines about the changes of something else."""
    unclear: list[str] = field(default_factory=list)
    """Lines about what is restored although something else than the change may have removed or set it."""
    settling: bool = False
    """The kernel is still changing something by itself, such as a carrier."""

    def add(self, other: StateDifference) -> None:
        """Add the difference of another kind of object."""
        self.lines += other.lines
        self.repairs += other.repairs
        self.foreign += other.foreign
        self.unclear += other.unclear
        self.settling = self.settling or other.settling


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One object of a list: its identity, and its text for people."""

    identity: Hashable
    text: str


def add_lines(lines: list[str], noun: str, saved: Iterable[ListEntry], current: Iterable[ListEntry]) -> None:
    """Add one line for each object that is missing, new, or (when the order counts) in another place."""
    saved, current = list(saved), list(current)
    before = Counter(entry.identity for entry in saved)
    after = Counter(entry.identity for entry in current)
    missing, added = before - after, after - before
    lines += [f"- {noun}: {entry.text}" for entry in saved if take(missing, entry.identity)]
    lines += [f"+ {noun}: {entry.text}" for entry in current if take(added, entry.identity)]
    if before == after and [entry.identity for entry in saved] != [entry.identity for entry in current]:
        lines += [f"- {noun}: {entry.text}, in another order" for entry in saved]


def take(remaining: Counter[T], item: T) -> bool:
    """Remove an item from a multiset; return whether it was there."""
    if remaining[item] <= 0:
        return False
    remaining[item] -= 1
    return True


def ordered_changes(saved: Sequence[Hashable], current: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Return how to turn ``current`` into ``saved`` when objects can be removed anywhere and added only at the end.

    Returns:
        The places in ``current`` to remove, and the places in ``saved`` to add, in this order.
    """
    remaining = Counter(saved)
    kept = [place for place, identity in enumerate(current) if take(remaining, identity)]
    if [current[place] for place in kept] == list(saved[: len(kept)]):
        return [place for place in range(len(current)) if place not in kept], list(range(len(kept), len(saved)))
    return list(range(len(current))), list(range(len(saved)))


def unordered_changes(saved: Sequence[Hashable], current: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Return the same for objects without an order."""
    surplus, missing = Counter(current) - Counter(saved), Counter(saved) - Counter(current)
    return (
        [place for place, identity in enumerate(current) if take(surplus, identity)],
        [place for place, identity in enumerate(saved) if take(missing, identity)],
    )
