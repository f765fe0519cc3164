"""Restore a saved state, and prove it: the state is read again and must be equal.

A restore makes only the changes that are needed, so a restore that was interrupted can be repeated.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from viacheck.guard.comparison import StateComparison
from viacheck.guard.difference import StateDifference
from viacheck.guard.network_state import CurrentState
from viacheck.guard.objects.address_repair import compare_addresses
from viacheck.guard.objects.link_repair import compare_links
from viacheck.guard.objects.neighbour_repair import compare_neighbours
from viacheck.guard.objects.nexthop_repair import compare_nexthops
from viacheck.guard.objects.route_repair import compare_routes
from viacheck.guard.objects.rule_repair import compare_rules
from viacheck.guard.objects.sysctl_repair import compare_sysctls
from viacheck.guard.removals import Removals
from viacheck.guard.saved_state import SavedState, mark_restored
from viacheck.netlink.rtnetlink import ChangeListener, RouteSocket

RESTORE_TIMEOUT = 30.0
"""Seconds for a restore of a small host; a carrier may take some of them."""
_SECONDS_PER_OBJECT = 0.002
"""Seconds more for each route, rule and address: 20 times what a quiet machine needs to read, compare and add one."""
_PAUSE = 0.2
"""Seconds without any change after which the state is read again."""
_PASSES_AT_ONCE = 5
"""Passes without a pause between them; more are needed only when something undoes the repairs."""
_FOREIGN_SHOWN = 50
"""Lines about foreign changes that are kept: a routing daemon may have made a hundred thousand."""

_COMPARISONS: tuple[Callable[[StateComparison], StateDifference], ...] = (
    compare_links,
    compare_sysctls,
    compare_addresses,
    compare_neighbours,
    compare_nexthops,
    compare_routes,
    compare_rules,
)
"""In the order in which the objects depend on one another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult:
    """The result of a restore."""

    equal: bool
    """The state of the change's interfaces, tables and rules equals the saved state."""
    difference: tuple[str, ...] = ()
    """One line for each object that differs, ``-`` missing and ``+`` new, and each repair that the kernel refused."""
    foreign: tuple[str, ...] = ()
    """The changes that something else made meanwhile. They are not touched."""
    unclear: tuple[str, ...] = ()
    """What was restored although something else than the change may have removed or set it."""
    actions: tuple[str, ...] = ()
    """The repairs that were made."""
    reason: str = ""
    """Why the restore began."""
    seconds: float = 0.0

    unmarked: str = ""
    """Why the saved state could not be marked as restored; empty when it could, or must not."""

    def to_json(self) -> str:
        """Return the result as it is kept beside the saved state."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> RestoreResult:
        """Read a result.

        Raises:
            ValueError, KeyError, TypeError: when the text is not a result.
        """
        fields = json.loads(text)
        return cls(
            equal=fields["equal"],
            difference=tuple(fields["difference"]),
            foreign=tuple(fields["foreign"]),
            unclear=tuple(fields["unclear"]),
            actions=tuple(fields["actions"]),
            reason=fields["reason"],
            seconds=fields["seconds"],
            unmarked=fields["unmarked"],
        )


def time_for(objects: int) -> float:
    """Return the seconds that the restore of a host with so many routes, rules and addresses may need in addition."""
    return objects * _SECONDS_PER_OBJECT


def restore_timeout(saved: SavedState) -> float:
    """Return the seconds that the restore of a state may take."""
    return RESTORE_TIMEOUT + time_for(len(saved.routes) + len(saved.rules) + len(saved.addresses))


def restore(saved: SavedState, reason: str, removals: Removals | None = None) -> RestoreResult:
    """Restore the calling thread's network namespace, within :func:`restore_timeout`.

    Without ``removals``, every object that is missing counts as removed by the change.

    A state that cannot be read is a result that is not equal, with the kernel's reason.
    """
    began = time.monotonic()
    try:
        return _restore(saved, reason, began, restore_timeout(saved), removals or Removals())
    except OSError as error:
        return RestoreResult(
            equal=False,
            difference=(f"the state cannot be read: {error.strerror}",),
            reason=reason,
            seconds=_since(began),
        )


def finish(result: RestoreResult, path: str) -> RestoreResult:
    """Mark the saved state as restored, if it is; on a disk that cannot be written, the result says so."""
    if not result.equal:
        return result
    try:
        mark_restored(path)
    except OSError as error:
        return dataclasses.replace(result, unmarked=f"{path}: {error.strerror}")
    return result


def _restore(saved: SavedState, reason: str, began: float, timeout: float, removals: Removals) -> RestoreResult:
    actions: list[str] = []
    unchanged_passes = passes = 0
    last: list[str] = []
    unclear: dict[str, None] = {}
    with RouteSocket() as netlink, ChangeListener() as changes:
        while True:
            done, refused = _one_pass(saved, netlink, removals, unclear)
            actions += done
            changes.forget()
            difference = compare(saved, netlink, removals)
            passes, unchanged_passes = passes + 1, unchanged_passes + 1 if difference.lines == last else 0
            last = difference.lines
            remaining = began + timeout - time.monotonic()
            # Repairs that did not help twice will not help again, unless the kernel is still changing something.
            if not difference.lines or remaining <= 0 or (unchanged_passes > 1 and not difference.settling):
                break
            if unchanged_passes or passes > _PASSES_AT_ONCE or not difference.repairs:
                changes.wait(min(remaining, _PAUSE))
    if removals.lost:
        unclear["more was announced than could be received: what a person removed meanwhile may be restored"] = None
    return RestoreResult(
        equal=not difference.lines,
        difference=(*difference.lines, *refused) if difference.lines else (),
        foreign=_shortened(difference.foreign),
        unclear=_shortened(list(unclear)),
        actions=tuple(actions),
        reason=reason,
        seconds=_since(began),
    )


def _shortened(lines: list[str]) -> tuple[str, ...]:
    more = len(lines) - _FOREIGN_SHOWN
    return (*lines[:_FOREIGN_SHOWN], *([f"and {more} more"] if more > 0 else []))


def _since(began: float) -> float:
    return round(time.monotonic() - began, 4)


def compare(saved: SavedState, netlink: RouteSocket, removals: Removals) -> StateDifference:
    """Return the difference between the saved state and the current state of the calling thread's namespace.

    Raises:
        OSError: when the state cannot be read.
    """
    difference, comparison = StateDifference(), StateComparison(saved, CurrentState(netlink), removals)
    for compare_objects in _COMPARISONS:
        difference.add(compare_objects(comparison))
    return difference


def _one_pass(
    saved: SavedState, netlink: RouteSocket, removals: Removals, unclear: dict[str, None]
) -> tuple[list[str], list[str]]:
    """Repair each kind of object once; return the repairs that were made, and those that the kernel refused."""
    done: list[str] = []
    refused: list[str] = []
    comparison = StateComparison(saved, CurrentState(netlink), removals)
    for compare_objects in _COMPARISONS:
        difference = compare_objects(comparison)
        unclear |= dict.fromkeys(difference.unclear)
        repairs = difference.repairs
        for repair in repairs:
            try:
                repair.apply(netlink)
            except OSError as error:
                refused.append(f"{repair.text}: {error.strerror}")
            else:
                done.append(repair.text)
        if repairs:
            # The objects that depend on these may have changed with them.
            comparison = StateComparison(saved, CurrentState(netlink), removals)
    return done, refused
