"""The package as users get it: built from the sdist, installed in an empty venv, run far from the checkout.

Needs hatchling (in the extra ``tests``) and no package index: by a ``.pth`` file the venv borrows the libraries of the
Python that runs the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from reports.report_files import read_outcome
from tests.helpers.paths import ROOT
from viacheck import __version__
from viacheck.model.verdict import Verdict

OFFLINE = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def succeed(argv: Sequence[object], cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(
        [str(word) for word in argv], cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    succeed([sys.executable, "-I", "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)], ROOT)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    pip = [sys.executable, "-I", "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", "wheel", sdist]
    succeed(pip, sdist.parent, OFFLINE)
    (archive,) = (sdist.parent / "wheel").glob("*.whl")
    return archive


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``viacheck`` command of a venv with the wheel in it."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    succeed([sys.executable, "-I", "-m", "venv", "--without-pip", venv], wheel.parent)
    pip = [sys.executable, "-I", "-m", "pip", "--python", venv / "bin" / "python"]
    succeed([*pip, "install", "--no-deps", wheel], wheel.parent, OFFLINE)
    (packages,) = venv.glob("lib/python3*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv / "bin" / "viacheck"


def test_the_wheel_holds_one_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"viacheck", f"viacheck-{__version__}.dist-info"}
    tree = {name.split("/")[2] for name in names if name.startswith("viacheck/tree/")}
    assert tree == {"checks", "fixtures", "netns_lab", "reports", "conftest.py", "pyproject.toml"}
    for needed in ("viacheck/bundle/collect.sh", "viacheck/py.typed", "viacheck/tree/reports/templates/report.html"):
        assert needed in names
    assert not [name for name in names if "__pycache__" in name or "/reports/out" in name]


def test_the_sdist_holds_what_a_checkout_holds(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"viacheck", "README.md", "constraints.txt", "docs/own-checks.md", "tests/labs/test_package.py"} <= names
    assert not [name for name in names if name.startswith(("reports/out", ".venv"))]


def test_an_installed_command_checks_a_lab_and_reports_in_the_callers_folder(installed: Path, tmp_path: Path) -> None:
    assert succeed([installed, "--version"], tmp_path) == f"viacheck {__version__}\n"
    succeed([installed, "--lab", "policy-routing"], tmp_path)
    outcome = read_outcome(tmp_path / "viacheck-reports" / "latest" / "result.json")
    assert {r.verdict for r in outcome.results if r.check == "EGRESS-01"} == {Verdict.PASS}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["viacheck-reports"]


def test_workers_and_remedies_of_an_installed_command_run_its_own_files(installed: Path, tmp_path: Path) -> None:
    selection = ["--lab", "nat,policy-routing+rule-missing", "-k", "ROUTE or EGRESS-01", "-n", "2"]
    argv = [str(installed), *selection, "--mend-in-lab"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stdout + done.stderr
    outcome = read_outcome(tmp_path / "viacheck-reports" / "latest" / "result.json")
    (diagnosis,) = (r.diagnosis for r in outcome.results if r.check == "ROUTE-02" and r.diagnosis is not None)
    assert diagnosis.code == "RULE_MISSING"
    assert "fix verified" in done.stdout


def test_the_sub_commands_of_an_installed_command(installed: Path, tmp_path: Path) -> None:
    assert "from 172.17.0.0/16 lookup wlan0rt" in succeed(
        [installed, "shell", "policy-routing", "ip", "rule"], tmp_path
    )
    assert "on wire    by eth0" in succeed([installed, "explain", "--lab", "nat", "--to", "203.0.113.9"], tmp_path)
    assert __version__ in succeed([installed, "collect-script"], tmp_path)
    assert "policy-routing" in succeed([installed, "--lab", "list"], tmp_path)
    refused = subprocess.run([str(installed), "docs"], cwd=tmp_path, capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.count("\n")) == (4, 1)
    assert list(tmp_path.iterdir()) == []
