"""The page of ``./viacheck diff --html``: two runs side by side, and what is not the same."""

from __future__ import annotations

from collections.abc import Sequence

from reports import document
from reports.run_diff import Difference
from viacheck.model.result import Outcome


def render(before: Outcome, after: Outcome, differences: Sequence[Difference]) -> str:
    """Render the whole page."""
    by_target: dict[str, list[Difference]] = {}
    for one in differences:
        by_target.setdefault(one.target, []).append(one)
    verdicts = bool(before.results and after.results)
    return (
        document.environment()
        .get_template("comparison.html")
        .render(
            before=before.run,
            after=after.run,
            differences=differences,
            by_target=by_target,
            verdicts=verdicts,
            **document.style(),
        )
    )
