"""What a run shows while it goes on: a line for each lab, a bar on a terminal, and with -v a line for each check."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from tests.helpers.front_door import command, viacheck
from tests.helpers.terminal import at_a_terminal

LABS = ("--lab", "nat,policy-routing+rule-missing")
SELECTION = (*LABS, "-k", "ROUTE or HOST")


def rows(text: str) -> list[str]:
    """The lines of single checks."""
    return [line for line in text.splitlines() if re.match(r"[A-Z]+-\d\d ", line)]


def test_a_lab_is_a_line_that_counts_its_verdicts_and_nothing_is_cut(tmp_path: Path) -> None:
    done = viacheck(*SELECTION, report_dir=tmp_path / "report")
    assert rows(done.stdout) == []
    (nat,) = (line for line in done.stdout.splitlines() if line.startswith("nat "))
    cases = Xml.fromstring((done.report_dir / "junit.xml").read_text()).iter("testcase")
    classes = {case.attrib["classname"] for case in cases}
    assert {"lab:nat.HOST", "lab:policy-routing+rule-missing.ROUTE"} <= classes, "Jenkins shows a package for each lab"
    assert nat.split(maxsplit=2)[:2] == ["nat", "pass"]
    assert re.search(r" \d+ pass, \d+ not-applicable$", nat)
    (broken,) = (line for line in done.stdout.splitlines() if line.startswith("policy-routing+rule-missing "))
    assert re.search(r" fail +2 fail, 1 advisory, \d+ pass, ", broken)
    assert "\r" not in done.stdout
    assert "…" not in done.stdout
    assert any(len(line) > 120 for line in done.stdout.splitlines())


def test_rows_with_v_are_not_cut_either(tmp_path: Path) -> None:
    done = viacheck(*SELECTION, "-v", report_dir=tmp_path / "report")
    shown = rows(done.stdout)
    assert len(shown) == len(done.outcome.results)
    (route,) = (line for line in shown if line.startswith("ROUTE-05") and "rule-missing" in line)
    (result,) = (r for r in done.outcome.results if r.check == "ROUTE-05" and r.target.endswith("rule-missing"))
    assert route.endswith(f"fail  {result.observed}")


def test_on_a_terminal_a_bar_says_how_much_is_done_and_what_takes_long(tmp_path: Path) -> None:
    columns = 100
    argv = command(*LABS, "-k", "ROUTE or FLAP-01", "--report-dir", str(tmp_path / "report"))
    _status, written = at_a_terminal(argv, columns=columns)
    bars = re.findall(r"\r\x1b\[K(\[[#.]{20}\] [^\r\x1b]+)", written)
    first = re.match(r"\[\.+\] 0 of (\d+) checks", bars[0])
    assert first is not None, bars
    assert any(bar.startswith(f"[{'#' * 20}] {first[1]} of {first[1]} checks") for bar in bars)
    assert max(map(len, bars)) < columns
    # The default route of this lab does not come back, which takes all of egress.recover_within to know.
    assert any(re.search(r" nat: FLAP-01: .*, \d s$| nat: FLAP-01: .*…$", bar) for bar in bars), bars
    plain = re.sub(r"\x1b\[[\d;]*[mK]", "", written).replace("\r", "\n")
    assert re.search(r"^nat +pass +1 advisory, ", plain, re.MULTILINE)
    summary = plain.partition("\nPASS  lab:nat")[2]
    assert max(len(line) for line in summary.splitlines() if not line.startswith("       ")) <= columns


@pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_a_selection_of_no_check_is_said(processes: tuple[str, ...], tmp_path: Path) -> None:
    done = viacheck("--lab", "nat", "-k", "EGRES-01", *processes, report_dir=tmp_path / "report")
    assert done.exit_code == 1
    assert "-k 'EGRES-01' selects no check; did you mean EGRESS-01?" in done.stdout, done.said
    assert not (tmp_path / "report" / "result.json").exists()


def test_with_strict_an_advisory_ends_the_run_as_a_failure(tmp_path: Path) -> None:
    selection = ("--lab", "policy-routing", "-k", "ROUTE-07")
    assert viacheck(*selection, report_dir=tmp_path / "lenient").exit_code == 0
    done = viacheck(*selection, "--strict", report_dir=tmp_path / "strict")
    assert (done.exit_code, done.outcome.targets[0].verdict, done.outcome.run.strict) == (1, "fail", True)
    assert "1 failed" in done.stdout.splitlines()[-1]
    suites = Xml.fromstring((done.report_dir / "junit.xml").read_text())
    (case,) = suites.iter("testcase")
    failure = case.find("failure")
    assert (case.attrib["classname"], failure is not None and failure.get("type")) == ("ROUTE", "FAIL_OPEN")
    assert "fix: ip route add unreachable" in str(failure is not None and failure.text)
