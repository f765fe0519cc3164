"""Every remedy of the catalogue is verified in a lab, and its rollback; or the diagnosis says why no command helps.

The labs are judged before: the remedies are verified from that saved result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from fixtures.check_runner import CheckRunner
from netns_lab.docker_engine.requirements import missing_requirement
from netns_lab.faults import FAULTS
from netns_lab.remedy_verification import verify_remedies
from tests.helpers.front_door import Finished, viacheck
from viacheck.cli.docs import all_checks
from viacheck.installation import CHECKS
from viacheck.model.result import Diagnosis, RemedyCheck, RunResult, Verdict, VerdictChange

NO_ENGINE = missing_requirement()
FILES = tuple(str(path) for path in sorted(CHECKS.glob("test_*.py")))
EVENTS = "FLAP-"
"""The ids of the checks that interrupt the network begin with this."""


def labs_with_a_fault(*, engine: bool, events: bool) -> list[str]:
    """Return the broken labs of one flavour whose fault shows at once, or only after an event."""
    return [
        f"{'engine:' if engine else ''}{lab}+{fault.name}"
        for fault in FAULTS.values()
        if (fault.flavour == "engine") == engine
        if all(check.startswith(EVENTS) for check in fault.breaks) == events
        for lab in fault.on
    ]


SEEN_AT_ONCE = labs_with_a_fault(engine=False, events=False)
SEEN_BY_EVENTS = labs_with_a_fault(engine=False, events=True)
OF_ENGINE = labs_with_a_fault(engine=True, events=False)
OF_ENGINE_BY_EVENTS = labs_with_a_fault(engine=True, events=True)
"""Only these labs go through events again after the remedy: events in every lab take a quarter hour."""
REPAIRED = {
    "policy-routing-ifupdown+nexthop-object": VerdictChange(check="FLAP-02", before=Verdict.FAIL, after=Verdict.PASS),
    "policy-routing-ifupdown+failover-script": VerdictChange(check="FLAP-06", before=Verdict.FAIL, after=Verdict.PASS),
    "policy-routing-networkd+foreign-route-purged": VerdictChange(
        check="FLAP-09", before=Verdict.FAIL, after=Verdict.PASS
    ),
}


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


@pytest.fixture(scope="module")
def run_results(matrix: Finished) -> list[RunResult]:
    saved = matrix.outcome
    return [verified(saved, SEEN_AT_ONCE, is_no_event), verified(saved, SEEN_BY_EVENTS, is_event)]


@pytest.fixture(scope="module")
def engine_run_results(tmp_path_factory: pytest.TempPathFactory) -> list[RunResult]:
    folder = tmp_path_factory.mktemp("engine")
    run_results: list[RunResult] = []
    for labs, checks, wanted in (
        (OF_ENGINE, "not FLAP", is_no_event),
        (OF_ENGINE_BY_EVENTS, "FLAP-04 or FLAP-05", lambda check: check in ("FLAP-04", "FLAP-05")),
    ):
        run = judged(labs, checks, folder / str(len(run_results)))
        run_results.append(verified(run.outcome, labs, wanted))
    return run_results


def judged(labs: list[str], checks: str, report_dir: Path) -> Finished:
    run = viacheck("--lab", ",".join(labs), "-n", "2", "-q", "-k", checks, report_dir=report_dir)
    assert run.exit_code in (0, 1), run.said
    return run


def diagnoses(run_results: list[RunResult], lab: str) -> dict[str, Diagnosis]:
    """Return the diagnoses of a lab by their code."""
    return {
        result.diagnosis.code: result.diagnosis
        for run_result in run_results
        for result in run_result.results
        if result.target == f"lab:{lab}" and result.diagnosis is not None and result.diagnosis.reported_by is None
    }


@pytest.mark.parametrize("lab", [*SEEN_AT_ONCE, *SEEN_BY_EVENTS])
def test_the_remedy_of_a_fault_is_verified(run_results: list[RunResult], lab: str) -> None:
    assert_verified(diagnoses(run_results, lab))


@pytest.mark.skipif(NO_ENGINE is not None, reason=str(NO_ENGINE))
@pytest.mark.parametrize("lab", [*OF_ENGINE, *OF_ENGINE_BY_EVENTS])
def test_the_remedy_of_a_fault_with_an_engine_is_verified(engine_run_results: list[RunResult], lab: str) -> None:
    assert_verified(diagnoses(engine_run_results, lab))


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


@pytest.mark.parametrize("lab", REPAIRED)
def test_a_fault_that_only_an_event_shows_is_repaired_by_commands(run_results: list[RunResult], lab: str) -> None:
    checks: list[RemedyCheck] = [
        diagnosis.remedy_check
        for diagnosis in diagnoses(run_results, lab).values()
        if diagnosis.remedy_check is not None
    ]
    assert any(REPAIRED[lab] in check.repaired for check in checks), [check.text for check in checks]
