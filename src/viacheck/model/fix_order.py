"""The order in which to type the fixes of a target: each needs nothing of those after it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from viacheck.model.chapters import check_order
from viacheck.model.result import CheckResult

EGRESS_CHECK = "EGRESS-01"
"""The check whose probes prove which uplink the agent's packets use."""
_NEEDED_FIRST = frozenset({"HOST-01", "HOST-02", "HOST-07"})
"""A route needs an uplink that is up, and a command in the agent's namespace needs an agent that runs."""

Place = tuple[str, str]
"""The target and the id of a check."""


def reporters_of(bad: Sequence[CheckResult]) -> dict[Place, Place]:
    """Map a check of a target to the check that reports its cause, if that check is bad and reports its own cause."""
    present = {(result.target, result.check) for result in bad}
    direct = {
        (result.target, result.check): (result.target, result.diagnosis.reported_by)
        for result in bad
        if result.diagnosis and result.diagnosis.reported_by
    }
    reporters = {}
    for check, reporter in direct.items():
        visited = {check}
        while reporter in direct and reporter not in visited:
            visited.add(reporter)
            reporter = direct[reporter]
        # A cycle of checks, or a reporter that is not bad here, reports nothing: the check then keeps its own cause.
        if reporter in present and reporter not in visited:
            reporters[check] = reporter
    return reporters


def fix_order(
    code: str | None, results: Sequence[CheckResult], affected: Collection[CheckResult]
) -> tuple[bool, bool, bool, tuple[int, str], int]:
    """Return the sort key of a cause.

    Links, the engine and the agent come first, then what moves the agent's packets, then the order of the chapters.

    Args:
        code: the code of its diagnosis; None without one.
        results: the results that report it.
        affected: the results that are bad only because of it.
    """
    moves_packets = any(result.check == EGRESS_CHECK for result in (*results, *affected))
    return (
        results[0].check not in _NEEDED_FIRST,
        not moves_packets,
        code is None,
        check_order(results[0].check),
        -len({(result.target, result.check) for result in affected}),
    )
