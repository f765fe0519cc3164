"""Verifies the remedies of labs that were judged before, from the saved result of that run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fixtures.check_runner import CheckRunner
from netns_lab.faults import FAULTS
from netns_lab.remedy_verification import verify_remedies
from viacheck.cli.docs import all_checks
from viacheck.installation import CHECKS
from viacheck.model.diagnosis_record import Diagnosis
from viacheck.model.result import RunResult

FILES = tuple(str(path) for path in sorted(CHECKS.glob("test_*.py")))
EVENTS = "FLAP-"
"""The ids of the checks that interrupt the network begin with this."""


@dataclass(frozen=True)
class BrokenLabs:
    """The broken labs of one flavour whose remedies are verified."""

    seen_at_once: list[str]
    seen_by_events: list[str]
    """Their faults show only after an event."""

    @classmethod
    def of(cls, *, engine: bool, every_scenario: bool) -> BrokenLabs:
        """Return a lab for each fault, by turns on one of its scenarios; or one on every scenario."""
        labs: dict[bool, list[str]] = {False: [], True: []}
        flavours = ("engine",) if engine else ("any", "netns")
        for number, fault in enumerate(fault for fault in FAULTS.values() if fault.flavour in flavours):
            scenarios = fault.on if every_scenario else (fault.on[number % len(fault.on)],)
            shown_by_events = all(map(is_event, fault.breaks))
            labs[shown_by_events] += [f"{'engine:' if engine else ''}{lab}+{fault.name}" for lab in scenarios]
        return cls(labs[False], labs[True])

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [*self.seen_at_once, *self.seen_by_events]


def verified(saved: RunResult, labs: Iterable[str], wanted: Callable[[str], bool]) -> RunResult:
    """Verify the remedies of some labs of a saved result, as far as the wanted checks show them."""
    targets = {f"lab:{lab}" for lab in labs}
    part = saved.model_copy(
        update={
            "targets": [target for target in saved.targets if target.id in targets],
            "results": [result for result in saved.results if result.target in targets and wanted(result.check)],
        }
    )
    verify_remedies(part, CheckRunner(FILES, frozenset(check.id for check in all_checks() if wanted(check.id))))
    return part


def is_event(check: str) -> bool:
    return check.startswith(EVENTS)


def is_no_event(check: str) -> bool:
    return not check.startswith(EVENTS)


def diagnoses(run_results: list[RunResult], lab: str) -> dict[str, Diagnosis]:
    """Return the diagnoses of a lab by their code."""
    return {
        result.diagnosis.code: result.diagnosis
        for run_result in run_results
        for result in run_result.results
        if result.target == f"lab:{lab}" and result.diagnosis is not None and result.diagnosis.reported_by is None
    }


def assert_verified(of_lab: dict[str, Diagnosis]) -> None:
    assert of_lab
    for code, diagnosis in of_lab.items():
        check = diagnosis.remedy_check
        assert check is not None, code
        if check.obstacle is None:
            assert (check.verified, check.rollback_verified) == (True, True), f"{code}: {check.text}"
            assert diagnosis.mend == check.text
        else:
            assert (check.verified, check.rollback_verified) == (None, None), f"{code}: {check.text}"
            assert check.reason is not None, f"{code}: why does no command repair it?"
