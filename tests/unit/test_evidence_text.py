"""What a log shows of a failing run: every bad result, with each line of its evidence."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.report_files import read_outcome
from tests.helpers import evidence_text
from tests.helpers.evidence_text import sections
from tests.helpers.paths import ROOT
from viacheck.model.check_evidence import CommandEvidence, TimelineEvent, TimelineEvidence
from viacheck.model.result import CheckResult, Run, RunResult
from viacheck.model.verdict import Verdict

RECORDED = ROOT / "tests" / "recorded"
MOMENT = "2026-01-01T00:00:00Z"


def flap(verdict: Verdict) -> CheckResult:
    marks = [(0.25, "event", "ip link set dev eth1 down"), (0.3, "lost", "seen on no egress interface")]
    events = [TimelineEvent(time=time, lane="eth1", what=what, mark=mark) for time, mark, what in marks]
    return CheckResult(
        check="FLAP-01", target="lab:nat", title="", verdict=verdict, expected="it is back", observed="it is\x1b gone",
        seconds=2.5, evidence=[
            TimelineEvidence(title="eth1 goes down", events=events, figures=["1 sent, 1 lost"]),
            CommandEvidence(command="ip route", exit_code=2, stdout="", stderr="no such device\n"),
        ],
    )  # fmt: skip


def text_of(*results: CheckResult) -> str:
    run = Run(id="", started=MOMENT, finished=MOMENT, command="")
    return evidence_text.evidence_text(RunResult(run=run, targets=[], results=list(results)))


def test_a_failure_is_shown_with_its_timeline_and_commands() -> None:
    text = text_of(flap(Verdict.FAIL))
    for line in (
        "FLAP-01 of lab:nat: fail, 2.5 s",
        "  observed: it is\u2039U+001B\u203a gone",
        "  timeline: eth1 goes down: 1 sent, 1 lost; unproven: {}",
        "    250.0 ms  step 1, eth1: ip link set dev eth1 down",
        "    300.0 ms  lost, eth1: seen on no egress interface",
    ):
        assert line in text.splitlines()
    assert '"stderr":"no such device\\n"' in text


def test_what_is_good_is_not_shown() -> None:
    assert text_of(flap(Verdict.PASS)) == ""


def test_a_long_text_says_how_much_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_text, "LARGEST", 20)
    text = text_of(flap(Verdict.INCONCLUSIVE))
    assert text.startswith("FLAP-01 of lab:nat: \n[")
    assert text.endswith(" characters left out]")


def test_a_failed_test_shows_the_runs_that_it_made(tmp_path: Path) -> None:
    broken, healthy = RECORDED / "result-rule-missing.json", RECORDED / "result-healthy.json"
    unreadable = tmp_path / "result.json"
    unreadable.write_text("{")
    ((title, text),) = sections([unreadable, tmp_path / "none.json", healthy, broken])
    assert str(broken) in title
    bad = [result for result in read_outcome(broken).results if result.verdict.bad]
    assert bad
    assert all(f"{result.check} " in text for result in bad)
