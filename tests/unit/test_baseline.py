"""What counts as worse and as better than an accepted run."""

from __future__ import annotations

import pytest

from reports.baseline import compare_with_baseline
from tests.helpers.sample_outcomes import healthy, rule_missing
from viacheck.model.diagnosis_record import Diagnosis
from viacheck.model.result import RunResult, Waiver
from viacheck.model.verdict import Verdict

PASS, ADVISORY, FAIL = Verdict.PASS, Verdict.ADVISORY, Verdict.FAIL
UNPROVEN, NOT_RUN = Verdict.INCONCLUSIVE, Verdict.NOT_RUN


def with_verdict(verdict: Verdict, code: str | None = None) -> RunResult:
    """A run in which one check has a verdict."""
    outcome = healthy()
    result = next(result for result in outcome.results if result.check == "HOST-02")
    result.verdict = verdict
    result.diagnosis = Diagnosis(code=code, cause="why") if code else None
    return outcome


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (PASS, FAIL, "worse"),
        (PASS, UNPROVEN, "worse"),
        (PASS, ADVISORY, "worse"),
        (NOT_RUN, FAIL, "worse"),
        (NOT_RUN, ADVISORY, None),
        (FAIL, FAIL, None),
        (FAIL, UNPROVEN, "better"),
        (UNPROVEN, PASS, "better"),
        (PASS, NOT_RUN, "not judged"),
        (NOT_RUN, NOT_RUN, None),
    ],
)
def test_a_verdict_beside_the_accepted_verdict(before: Verdict, after: Verdict, kind: str | None) -> None:
    shifts = compare_with_baseline(with_verdict(before), with_verdict(after))
    assert [shift.kind for shift in shifts] == ([kind] if kind else [])


def test_another_cause_of_a_failure_is_worse() -> None:
    (shift,) = compare_with_baseline(with_verdict(FAIL, "LINK_DOWN"), with_verdict(FAIL, "UPLINK_MISSING"))
    assert shift.is_worse
    assert "fail (LINK_DOWN) -> fail (UPLINK_MISSING)" in str(shift)


def test_a_waived_failure_is_not_worse() -> None:
    outcome = rule_missing()
    for result in outcome.results:
        result.waiver = (
            Waiver.model_validate({"reason": "known", "until": "2026-12-31"}) if result.verdict.bad else None
        )
    assert not any(shift.is_worse for shift in compare_with_baseline(healthy(), outcome))
