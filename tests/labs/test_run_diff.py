"""What changed between two runs: verdicts and state, in words; nothing when nothing did."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from tests.helpers.front_door import Finished, sub_command, viacheck

NO_ENGINE = missing_requirement()


def diff(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return sub_command("diff", *words)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return viacheck("--lab", "policy-routing", "-q", report_dir=tmp_path_factory.mktemp("healthy"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return viacheck("--lab", "policy-routing+rule-missing", "-q", report_dir=tmp_path_factory.mktemp("broken"))


def test_a_lost_rule_shows_in_verdicts_and_state(healthy: Finished, broken: Finished, tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    done = diff(healthy.report_dir / "result.json", broken.report_dir / "result.json", "--html", page)
    assert done.returncode == 1
    assert "ROUTE-02 changed from pass to fail (RULE_MISSING).\n" in done.stdout
    assert "The host's rule priority 32765 from 172.17.0.0/16 lookup 200 is gone.\n" in done.stdout
    assert "priority 32765 from 172.17.0.0/16 lookup 200" in page.read_text()


def test_a_run_does_not_differ_from_itself(healthy: Finished) -> None:
    result = healthy.report_dir / "result.json"
    done = diff(result, result)
    assert (done.returncode, done.stdout) == (0, "no change: the same verdicts, and the same state\n")


def test_what_is_no_result_is_told_in_one_line(healthy: Finished, tmp_path: Path) -> None:
    done = diff(healthy.report_dir / "result.json", tmp_path / "absent.json")
    assert done.returncode == 4
    assert done.stderr == f"viacheck diff: {tmp_path}/absent.json: cannot be read: No such file or directory\n"


@pytest.mark.skipif(NO_ENGINE is not None, reason=str(NO_ENGINE))
def test_two_boots_of_one_host_are_no_change(tmp_path: Path) -> None:
    """A new engine draws names of veths, MAC addresses and process ids, as the host's next boot would."""
    boots = [
        viacheck("--lab", "engine:policy-routing", "-q", "-k", "HOST-02", report_dir=tmp_path / name)
        for name in ("first", "second")
    ]
    veths = [{link["name"] for link in (boot.outcome.targets[0].snapshot or {})["host"]["links"]} for boot in boots]
    assert veths[0] != veths[1]
    done = diff(*(boot.report_dir / "result.json" for boot in boots))
    assert (done.returncode, done.stdout) == (0, "no change: the same verdicts, and the same state\n")
