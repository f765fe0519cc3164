"""Every remedy of a fault that needs a Docker engine is verified in a lab with an engine, and its rollback.

The labs are judged before: the remedies are verified from that saved result.
"""

from __future__ import annotations

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from tests.helpers.front_door import Finished
from tests.helpers.remedies import assert_verified, diagnoses, is_no_event, labs_with_a_fault, verified
from viacheck.model.result import RunResult

NO_ENGINE = missing_requirement()
SEEN_AT_ONCE = labs_with_a_fault(engine=True, events=False)
SEEN_BY_EVENTS = labs_with_a_fault(engine=True, events=True)


@pytest.fixture(scope="module")
def run_results(engine_matrix: Finished) -> list[RunResult]:
    saved = engine_matrix.outcome
    return [
        verified(saved, SEEN_AT_ONCE, is_no_event),
        verified(saved, SEEN_BY_EVENTS, lambda check: check in ("FLAP-04", "FLAP-05")),
    ]


@pytest.mark.skipif(NO_ENGINE is not None, reason=str(NO_ENGINE))
@pytest.mark.parametrize("lab", [*SEEN_AT_ONCE, *SEEN_BY_EVENTS])
def test_the_remedy_of_a_fault_is_verified(run_results: list[RunResult], lab: str) -> None:
    assert_verified(diagnoses(run_results, lab))
