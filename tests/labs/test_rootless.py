"""Labs as an ordinary user: viacheck starts itself again in a user namespace, or says in one line why it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.front_door import Finished, command, finished
from tests.helpers.hand_made import NOBODY, nobodys_folder
from tests.helpers.paths import ROOT
from viacheck.model.result import Verdict

AS_NOBODY = (*NOBODY, "sh", "-c", 'exec "$@"', "sh")
"""setpriv(1) would start a program with its own rights; sh starts it with nobody's."""
NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


@dataclass(frozen=True)
class Interpreter:
    """A Python that an ordinary user may start, with what it needs to find the libraries."""

    path: str
    environment: Mapping[str, str]


def _interpreter() -> Interpreter | None:
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for one in (
        Interpreter(sys.executable, {}),
        Interpreter(system, {"PYTHONPATH": sysconfig.get_path("purelib")}),
    ):
        disruption_result = [*AS_NOBODY, one.path, "-P", "-c", "import pytest, pydantic, pyroute2, scapy"]
        if (
            subprocess.run(
                disruption_result, env={**os.environ, **one.environment}, capture_output=True, check=False
            ).returncode
            == 0
        ):
            return one
    return None


def _forbidden() -> str | None:
    """Why nothing can be tried here as an ordinary user; None when it can."""
    if os.geteuid() != 0:
        return "needs root, to become somebody who is not"
    if subprocess.run([*AS_NOBODY, "test", "-r", str(ROOT / "conftest.py")], check=False).returncode != 0:
        return f"{ROOT} cannot be read by ordinary users"
    if INTERPRETER is None:
        return "no Python with the libraries can be started by ordinary users"
    unshare = [*AS_NOBODY, "unshare", "--user", "--map-root-user", "--net", "--mount", "true"]
    if subprocess.run(unshare, capture_output=True, check=False).returncode != 0:
        return "ordinary users get no user namespaces here"
    return None


INTERPRETER = _interpreter() if os.geteuid() == 0 else None
REASON = _forbidden()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of nobody's. pytest's own are for their owner alone."""
    with nobodys_folder() as folder:
        yield folder


def as_nobody(argv: Sequence[str], place: Path, path: str | None = None) -> Finished:
    """Run a Python command line as nobody; the report goes to ``place``."""
    assert INTERPRETER is not None
    environment = {**INTERPRETER.environment, "HOME": str(place)}
    if path is not None:
        environment["PATH"] = path
    return finished([*AS_NOBODY, INTERPRETER.path, *argv[1:]], place / "report", cwd=place, env=environment)


def checks(place: Path, *arguments: str) -> list[str]:
    return command(*arguments, "--report-dir", str(place / "report"))


def words(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "viacheck.cli.main", *arguments]


def without(program: str, place: Path, script: str) -> str:
    """A PATH on which a program is one that does something else."""
    folder = place.parent / "bin"
    folder.mkdir()
    (folder / program).write_text(f"#!/bin/sh\n{script}\n")
    (folder / program).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_every_netns_lab_is_judged_as_by_root(place: Path) -> None:
    done = as_nobody(checks(place), place)
    assert done.exit_code == 0, done.said
    verdicts = {(r.target, r.check, r.case): r.verdict for r in done.outcome.results}
    proven = {target for target, check, _case in verdicts if check == "EGRESS-01"}
    assert {"lab:nat", "lab:nat-multihomed", "lab:policy-routing", "lab:policy-routing-hardened"} <= proven
    assert {verdict for (_t, check, _c), verdict in verdicts.items() if check == "EGRESS-01"} == {Verdict.PASS}


def test_a_fault_is_found_as_by_root(place: Path) -> None:
    done = as_nobody(checks(place, "--lab", "policy-routing+rule-missing", "-n", "2"), place)
    assert done.exit_code == 1, done.said
    assert "RULE_MISSING (ROUTE-02)" in done.stdout


@pytest.mark.skipif(shutil.which("ifup") is None, reason="ifupdown is not installed")
def test_what_is_written_is_run_as_by_root(place: Path) -> None:
    done = as_nobody(checks(place, "--lab", "policy-routing-ifupdown", "-k", "PERSIST-02"), place)
    (result,) = done.outcome.results
    assert result.verdict is Verdict.PASS, result.observed
    assert "3 cycles of ifdown and ifup of wlan0: rules 2, 2, 2, 2" in result.observed


def test_what_lies_in_the_callers_directory_is_not_imported_on_the_second_start(place: Path) -> None:
    (place / "json.py").write_text("raise SystemExit('imported from the caller')")
    assert as_nobody(checks(place, "--lab", "nat"), place).exit_code == 0


def test_a_shell_works_too(place: Path) -> None:
    argv = words("shell", "policy-routing", "sh", "-c", "id -u; ip rule; agent ip route get 198.51.100.1")
    assert INTERPRETER is not None
    known = INTERPRETER.environment.get("PYTHONPATH")
    done = finished(
        [*AS_NOBODY, INTERPRETER.path, *argv[1:]], place, cwd=place,
        env={**INTERPRETER.environment, "PYTHONPATH": f"{ROOT}:{known}" if known else str(ROOT)},
    )  # fmt: skip
    assert done.exit_code == 0, done.said
    assert done.stdout.startswith("0\n")
    assert "from 172.17.0.0/16 lookup wlan0rt" in done.stdout
    assert "198.51.100.1 via 172.17.0.1 dev eth0 src 172.17.0.2" in done.stdout


@pytest.mark.parametrize("reason", ["unshare: unshare failed: Operation not permitted", ""], ids=["told", "silent"])
def test_where_the_system_forbids_it_one_line_says_so_and_what_to_do(place: Path, reason: str) -> None:
    path = without("unshare", place, f"[ -z '{reason}' ] || echo '{reason}' >&2; exit 1")
    done = as_nobody(checks(place, "--lab", "nat"), place, path)
    assert (done.exit_code, done.stdout) == (4, ""), done.said
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("ERROR: labs need root or user namespaces, and this system forbids the latter")
    assert reason in line
    assert "run as root, or allow them (sysctl kernel.unprivileged_userns_clone=1" in line


def test_an_engine_lab_is_not_run_for_want_of_root(place: Path) -> None:
    done = as_nobody(checks(place, "--lab", "engine:nat"), place)
    assert done.exit_code == 1
    assert {r.verdict for r in done.outcome.results} == {Verdict.NOT_RUN}
    (reason,) = {r.observed for r in done.outcome.results}
    assert "this is root of a user namespace only" in reason
    assert " ".join(done.stdout.split()).count(reason) == 1, done.stdout


def test_root_without_capabilities_decides_nothing_and_the_reason_is_told_once(tmp_path: Path) -> None:
    report_dir = tmp_path / "report"
    argv = command("--lab", "nat,policy-routing", "--report-dir", str(report_dir))
    done = finished([*NO_CAPABILITIES, *argv], report_dir)
    assert done.exit_code == 1, done.said
    assert {r.verdict for r in done.outcome.results} == {Verdict.INCONCLUSIVE}
    summary = done.stdout.partition("\nINCONCLUSIVE")[2]
    assert summary.count("labs need root or user namespaces") == 2, done.stdout
    assert "Traceback" not in done.said
    page = (report_dir / "report.html").read_text()
    assert "Nothing was decided" in page
