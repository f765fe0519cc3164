"""The register of all scenarios by name, and the decorator that adds a scenario to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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


Flavour = Literal["netns", "engine", "host", "vm"]

SCENARIOS: dict[str, Scenario] = {}
"""Scenarios that run in namespaces, with or without a Docker engine."""
WHOLE_HOSTS: dict[str, Scenario] = {}
"""Scenarios that run as a whole host with an init of its own; some of them are in SCENARIOS too."""
PODMAN_ONLY: dict[str, Scenario] = {}
"""Scenarios that only podman can run: Docker has no network of their kind."""
VIRTUAL_MACHINES: dict[str, Scenario] = {}
"""Scenarios that need another kernel, which a virtual machine boots."""
BLANK: set[str] = set()
"""Scenarios to start from: their intent holds only after a person's own commands have run."""


def scenario(
    name: str,
    title: str,
    guide: str,
    *,
    blank: bool = False,
    flavours: tuple[Flavour, ...] = ("netns", "engine"),
    podman_only: bool = False,
) -> Callable[[Callable[[LabDraft], LabPlan]], Callable[[], LabPlan]]:
    """Register a scenario under its name; ``--lab list`` shows the guide's chapter."""

    def register(describe: Callable[[LabDraft], LabPlan]) -> Callable[[], LabPlan]:
        registered = Scenario(name, title, guide, describe)
        if podman_only:
            PODMAN_ONLY[name] = registered
        elif "netns" in flavours:
            SCENARIOS[name] = registered
        if "host" in flavours:
            WHOLE_HOSTS[name] = registered
        if "vm" in flavours:
            VIRTUAL_MACHINES[name] = registered
        if blank:
            BLANK.add(name)
        return registered

    return register
