"""The register of all scenarios by name, and the decorator that adds a scenario to it."""

from __future__ import annotations

from collections.abc import Callable

from netns_lab.draft import LabDraft
from netns_lab.plan import LabPlan

SCENARIOS: dict[str, Callable[[], LabPlan]] = {}
BLANK: set[str] = set()
"""Scenarios to start from: their intent holds only after a person's own commands have run."""


def scenario(
    name: str, title: str, guide: str, *, blank: bool = False
) -> Callable[[Callable[[LabDraft], LabPlan]], Callable[[], LabPlan]]:
    """Register a scenario under its name; ``--lab list`` shows the guide's chapter."""

    def register(describe: Callable[[LabDraft], LabPlan]) -> Callable[[], LabPlan]:
        def plan() -> LabPlan:
            return describe(LabDraft(name, title, guide))

        SCENARIOS[name] = plan
        if blank:
            BLANK.add(name)
        return plan

    return register
