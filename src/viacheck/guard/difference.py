"""What differs from a saved state, in words for people and in requests that mend it."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from viacheck.host.sysctl import write_sysctl
from viacheck.netlink.rtnetlink import RouteSocket

T = TypeVar("T")


class Repair(Protocol):
    """One step towards the saved state."""

    @property
    def words(self) -> str:
        """What it does, for people."""

    def carry_out(self, netlink: RouteSocket) -> None:
        """Do it.

        Raises:
            OSError: with the kernel's errno.
        """


@dataclass(frozen=True, slots=True)
class Request:
    """One rtnetlink request."""

    words: str
    kind: int
    flags: int
    payload: bytes
    if_busy: tuple[int, bytes] | None = None
    """Another request to send first when the kernel says EBUSY: some drivers change an address only while down."""

    def carry_out(self, netlink: RouteSocket) -> None:
        """Send it.

        Raises:
            OSError: with the kernel's errno.
        """
        try:
            netlink.request(self.kind, self.flags, self.payload)
        except OSError as error:
            if self.if_busy is None or error.errno != errno.EBUSY:
                raise
            netlink.request(self.if_busy[0], 0, self.if_busy[1])
            netlink.request(self.kind, self.flags, self.payload)


@dataclass(frozen=True, slots=True)
class SysctlWrite:
    """One value below /proc/sys."""

    words: str
    path: str
    value: str

    def carry_out(self, _netlink: RouteSocket) -> None:
        """Write it.

        Raises:
            OSError: when the system forbids it.
        """
        write_sysctl(self.path, self.value)


@dataclass(slots=True)
class Difference:
    """How the state, or a part of it, differs from what was saved."""

    lines: list[str] = field(default_factory=list)
    """``-`` for what is gone, ``+`` for what was not there before."""
    mendings: list[Repair] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    """The same as ``lines`` for what is somebody else's."""
    settling: bool = False
    """Something is on its way by itself, such as a carrier."""

    def add(self, other: Difference) -> None:
        """Take in the difference of another part."""
        self.lines += other.lines
        self.mendings += other.mendings
        self.foreign += other.foreign
        self.settling = self.settling or other.settling


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a list: what makes it the same object, and its words."""

    identity: Hashable
    words: str


def tell(lines: list[str], noun: str, old: Iterable[Entry], new: Iterable[Entry]) -> None:
    """Add one line for each object that is gone, came, or (when the order counts) stands elsewhere."""
    old, new = list(old), list(new)
    before, after = Counter(one.identity for one in old), Counter(one.identity for one in new)
    gone, came = before - after, after - before
    lines += [f"- {noun}: {one.words}" for one in old if take(gone, one.identity)]
    lines += [f"+ {noun}: {one.words}" for one in new if take(came, one.identity)]
    if before == after and [one.identity for one in old] != [one.identity for one in new]:
        lines += [f"- {noun}: {one.words}, in another order" for one in old]


def take(left: Counter[T], one: T) -> bool:
    """Take one out of a multiset; says whether there was any."""
    if left[one] <= 0:
        return False
    left[one] -= 1
    return True


def mend_order(old: Sequence[Hashable], new: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Turn ``new`` into ``old`` when objects can only be taken off anywhere and put on at the end.

    Returns the places in ``new`` to take off and the places in ``old`` to put on, in this order.
    """
    left = Counter(old)
    kept = [at for at, one in enumerate(new) if take(left, one)]
    if [new[at] for at in kept] == list(old[: len(kept)]):
        return [at for at in range(len(new)) if at not in kept], list(range(len(kept), len(old)))
    return list(range(len(new))), list(range(len(old)))


def mend_set(old: Sequence[Hashable], new: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """The same for objects in no order."""
    surplus, missing = Counter(new) - Counter(old), Counter(old) - Counter(new)
    return (
        [at for at, one in enumerate(new) if take(surplus, one)],
        [at for at, one in enumerate(old) if take(missing, one)],
    )
