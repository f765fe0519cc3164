"""The page of ``viacheck diff --html``: the differences between two runs."""

from __future__ import annotations

from collections.abc import Sequence

from reports import document
from reports.run_diff import RunDifference
from viacheck.model.result import RunResult


def render(before: RunResult, after: RunResult, differences: Sequence[RunDifference]) -> str:
    """Render the whole page."""
    by_target: dict[str, list[RunDifference]] = {}
    for difference in differences:
        by_target.setdefault(difference.target, []).append(difference)
    verdicts = bool(before.results and after.results)
    return (
        document.environment()
        .get_template("run_diff.html")
        .render(
            before=before.run,
            after=after.run,
            differences=differences,
            by_target=by_target,
            verdicts=verdicts,
            **document.style(),
        )
    )
