"""Every remedy of the catalogue is verified in a lab, and its rollback; or the diagnosis says why no command helps.

The labs are judged before: the remedies are verified from that saved result. By default those of each fault are
verified on one of its scenarios, with ``--soak`` on each.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.front_door import Finished, viacheck
from tests.helpers.remedies import BrokenLabs, assert_verified, diagnoses, is_event, is_no_event, verified
from viacheck.model.diagnosis_record import RemedyCheck, VerdictChange
from viacheck.model.result import RunResult
from viacheck.model.verdict import Verdict

REPAIRED = {
    "policy-routing-ifupdown+nexthop-object": VerdictChange(check="FLAP-02", before=Verdict.FAIL, after=Verdict.PASS),
    "policy-routing-ifupdown+failover-script": VerdictChange(check="FLAP-06", before=Verdict.FAIL, after=Verdict.PASS),
    "policy-routing-networkd+foreign-route-purged": VerdictChange(
        check="FLAP-09", before=Verdict.FAIL, after=Verdict.PASS
    ),
}


def broken_labs(config: pytest.Config) -> BrokenLabs:
    return BrokenLabs.of(engine=False, every_scenario=config.option.soak)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "broken_lab" in metafunc.fixturenames:
        metafunc.parametrize("broken_lab", broken_labs(metafunc.config).names)


@pytest.fixture(scope="module")
def run_results(matrix: Finished, pytestconfig: pytest.Config) -> list[RunResult]:
    """Only labs whose fault an event shows go through events again: events in every lab take a quarter hour."""
    saved, labs = matrix.outcome, broken_labs(pytestconfig)
    return [verified(saved, labs.seen_at_once, is_no_event), verified(saved, labs.seen_by_events, is_event)]


def test_the_remedy_of_a_fault_is_verified(run_results: list[RunResult], broken_lab: str) -> None:
    assert_verified(diagnoses(run_results, broken_lab))


@pytest.mark.parametrize("lab", REPAIRED)
def test_a_fault_that_only_an_event_shows_is_repaired_by_commands(run_results: list[RunResult], lab: str) -> None:
    checks: list[RemedyCheck] = [
        diagnosis.remedy_check
        for diagnosis in diagnoses(run_results, lab).values()
        if diagnosis.remedy_check is not None
    ]
    assert any(REPAIRED[lab] in check.repaired for check in checks), [check.text for check in checks]


SEVERAL = "policy-routing+rule-missing+uplink-down"


def test_each_of_several_faults_is_repaired_alone_and_all_are_together(tmp_path: Path) -> None:
    chosen = "HOST-02 or ROUTE-02 or ROUTE-04 or EGRESS-01"
    run = viacheck("--lab", SEVERAL, "--mend-in-lab", "-q", "-k", chosen, report_dir=tmp_path)
    checks = {
        result.diagnosis.code: result.diagnosis.remedy_check
        for result in run.outcome.results
        if result.diagnosis is not None and result.diagnosis.reported_by is None
    }
    link, rule = checks["UPLINK_DOWN"], checks["RULE_MISSING"]
    assert link is not None
    assert rule is not None
    assert (link.order, rule.order) == (1, 2), "a route by the uplink needs the link"
    for check in (link, rule):
        assert (check.verified, check.rollback_verified) == (True, True), check.text
        assert check.alone is not None
        assert check.alone.verdict == "fail", "the other fault is still there"
        assert check.together is not None
        assert (check.together.verdict, check.together.worse) == ("pass", []), check.together.text
        assert {change.check for change in check.together.repaired} == {"HOST-02", "ROUTE-02", "ROUTE-04", "EGRESS-01"}
    assert run.said.index("1. UPLINK_DOWN") < run.said.index("2. RULE_MISSING")
    assert "all 2 fixes together, in this order: verdict pass" in run.said
