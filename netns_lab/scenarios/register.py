"""The register of all scenarios by name, and the decorator that adds a scenario to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from netns_lab.draft import LabDraft
from netns_lab.plan import LabPlan


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario by name; a call makes its plan."""

    name: str
    title: str
    guide: str
    """The chapter of the guide."""
    describe: Callable[[LabDraft], LabPlan]

    def __call__(self) -> LabPlan:
        """Return a new plan."""
        return self.describe(LabDraft(self.name, self.title, self.guide))


SCENARIOS: dict[str, Scenario] = {}
BLANK: set[str] = set()
"""Scenarios to start from: their intent holds only after a person's own commands have run."""


def scenario(
    name: str, title: str, guide: str, *, blank: bool = False
) -> Callable[[Callable[[LabDraft], LabPlan]], Callable[[], LabPlan]]:
    """Register a scenario under its name; ``--lab list`` shows the guide's chapter."""

    def register(describe: Callable[[LabDraft], LabPlan]) -> Callable[[], LabPlan]:
        SCENARIOS[name] = Scenario(name, title, guide, describe)
        if blank:
            BLANK.add(name)
        return SCENARIOS[name]

    return register
