"""Makes a namespace what a saved state says it was, and proves it: the state is read again and must be equal.

Nothing is done that is already so; whoever finds a restore half done can begin it again.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from viacheck.guard.comparison import Comparison
from viacheck.guard.difference import Difference
from viacheck.guard.objects.addresses import addresses
from viacheck.guard.objects.links import links
from viacheck.guard.objects.neighbours import neighbours
from viacheck.guard.objects.nexthops import nexthops
from viacheck.guard.objects.routes import routes
from viacheck.guard.objects.rules import rules
from viacheck.guard.objects.sysctls import sysctls
from viacheck.guard.saved_state import LiveState, SavedState
from viacheck.netlink.rtnetlink import ChangeListener, RouteSocket

RESTORE_BOUND = 30.0
"""Seconds in which a restore must be done; a carrier may take some of them, and a table of 100,000 routes too."""
_PATIENCE = 0.2
"""Seconds without any event after which the state is looked at again."""
_PASSES_AT_ONCE = 5
"""Passes without waiting in between; more are needed only when somebody undoes what is done."""
_TOLD_FOREIGN = 50
"""Lines about foreign changes that are kept: a routing daemon may have made a hundred thousand."""

_PARTS: tuple[Callable[[Comparison], Difference], ...] = (
    links,
    sysctls,
    addresses,
    neighbours,
    nexthops,
    routes,
    rules,
)
"""In the order in which they rest on one another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a restore went."""

    equal: bool
    """The state of the change's interfaces, tables and rules equals the saved one."""
    difference: tuple[str, ...] = ()
    """One line for each thing that is not as it was, ``-`` gone and ``+`` new, and what the kernel refused."""
    foreign: tuple[str, ...] = ()
    """What others changed meanwhile, and what was therefore left alone."""
    actions: tuple[str, ...] = ()
    """What was done to get there."""
    reason: str = ""
    """Why the restore began."""
    seconds: float = 0.0

    def to_json(self) -> str:
        """As it is kept beside the saved state."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Read it back.

        Raises:
            ValueError, KeyError, TypeError: when the text is no outcome.
        """
        fields = json.loads(text)
        return cls(
            equal=fields["equal"],
            difference=tuple(fields["difference"]),
            foreign=tuple(fields["foreign"]),
            actions=tuple(fields["actions"]),
            reason=fields["reason"],
            seconds=fields["seconds"],
        )


def restore(saved: SavedState, reason: str = "", bound: float = RESTORE_BOUND) -> Outcome:
    """Restore the calling thread's network namespace, in at most ``bound`` seconds.

    Raises:
        OSError: when the state cannot even be read.
    """
    began = time.monotonic()
    actions: list[str] = []
    fruitless = passes = 0
    last: list[str] = []
    with RouteSocket() as netlink, ChangeListener() as events:
        while True:
            done, refused = _one_pass(saved, netlink)
            actions += done
            events.forget()
            found = compare(saved, netlink)
            passes, fruitless = passes + 1, fruitless + 1 if found.lines == last else 0
            last = found.lines
            left = began + bound - time.monotonic()
            # What did not help twice will not help again, unless something is still on its way.
            if not found.lines or left <= 0 or (fruitless > 1 and not found.settling):
                break
            if fruitless or passes > _PASSES_AT_ONCE or not found.mendings:
                events.wait(min(left, _PATIENCE))
    more = len(found.foreign) - _TOLD_FOREIGN
    return Outcome(
        equal=not found.lines,
        difference=(*found.lines, *refused) if found.lines else (),
        foreign=(*found.foreign[:_TOLD_FOREIGN], *([f"and {more} more"] if more > 0 else [])),
        actions=tuple(actions),
        reason=reason,
        seconds=round(time.monotonic() - began, 4),
    )


def compare(saved: SavedState, netlink: RouteSocket) -> Difference:
    """How the calling thread's namespace differs from the saved state now.

    Raises:
        OSError: when the state cannot be read.
    """
    found, both = Difference(), Comparison(saved, LiveState(netlink))
    for part in _PARTS:
        found.add(part(both))
    return found


def _one_pass(saved: SavedState, netlink: RouteSocket) -> tuple[list[str], list[str]]:
    """Mend each part once; returns what was done, and what the kernel refused with its reason."""
    done: list[str] = []
    refused: list[str] = []
    both = Comparison(saved, LiveState(netlink))
    for part in _PARTS:
        mendings = part(both).mendings
        for mending in mendings:
            try:
                mending.carry_out(netlink)
            except OSError as error:
                refused.append(f"{mending.words}: {error.strerror}")
            else:
                done.append(mending.words)
        if mendings:
            # The parts that rest on this one may have changed with it.
            both = Comparison(saved, LiveState(netlink))
    return done, refused
