"""Runs viacheck through its front door, as a person would, and reads what it leaves.

Most runs are forked from a process that has imported what they need (:mod:`tests.helpers.forked_runs`).
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from reports.report_files import read_outcome
from tests.helpers.forked_runs import run_python
from tests.helpers.paths import ROOT
from viacheck.cli.pytest_run import TEST_PLUGINS
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict

report_folders: list[Path] = []
"""Of the runs that this process has made for the current test."""
SEVERITY = {Verdict.ADVISORY: 1, Verdict.INCONCLUSIVE: 2, Verdict.FAIL: 3}


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    exit_code: int
    stdout: str
    stderr: str
    report_dir: Path

    @property
    def outcome(self) -> RunResult:
        """Its result.json."""
        return read_outcome(self.report_dir / "result.json")

    @property
    def said(self) -> str:
        """Both streams, for messages."""
        return f"exit {self.exit_code}\n{self.stdout}\n{self.stderr}"


VIACHECK = (sys.executable, "-I", "-m", "viacheck.cli.main")
"""The installed command, for the Python that runs the tests."""


def sub_command(
    *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a sub-command, and wait until it has ended."""
    return run_python([*VIACHECK, *map(str, arguments)], cwd=cwd, env=env, timeout=600)


def command(*arguments: str) -> list[str]:
    """The command line that ./viacheck hands to pytest."""
    return [sys.executable, "-P", "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT),
            *TEST_PLUGINS, "-p", "no:cacheprovider", str(ROOT / "checks"), *arguments]  # fmt: skip


def viacheck(
    *arguments: str, report_dir: Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Finished:
    """Run checks, and wait until they have ended."""
    return finished([*command(*arguments), "--report-dir", str(report_dir)], report_dir, cwd=cwd, env=env)


def finished(
    argv: Sequence[str], report_dir: Path, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Finished:
    """Run a command line that leaves a report, and wait until it has ended."""
    report_folders.append(report_dir)
    done = run_python(argv, cwd=cwd, env=env, timeout=1200)
    return Finished(done.returncode, done.stdout, done.stderr, report_dir)


def run_once(tmp_path_factory: pytest.TempPathFactory, name: str, run: Callable[[Path], Finished]) -> Finished:
    """Make a run that the workers of pytest-xdist share: the first worker makes it, the others wait and read it.

    Args:
        tmp_path_factory: pytest's.
        name: of the run, in the folder of the whole session.
        run: makes the run in a report directory.
    """
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    saved = session / f"{name}.json"
    with open(session / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not saved.exists():
            done = run(session / name)
            saved.write_text(json.dumps([done.exit_code, done.stdout, done.stderr]))
    exit_code, stdout, stderr = json.loads(saved.read_text())
    return Finished(exit_code, stdout, stderr, session / name)


def by_check(outcome: RunResult, target: str) -> dict[str, list[CheckResult]]:
    """The results of one target, by check."""
    found: dict[str, list[CheckResult]] = {}
    for result in outcome.results:
        if result.target == target:
            found.setdefault(result.check, []).append(result)
    return found


def severity(results: list[CheckResult]) -> int:
    """How bad a check is in its worst case: 0 for everything that is no reason to act."""
    return max((SEVERITY.get(result.verdict, 0) for result in results), default=0)
