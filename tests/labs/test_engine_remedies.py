"""Every remedy of a fault that needs a Docker engine is verified in a lab with an engine, and its rollback."""

from __future__ import annotations

from pathlib import Path

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from tests.helpers.front_door import Finished, viacheck
from tests.helpers.remedies import assert_verified, diagnoses, is_no_event, labs_with_a_fault, verified
from viacheck.model.result import RunResult

NO_ENGINE = missing_requirement()
SEEN_AT_ONCE = labs_with_a_fault(engine=True, events=False)
SEEN_BY_EVENTS = labs_with_a_fault(engine=True, events=True)


@pytest.fixture(scope="module")
def run_results(tmp_path_factory: pytest.TempPathFactory) -> list[RunResult]:
    folder = tmp_path_factory.mktemp("engine")
    run_results: list[RunResult] = []
    for labs, checks, wanted in (
        (SEEN_AT_ONCE, "not FLAP", is_no_event),
        (SEEN_BY_EVENTS, "FLAP-04 or FLAP-05", lambda check: check in ("FLAP-04", "FLAP-05")),
    ):
        run = judged(labs, checks, folder / str(len(run_results)))
        run_results.append(verified(run.outcome, labs, wanted))
    return run_results


def judged(labs: list[str], checks: str, report_dir: Path) -> Finished:
    run = viacheck("--lab", ",".join(labs), "-n", "2", "-q", "-k", checks, report_dir=report_dir)
    assert run.exit_code in (0, 1), run.said
    return run


@pytest.mark.skipif(NO_ENGINE is not None, reason=str(NO_ENGINE))
@pytest.mark.parametrize("lab", [*SEEN_AT_ONCE, *SEEN_BY_EVENTS])
def test_the_remedy_of_a_fault_is_verified(run_results: list[RunResult], lab: str) -> None:
    assert_verified(diagnoses(run_results, lab))
