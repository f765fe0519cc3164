"""Verifies the remedies of labs that were judged before, from the saved result of that run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fixtures.check_runner import CheckRunner
from netns_lab.faults import FAULTS
from netns_lab.remedy_verification import verify_remedies
from viacheck.cli.docs import all_checks
from viacheck.installation import CHECKS
from viacheck.model.result import Diagnosis, RunResult

FILES = tuple(str(path) for path in sorted(CHECKS.glob("test_*.py")))
EVENTS = "FLAP-"
"""The ids of the checks that interrupt the network begin with this."""


def labs_with_a_fault(*, engine: bool, events: bool) -> list[str]:
    """Return the broken labs of one flavour whose fault shows at once, or only after an event."""
    return [
        f"{'engine:' if engine else ''}{lab}+{fault.name}"
        for fault in FAULTS.values()
        if fault.flavour in (("engine",) if engine else ("any", "netns"))
        if all(check.startswith(EVENTS) for check in fault.breaks) == events
        for lab in fault.on
    ]


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
