"""Keys for caches of what is made of 100,000 routes or 10,000 rules: a tuple is found again without comparing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class SameTuple(Generic[T]):
    """A tuple that is equal only to itself."""

    entries: tuple[T, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameTuple) and self.entries is other.entries

    def __hash__(self) -> int:
        return id(self.entries)
