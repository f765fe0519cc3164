"""The matrix of labs: every scenario, and every fault on each of its scenarios, judged in one run.

Events take two thirds of a run's time. As a plugin of that run (``-p tests.helpers.fault_matrix``) this module leaves
them out where they show nothing, in labs and in their replicas. They run in every healthy lab, in every lab whose fault
breaks a check of events, and for each scenario in the lab of one other fault, which shows that such faults leave the
verdicts on events alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pytest

from netns_lab.faults import FAULTS
from netns_lab.scenarios import SCENARIOS

BROKEN = [f"{lab}+{fault.name}" for fault in FAULTS.values() if fault.flavour in ("any", "netns") for lab in fault.on]
LABS = [*SCENARIOS, *BROKEN]
ENGINE = [(lab, fault) for fault in FAULTS.values() if fault.flavour == "engine" for lab in fault.on]
"""Scenarios and the faults on them that need an engine."""
ENGINE_LABS = [
    *dict.fromkeys(f"engine:{lab}" for lab, _fault in ENGINE),
    *(f"engine:{lab}+{fault.name}" for lab, fault in ENGINE),
]
OPTIONS = ("-p", "tests.helpers.fault_matrix", "-n", "10", "-q")
"""More workers than cores: a lab mostly waits, for its events and for DHCP offers that must not come (10 s)."""
EVENTS = "FLAP-"
"""The ids of the checks of events begin so."""
SIDE_EVENTS, TWIN_WITH_SIDE_EVENTS = "FLAP-12", "twin:policy-routing"
"""Of the events of others a twin makes the VPN alone: one twin shows it."""
PRECEDE_EVENTS = {"EGRESS-01", "EGRESS-02", "EGRESS-03", "HOST-07"}
"""Where these checks fail, no event is made: the agent's packets must leave as intended before."""


def _labs_with_events() -> Iterator[str]:
    yield from SCENARIOS
    represented = set()
    for fault in FAULTS.values():
        for lab in fault.on if fault.flavour in ("any", "netns") else ():
            if any(check.startswith(EVENTS) for check in fault.breaks):
                yield f"{lab}+{fault.name}"
            elif lab not in represented and not fault.breaks & PRECEDE_EVENTS:
                represented.add(lab)
                yield f"{lab}+{fault.name}"


LABS_WITH_EVENTS = frozenset(_labs_with_events())


def labs_of_each_code(always: Collection[str]) -> list[str]:
    """Return every scenario, and a broken lab for each code of a diagnosis, in the order of the matrix.

    Args:
        always: names of faults whose labs are all among them.
    """
    codes: set[str] = set()
    labs = list(SCENARIOS)
    for lab in BROKEN:
        fault = FAULTS[lab.partition("+")[2]]
        if fault.name in always or not fault.diagnoses.keys() <= codes:
            labs.append(lab)
            codes |= fault.diagnoses.keys()
    return labs


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the checks of events out where the matrix does not need them."""
    needless = {item for item in items if _is_needless(item)}
    if needless:
        config.hook.pytest_deselected(items=list(needless))
        items[:] = [item for item in items if item not in needless]


def _is_needless(item: pytest.Item) -> bool:
    check = getattr(getattr(item, "function", None), "check", None)
    if check is None or not check.id.startswith(EVENTS):
        return False
    name = item.callspec.params["target"].name  # type: ignore[attr-defined]
    if check.id == SIDE_EVENTS and name.startswith("twin:"):
        return bool(name != TWIN_WITH_SIDE_EVENTS)
    return name.removeprefix("twin:") not in LABS_WITH_EVENTS
