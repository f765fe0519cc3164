"""A person's own checks: the example of the documentation, run from another folder in a healthy and a broken lab."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.front_door import VIACHECK, Finished, by_check, finished, sub_command
from tests.helpers.paths import ROOT
from viacheck.model.verdict import Verdict

EXAMPLE = ROOT / "docs" / "examples" / "own-checks"
REMARK = (
    "nft add table ip remark\nnft add chain ip remark out '{ type filter hook postrouting priority mangle; }'\n"
    "nft add rule ip remark out oifname wlan0 ip dscp set cs1\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A person's folder, with the example in ``mychecks``."""
    shutil.copytree(EXAMPLE, tmp_path / "mychecks")
    return tmp_path


def run(folder: Path, *arguments: str) -> Finished:
    report = folder / "report"
    return finished([*VIACHECK, *arguments, "--report-dir", str(report)], report, cwd=folder)


@pytest.mark.parametrize("path", ["mychecks", "mychecks/", "./mychecks/test_dscp.py"])
def test_a_persons_folder_replaces_the_checks(folder: Path, path: str) -> None:
    done = run(folder, "--lab", "policy-routing", path)
    assert done.exit_code == 0, done.said
    results = by_check(done.outcome, "lab:policy-routing")
    assert {check: [result.verdict for result in of_check] for check, of_check in results.items()} == {
        "DSCP-01": [Verdict.PASS], "MTU-01": [Verdict.PASS],
    }  # fmt: skip
    assert results["DSCP-01"][0].observed == "3 packets on wlan0, DSCP [0]"


def test_a_check_of_a_person_fails_for_a_reason_of_its_own(folder: Path) -> None:
    (folder / "remark.sh").write_text(REMARK)
    done = run(folder, "--lab", "policy-routing", "--apply", "remark.sh", "mychecks")
    assert done.exit_code == 1, done.said
    (result,) = by_check(done.outcome, "lab:policy-routing")["DSCP-01"]
    assert (result.verdict, result.observed) == (Verdict.FAIL, "3 packets on wlan0, DSCP [8]")


def test_own_chapters_stand_after_ours_in_the_report(folder: Path) -> None:
    selection = ("--lab", "policy-routing", "-k", "HOST-02 or FLAP-03 or DSCP-01")
    done = run(folder, *selection, str(ROOT / "checks"), "mychecks")
    assert done.exit_code == 0, done.said
    assert [result.check for result in done.outcome.results] == ["HOST-02", "FLAP-03", "DSCP-01"]
    page = (done.report_dir / "report.html").read_text()
    assert page.index("HOST-02") < page.index("DSCP-01")


def test_a_folder_named_first_is_no_command(folder: Path) -> None:
    done = run(folder, "mychecks", "--lab", "nat", "--collect-only", "-q")
    assert "test_dscp_is_unchanged[nat]" in done.stdout
    assert "EGRESS" not in done.stdout


def test_an_id_of_another_form_is_refused_with_the_form(folder: Path) -> None:
    path = folder / "mychecks" / "test_dscp.py"
    path.write_text(path.read_text().replace("DSCP-01", "dscp one"))
    done = run(folder, "--lab", "nat", "mychecks")
    assert done.exit_code != 0
    assert "check id 'dscp one': allowed: WORD-NN, such as DSCP-01" in done.stdout


def test_a_missing_folder_is_one_line(folder: Path) -> None:
    done = sub_command("--lab", "nat", "nowhere/", cwd=folder)
    assert done.returncode == 4
    assert done.stderr.strip() == "ERROR: file or directory not found: nowhere/"


def test_a_file_that_cannot_be_imported_is_a_wrong_input_and_no_interrupt(folder: Path) -> None:
    (folder / "mychecks" / "test_broken.py").write_text("import no_such_module\n")
    done = sub_command("--lab", "nat", "mychecks", "--report-dir", "report", cwd=folder)
    assert done.returncode == 4
    assert "No module named 'no_such_module'" in done.stdout
    assert "SIGINT" not in done.stdout
