"""Every remedy of the catalogue is verified in a lab, and its rollback; or the diagnosis says why no command helps.

The labs are judged before: the remedies are verified from that saved result.
"""

from __future__ import annotations

import pytest

from tests.helpers.front_door import Finished
from tests.helpers.remedies import assert_verified, diagnoses, is_event, is_no_event, labs_with_a_fault, verified
from viacheck.model.result import RemedyCheck, RunResult, Verdict, VerdictChange

SEEN_AT_ONCE = labs_with_a_fault(engine=False, events=False)
SEEN_BY_EVENTS = labs_with_a_fault(engine=False, events=True)
"""Only these labs go through events again after the remedy: events in every lab take a quarter hour."""
REPAIRED = {
    "policy-routing-ifupdown+nexthop-object": VerdictChange(check="FLAP-02", before=Verdict.FAIL, after=Verdict.PASS),
    "policy-routing-ifupdown+failover-script": VerdictChange(check="FLAP-06", before=Verdict.FAIL, after=Verdict.PASS),
    "policy-routing-networkd+foreign-route-purged": VerdictChange(
        check="FLAP-09", before=Verdict.FAIL, after=Verdict.PASS
    ),
}


@pytest.fixture(scope="module")
def run_results(matrix: Finished) -> list[RunResult]:
    saved = matrix.outcome
    return [verified(saved, SEEN_AT_ONCE, is_no_event), verified(saved, SEEN_BY_EVENTS, is_event)]


@pytest.mark.parametrize("lab", [*SEEN_AT_ONCE, *SEEN_BY_EVENTS])
def test_the_remedy_of_a_fault_is_verified(run_results: list[RunResult], lab: str) -> None:
    assert_verified(diagnoses(run_results, lab))


@pytest.mark.parametrize("lab", REPAIRED)
def test_a_fault_that_only_an_event_shows_is_repaired_by_commands(run_results: list[RunResult], lab: str) -> None:
    checks: list[RemedyCheck] = [
        diagnosis.remedy_check
        for diagnosis in diagnoses(run_results, lab).values()
        if diagnosis.remedy_check is not None
    ]
    assert any(REPAIRED[lab] in check.repaired for check in checks), [check.text for check in checks]
