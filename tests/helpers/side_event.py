"""One event of others on a whole host: judged through the front door, and again after what a person types."""

from __future__ import annotations

from pathlib import Path

from netns_lab.faults import FAULTS
from tests.helpers.front_door import by_check, severity, viacheck
from viacheck.model.result import CheckResult
from viacheck.model.verdict import Verdict


def judged(folder: Path, lab: str, event: str, script: str = "") -> CheckResult:
    """The result of FLAP-12 for an event, on a lab where a script was run first; nothing else may be worse.

    FLAP-09 is among them: the restart of systemd-networkd must not hide what a reload would show.
    """
    folder.mkdir()
    (folder / "typed.sh").write_text(script)
    options = ("--apply", str(folder / "typed.sh")) if script else ()
    selected = f"FLAP-12 and {event} or FLAP-09 or not FLAP"
    run = viacheck("--lab", lab, *options, "-k", selected, report_dir=folder / "report")
    results = by_check(run.outcome, f"lab:{lab}")
    assert {check for check, cases in results.items() if severity(cases)} <= {"FLAP-12"}, run.said
    (result,) = (case for case in results["FLAP-12"] if case.case == event)
    return result


def assert_named_and_mended(folder: Path, lab: str, event: str, typed: str = "") -> None:
    """An event fails on a lab with a fault, and passes with the remedy as printed, or with what a person decides."""
    result = judged(folder / "broken", lab, event)
    assert result.verdict is Verdict.FAIL, result
    cause = result.diagnosis
    assert cause is not None
    assert cause.code == FAULTS[lab.partition("+")[2]].diagnosis
    assert bool(cause.remedy) != bool(typed), cause
    remedy = typed or "".join(f"{line}\n" for line in cause.remedy)
    mended = judged(folder / "mended", lab, event, remedy)
    assert mended.verdict is Verdict.PASS, mended
