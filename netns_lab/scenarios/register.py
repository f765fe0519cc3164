"""The register of all scenarios by name, and how one is entered there."""

from __future__ import annotations

from collections.abc import Callable

from netns_lab.plan import Draft, LabPlan

SCENARIOS: dict[str, Callable[[], LabPlan]] = {}


def scenario(name: str, title: str, guide: str) -> Callable[[Callable[[Draft], LabPlan]], Callable[[], LabPlan]]:
    """Register a scenario under its name. The guide's chapter is shown by ``--lab list``."""

    def register(describe: Callable[[Draft], LabPlan]) -> Callable[[], LabPlan]:
        def plan() -> LabPlan:
            return describe(Draft(name, title, guide))

        SCENARIOS[name] = plan
        return plan

    return register
