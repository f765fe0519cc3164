"""Every fault breaks exactly the checks that it declares, each with the declared diagnosis; a healthy lab breaks none.

All labs are judged through the front door, and the outcome is read from result.json. :mod:`tests.helpers.fault_matrix`
chooses the labs that go through events.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import pytest

from netns_lab.docker_engine.engine_builder import engine_intent
from netns_lab.docker_engine.requirements import missing_requirement
from netns_lab.faults import FAULTS
from netns_lab.scenarios import BLANK, SCENARIOS
from tests.helpers.evidence_text import evidence_lines
from tests.helpers.fault_matrix import ENGINE, EVENTS, LABS_WITH_EVENTS, PRECEDE_EVENTS
from tests.helpers.front_door import Finished, by_check, severity
from viacheck.cli.docs import all_checks
from viacheck.model.check import Check
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict

NETNS = [(lab, fault) for fault in FAULTS.values() if fault.flavour in ("any", "netns") for lab in fault.on]
HEALTHY = [lab for lab in SCENARIOS if lab not in BLANK]
NO_ENGINE = missing_requirement()


@pytest.fixture(scope="module")
def netns_outcome(matrix: Finished) -> RunResult:
    assert matrix.exit_code == 1, matrix.said
    return matrix.outcome


@pytest.fixture(scope="module")
def engine_outcome(engine_matrix: Finished) -> RunResult:
    assert engine_matrix.exit_code == 1, engine_matrix.said
    return engine_matrix.outcome


@pytest.mark.parametrize("lab", HEALTHY)
def test_a_healthy_lab_breaks_no_check(netns_outcome: RunResult, lab: str) -> None:
    bad = {check: results for check, results in by_check(netns_outcome, f"lab:{lab}").items() if severity(results) > 1}
    assert not bad, _evidence(bad.values())


@pytest.mark.parametrize(("lab", "name"), [(lab, fault.name) for lab, fault in NETNS])
def test_a_fault_breaks_what_it_declares(netns_outcome: RunResult, lab: str, name: str) -> None:
    _assert_declaration_holds(netns_outcome, lab, name, "")


@pytest.mark.skipif(NO_ENGINE is not None, reason=str(NO_ENGINE))
@pytest.mark.parametrize(("lab", "name"), [(lab, fault.name) for lab, fault in ENGINE])
def test_an_engine_fault_breaks_what_it_declares(engine_outcome: RunResult, lab: str, name: str) -> None:
    _assert_declaration_holds(engine_outcome, lab, name, "engine:")


def _assert_declaration_holds(outcome: RunResult, lab: str, name: str, flavour: str) -> None:
    fault = FAULTS[name]
    healthy = by_check(outcome, f"lab:{flavour}{lab}")
    broken = by_check(outcome, f"lab:{flavour}{lab}+{name}")
    assert broken, f"lab:{flavour}{lab}+{name} was not judged"
    # A fault may belong to labs of several modes; in each mode some of its checks do not apply.
    plan = SCENARIOS[lab]()
    intent = engine_intent(plan) if flavour else plan.intent
    breaks = {check.id for check in all_checks() if check.id in fault.breaks and check.applies.to(intent)}
    worse = {
        check
        for check, results in broken.items()
        if severity(results) > severity(healthy.get(check, [])) or (check in breaks and severity(results))
    }
    assert worse == breaks, _evidence(broken.get(check, []) for check in worse ^ breaks)
    codes = {
        (check, result.case): _code_of(result)
        for check in worse
        for result in broken[check]
        if result.verdict in (Verdict.FAIL, Verdict.ADVISORY)
    }
    for expected, checks in fault.diagnoses.items():
        assert {code for (check, _case), code in codes.items() if check in checks} == {expected}, codes
        reporting = {
            check
            for check in checks
            for result in broken[check]
            if result.diagnosis and not result.diagnosis.reported_by
        }
        assert len(reporting) == 1, f"one check must report the cause, not {reporting}"


def _evidence(results: Iterable[list[CheckResult]]) -> str:
    return "\n".join(line for result in chain.from_iterable(results) for line in evidence_lines(result))


def _code_of(result: CheckResult) -> str | None:
    return result.diagnosis.code if result.diagnosis else None


def test_every_fault_that_breaks_events_goes_through_them() -> None:
    breaking = [(lab, fault) for lab, fault in NETNS if any(check.startswith(EVENTS) for check in fault.breaks)]
    assert {f"{lab}+{fault.name}" for lab, fault in breaking} <= LABS_WITH_EVENTS


def test_a_fault_that_leaves_egress_alone_goes_through_events_on_each_scenario() -> None:
    faults = [(lab, f"{lab}+{fault.name}") for lab, fault in NETNS if not fault.breaks & PRECEDE_EVENTS]
    assert {lab for lab, _name in faults} == {lab for lab, name in faults if name in LABS_WITH_EVENTS}


@pytest.mark.parametrize("lab", sorted(LABS_WITH_EVENTS))
def test_a_lab_with_events_went_through_them(netns_outcome: RunResult, lab: str) -> None:
    checks = by_check(netns_outcome, f"lab:{lab}")
    assert {check.id for check in all_checks() if check.id.startswith(EVENTS)} <= checks.keys()


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.id)
def test_every_check_is_broken_by_a_fault(check: Check) -> None:
    breaking = [fault.name for fault in FAULTS.values() if check.id in fault.breaks]
    assert breaking, f"{check.id} cannot fail: no fault breaks it"
