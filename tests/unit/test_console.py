"""The console summary: short, copyable, and harmless to the terminal that shows it."""

from __future__ import annotations

import io
import re
from functools import cache
from pathlib import Path

import pytest

from reports.console import colour_wanted, summary
from reports.export.markdown import write
from reports.report_page import render
from tests.helpers.sample_outcomes import SAMPLES, many, mixed, rule_missing
from viacheck.model.diagnosis_record import Diagnosis, RemedyCheck, RemedyOutcome, VerdictChange
from viacheck.model.exit_status import ExitStatus
from viacheck.model.result import CheckResult, RunResult, exit_status, overall
from viacheck.model.verdict import Verdict

REPORT = Path("reports/out/latest/report.html")


@cache
def _sample(name: str) -> RunResult:
    return SAMPLES[name]()


def _lines(outcome: RunResult, *, width: int | None = 100, colour: bool = False) -> list[str]:
    return summary(outcome, REPORT, colour=colour, width=width).splitlines()


def test_four_healthy_labs_fit_in_25_lines() -> None:
    lines = _lines(many())
    assert len(lines) <= 25
    assert sum(line.startswith("PASS") for line in lines) == 4
    assert sum(line.startswith("FAIL_OPEN (ROUTE-07 on 4 targets): ") for line in lines) == 1
    assert lines[-1] == f"report: {REPORT}"


def test_commands_stand_on_a_line_each_and_are_never_wrapped() -> None:
    lines = _lines(rule_missing(), width=40)
    assert "       ip rule add priority 1000 from 172.17.0.0/16 lookup 200" in lines
    assert "       ip route flush cache" in lines
    assert "       ip rule del priority 1000 from 172.17.0.0/16 lookup 200" in lines


def test_a_cause_is_told_once_with_what_it_takes_along() -> None:
    lines = _lines(rule_missing())
    assert sum("RULE_MISSING" in line for line in lines) == 1
    assert "   also caused by this: ROUTE-05, EGRESS-01 (icmp, udp, tcp), EGRESS-02" in lines


def test_several_fixes_stand_in_the_order_in_which_to_type_them() -> None:
    outcome = rule_missing()
    link = next(result for result in outcome.results if result.check == "HOST-02")
    link.verdict, link.observed = Verdict.FAIL, "wlan0 is down"
    link.diagnosis = Diagnosis(code="UPLINK_DOWN", cause="wlan0 is down", remedy=["ip link set dev wlan0 up"])
    for result in outcome.results:
        if result.check == "EGRESS-01":
            result.verdict, result.diagnosis = Verdict.NOT_RUN, None
    lines = _lines(outcome)
    title = lines.index("Fix in this order")
    numbered = [line.split()[1] for line in lines[title:] if line[:2] in ("1.", "2.")]
    assert numbered == ["UPLINK_DOWN", "RULE_MISSING"], "the link first, although the rule explains more"


def two_fixes() -> RunResult:
    """A rule that is missing, with its persistent entry."""
    outcome = rule_missing()
    missing = next(result.diagnosis for result in outcome.results if result.check == "ROUTE-02")
    lost = next(result for result in outcome.results if result.check == "PERSIST-01")
    assert missing is not None
    lost.verdict = Verdict.FAIL
    lost.diagnosis = Diagnosis(code="NOT_PERSISTENT", cause="no rule in the files", remedy=["true"])
    missing.remedy_check = RemedyCheck(predicted=True)
    lost.diagnosis.remedy_check = RemedyCheck(predicted=False)
    return outcome


def test_each_of_several_fixes_says_what_it_achieves_alone() -> None:
    outcome = two_fixes()
    by_model = "   this fix alone: by the model, the agent's packets {} as intended"
    lines = _lines(outcome)
    assert lines.count(by_model.format("leave")) == lines.count(by_model.format("do not leave")) == 1
    repaired = [VerdictChange(check="ROUTE-02", before=Verdict.FAIL, after=Verdict.PASS)]
    together = RemedyOutcome(verdict="pass", repaired=repaired)
    alone = RemedyOutcome(verdict="fail", repaired=repaired)
    tried = RemedyCheck(verified=True, rollback_verified=True, alone=alone, together=together)
    diagnoses = [result.diagnosis for result in outcome.results if result.diagnosis and result.diagnosis.remedy_check]
    for order, diagnosis in enumerate(diagnoses, 1):
        diagnosis.remedy_check = tried.model_copy(update={"order": order})
    lines = _lines(outcome)
    assert lines.count("   this fix alone: verdict fail; repairs ROUTE-02 fail -> pass") == 2
    assert "all 2 fixes together, in this order: verdict pass; repairs ROUTE-02 fail -> pass" in lines
    page = render(outcome)
    assert page.count("This fix alone: verdict fail; repairs ROUTE-02 fail -&gt; pass.") == 2
    assert "All 2 fixes together, in this order: verdict pass; repairs ROUTE-02 fail -&gt; pass." in page
    assert "Fix in this order" in page
    assert "All 2 fixes together" in write(outcome)


def test_a_single_fix_says_nothing_of_others() -> None:
    outcome = rule_missing()
    diagnosis = next(result.diagnosis for result in outcome.results if result.check == "ROUTE-02")
    assert diagnosis is not None
    diagnosis.remedy_check = RemedyCheck(predicted=True)
    assert not any("alone" in line or "together" in line for line in _lines(outcome))


def test_what_will_hurt_is_to_be_fixed_first_where_something_fails_because_of_it() -> None:
    outcome = SAMPLES["healthy"]()
    leak = "wlan0 is set down and up again: 221 packets left by eth0"
    failed = next(result for result in outcome.results if result.diagnosis and result.check == "ROUTE-07").model_copy(
        update={"check": "FLAP-06", "verdict": Verdict.FAIL, "observed": leak}
    )
    assert failed.diagnosis is not None
    failed.diagnosis = failed.diagnosis.model_copy(update={"reported_by": "ROUTE-07"})
    results = [result for result in outcome.results if result.check != "FLAP-06"]
    lines = _lines(outcome.model_copy(update={"results": [*results, failed]}))
    assert "1. FAIL_OPEN (ROUTE-07)" in lines
    assert f"   seen by FLAP-06: {leak}" in lines
    assert "   also caused by this: FLAP-06" in lines
    assert not any(line.startswith("FAIL_OPEN (ROUTE-07") for line in lines)


def test_the_verdict_in_words_stands_under_each_target() -> None:
    lines = _lines(rule_missing())
    assert lines[0] == "FAIL  lab:policy-routing+rule-missing"
    assert (
        lines[1] == "  The agent's packets leave by eth0 instead of wlan0: 9 of 9 probes seen on eth0, none on wlan0."
    )


def test_what_could_not_be_proven_has_its_reason() -> None:
    text = " ".join(" ".join(_lines(SAMPLES["unproven"]())).split())
    assert "Could not be proven 1. EGRESS-01 the capture on eth0 lost 41 frames" in text


def test_an_event_without_a_diagnosis_is_said_once() -> None:
    outcome = SAMPLES["unproven"]()
    why = "the container cannot be restarted here"
    result = next(result for result in outcome.results if result.check == "EGRESS-01")
    event = result.model_copy(update={"check": "FLAP-04", "diagnosis": None, "observed": why, "evidence": []})
    lines = _lines(outcome.model_copy(update={"results": [result, event]}))
    assert "2. FLAP-04" in lines
    assert sum(why in line for line in lines) == 1


def test_what_was_not_run_says_what_would_make_it_run() -> None:
    lines = _lines(SAMPLES["healthy"]())
    assert "not run: 9 checks" in lines
    assert "  FLAP-01 to FLAP-08: it changes the target: --allow-disruptive" in lines
    assert "not applicable: 10 checks; the report says why" in lines


def test_an_interrupted_run_says_so_first() -> None:
    assert _lines(SAMPLES["interrupted"]())[0].startswith("This run was interrupted by SIGINT")


def test_a_run_without_targets_decided_nothing() -> None:
    outcome = rule_missing().model_copy(update={"targets": [], "results": []})
    assert _lines(outcome)[0] == "INCONCLUSIVE  Nothing was decided: no target was opened."


def test_without_a_terminal_nothing_is_cut_or_wrapped() -> None:
    lines = _lines(many(), width=None)
    whole = [line for line in lines if line.startswith("FAIL_OPEN (ROUTE-07 on 4 targets): ")]
    assert [line for line in lines if "…" in line] == []
    assert len(whole) == 1
    assert whole[0].endswith(".")
    assert any(line.startswith("PASS  lab:policy-routing-1: The agent's packets leave by wlan0: ") for line in lines)


def test_an_interface_that_the_site_file_does_not_name_is_named_in_the_verdict() -> None:
    outcome = rule_missing()
    del outcome.targets[0].intent["uplinks"]["eth0"]
    assert _lines(outcome, width=None)[1] == (
        "  The agent's packets leave by eth0 (not named in the site file) instead of wlan0: 9 of 9 probes seen on "
        "eth0, none on wlan0."
    )


def test_what_changed_meanwhile_stands_in_the_verdict_and_is_no_success() -> None:
    outcome = SAMPLES["healthy"]()
    assert exit_status(outcome) == ExitStatus.OK
    outcome.targets[0].alerts = ["the state changed during the run: + host route: 203.0.113.0/24"]
    assert _lines(outcome, width=None)[1].endswith(
        "0 frames lost. The state changed during the run: + host route: 203.0.113.0/24."
    )
    assert exit_status(outcome) == ExitStatus.FAILED


def test_with_strict_an_advisory_is_a_failure_in_every_place() -> None:
    outcome = SAMPLES["healthy"]()
    outcome.run.strict = True
    assert exit_status(outcome) == ExitStatus.FAILED
    outcome.targets[0].verdict = overall([result.verdict for result in outcome.results], strict=True)
    lines = _lines(outcome, width=None)
    assert lines[0].startswith("FAIL  ")
    assert " Advisories count as failures (--strict): " in lines[1]
    assert "Works now, at risk: counted as failures by --strict" in lines


@pytest.mark.parametrize("sample", SAMPLES)
def test_no_sample_steers_the_terminal(sample: str) -> None:
    text = summary(_sample(sample), REPORT, colour=False, width=80)
    assert [c for c in text if not c.isprintable() and c != "\n"] == []


@pytest.mark.parametrize("sample", SAMPLES)
def test_prose_keeps_within_the_width(sample: str) -> None:
    for line in _lines(_sample(sample), width=60):
        assert len(line) <= 60 or line.startswith("       ") or " " not in line.strip()[60:], line


def test_colour_adds_nothing_but_colour() -> None:
    plain, painted = (summary(rule_missing(), REPORT, colour=colour, width=80) for colour in (False, True))
    assert painted != plain
    assert re.sub(r"\x1b\[\d+m", "", painted) == plain


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        """Claim to be a terminal."""
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colour_wanted(_Terminal())
    assert not colour_wanted(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour_wanted(_Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not colour_wanted(_Terminal())


def test_with_several_targets_a_reason_names_the_target_that_has_it_and_a_check_is_counted_once() -> None:
    outcome = mixed()
    one, other = (target.id for target in outcome.targets[:2])
    outcome.targets = outcome.targets[:2]
    outcome.results = [
        CheckResult(check="FLAP-01", target=target, title="t", verdict=Verdict.NOT_RUN, observed=why)
        for target, why in ((one, "no root"), (other, "no engine"), (one, "asleep"), (other, "asleep"))
    ] + [CheckResult(check="HOST-02", target=target, title="t", verdict=Verdict.PASS) for target in (one, other)]
    lines = summary(outcome, None, colour=False, width=None).splitlines()
    assert "not run: 1 check" in lines
    assert {f"  FLAP-01 on {one}: no root", f"  FLAP-01 on {other}: no engine", "  FLAP-01: asleep"} <= set(lines)


def test_strict_prints_the_fixes_of_advisories_and_a_transcript_keeps_its_lines() -> None:
    outcome = rule_missing()
    for result in outcome.results:
        if result.verdict is Verdict.FAIL:
            result.verdict = Verdict.ADVISORY
    outcome.targets[0].notes = ["change.sh was run before the checks:\n+ ip rule add from 172.17.0.0/16 lookup 200"]
    lenient = summary(outcome, None, colour=False, width=None)
    assert "   fix:\n" not in lenient
    assert "  note: change.sh was run before the checks:\n    + ip rule add from 172.17.0.0/16 lookup 200\n" in lenient
    outcome.run.strict = True
    strict = summary(outcome, None, colour=False, width=None)
    assert "Works now, at risk: counted as failures by --strict\n1. RULE_MISSING (ROUTE-02)\n" in strict
    assert "   fix:\n       ip rule add" in strict
