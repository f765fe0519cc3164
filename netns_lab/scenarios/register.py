"""The register of all scenarios by name, and how one is entered there."""

from __future__ import annotations

from collections.abc import Callable

from netns_lab.draft import LabDraft
from netns_lab.plan import LabPlan

SCENARIOS: dict[str, Callable[[], LabPlan]] = {}
BLANK: set[str] = set()
"""Scenarios that are there to start from: their intent does not hold before a person's own commands are run."""


def scenario(
    name: str, title: str, guide: str, *, blank: bool = False
) -> Callable[[Callable[[LabDraft], LabPlan]], Callable[[], LabPlan]]:
    """Register a scenario under its name. The guide's chapter is shown by ``--lab list``."""

    def register(describe: Callable[[LabDraft], LabPlan]) -> Callable[[], LabPlan]:
        def plan() -> LabPlan:
            return describe(LabDraft(name, title, guide))

        SCENARIOS[name] = plan
        if blank:
            BLANK.add(name)
        return plan

    return register
