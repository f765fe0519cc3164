"""The programs of packet filters on whole hosts of forky: their reloads are made for real, and so is what they break.

Run with ``--releases`` only: the base root of forky alone has these programs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from netns_lab.faults import FAULTS
from netns_lab.whole_host.base_root import BaseRoot
from netns_lab.whole_host.host_requirements import missing_for
from tests.helpers.front_door import by_check, severity, viacheck
from viacheck.model.result import CheckResult, Verdict

LAB = "host:policy-routing-networkd@forky"
ACTIVE = {
    # An engine makes its zone only if firewalld answers when it starts; systemctl does not wait for the answer.
    "firewalld-reload": (
        "systemctl enable --now firewalld.service\nfirewall-cmd --state\nsystemctl restart docker.service\n"
    ),
    # Saved while the engine runs, as the package does it when a person says yes.
    "netfilter-persistent-restart": (
        "systemctl enable --now netfilter-persistent.service\nnetfilter-persistent save\n"
    ),
}
"""By event, how its program comes to run on a healthy host."""
BROKEN = {"saved-rules-without-nat": "netfilter-persistent-restart", "zone-not-permanent": "firewalld-reload"}
"""By fault, the event that shows it."""
_MISSING = missing_for(BaseRoot("forky"))
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


def judged(folder: Path, lab: str, event: str, script: str = "") -> list[CheckResult]:
    """The results of FLAP-12 for an event, on a lab where a script was run first; nothing else may be worse."""
    folder.mkdir()
    (folder / "typed.sh").write_text(script)
    options = ("--apply", str(folder / "typed.sh")) if script else ()
    selected = f"FLAP-12 and {event} or not FLAP"
    run = viacheck("--lab", lab, *options, "-k", selected, report_dir=folder / "report")
    results = by_check(run.outcome, f"lab:{lab}")
    assert {check for check, cases in results.items() if severity(cases)} <= {"FLAP-12"}, run.said
    return results["FLAP-12"]


@pytest.mark.parametrize("event", ACTIVE)
def test_a_healthy_host_survives_the_reload(event: str, tmp_path: Path) -> None:
    (result,) = judged(tmp_path / "healthy", LAB, event, ACTIVE[event])
    assert result.verdict is Verdict.PASS, result


@pytest.mark.parametrize(("fault", "event"), BROKEN.items())
def test_a_reload_that_removes_what_the_agent_needs_is_named_and_its_remedy_mends(
    fault: str, event: str, tmp_path: Path
) -> None:
    lab = f"{LAB}+{fault}"
    (result,) = judged(tmp_path / "broken", lab, event)
    assert result.verdict is Verdict.FAIL, result
    assert result.diagnosis is not None
    assert result.diagnosis.code == FAULTS[fault].diagnosis
    remedy = "".join(f"{line}\n" for line in result.diagnosis.remedy)
    (mended,) = judged(tmp_path / "mended", lab, event, remedy)
    assert mended.verdict is Verdict.PASS, mended


def test_an_engine_that_started_before_firewalld_is_named_and_its_remedy_mends(tmp_path: Path) -> None:
    lab = f"{LAB}+engine-before-firewalld"
    broken = viacheck("--lab", lab, "-k", "not FLAP", report_dir=tmp_path / "broken")
    (cause,) = (r.diagnosis for r in broken.outcome.results if r.diagnosis and r.diagnosis.reported_by is None)
    assert cause.code == "FORWARD_DROPPED"
    assert "the engine started before firewalld answered" in cause.cause
    (tmp_path / "typed.sh").write_text("".join(f"{line}\n" for line in (*cause.remedy, *cause.remedy)))
    options = ("--apply", str(tmp_path / "typed.sh"), "-k", "not FLAP or FLAP-08")
    mended = viacheck("--lab", lab, *options, report_dir=tmp_path / "mended")
    assert mended.exit_code == 0, mended.said
