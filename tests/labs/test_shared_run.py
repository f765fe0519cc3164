"""A run that is shared among processes: each target stays in one, in the order of the chapters, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import process_plugin
from tests.helpers.front_door import Finished, finished, viacheck
from tests.helpers.paths import ROOT
from tests.helpers.process_plugin import PLUGIN, ran_by_process
from viacheck.model.verdict import Verdict

LABS = ("nat", "nat-multihomed", "policy-routing", "policy-routing-hardened")
TWO_CORES = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core only")


def run(folder: Path, *arguments: str, killed_at: str | None = None) -> tuple[Finished, dict[int, list[str]]]:
    """Make a run; return it, and the tests that each of its processes ran."""
    folder.mkdir()
    file = folder / "processes"
    environment = {process_plugin.WRITTEN_TO: str(file)} | ({process_plugin.KILLED_AT: killed_at} if killed_at else {})
    done = viacheck(*PLUGIN, *arguments, report_dir=folder / "report", env=environment)
    return done, ran_by_process(file)


def test_a_target_stays_in_one_process_and_keeps_its_order(tmp_path: Path) -> None:
    labs = ("--lab", ",".join(LABS), "-k", "not FLAP")
    alone, in_one = run(tmp_path / "alone", *labs)
    done, in_two = run(tmp_path / "two", *labs, "-n", "2")
    assert (alone.exit_code, done.exit_code) == (0, 0), done.said
    ((order,), of_two) = in_one.values(), list(in_two.values())
    assert len(of_two) == 2
    for lab in LABS:
        marks = (f"[{lab}]", f"[{lab}-icmp]", f"[{lab}-udp]", f"[{lab}-tcp]")
        wanted = [test for test in order if test.endswith(marks)]
        assert [[test for test in ran if test.endswith(marks)] for ran in of_two].count([]) == 1, lab
        assert [test for ran in of_two for test in ran if test.endswith(marks)] == wanted, lab


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    labs = "policy-routing+rule-missing,policy-routing+mirrored-copy"
    alone = viacheck("--lab", labs, "-k", "not FLAP", report_dir=tmp_path / "alone").outcome
    two = viacheck("--lab", labs, "-k", "not FLAP", "-n", "2", report_dir=tmp_path / "two").outcome
    one, other = (
        {(r.target, r.check, r.case): (r.verdict, r.diagnosis.code if r.diagnosis else None) for r in outcome.results}
        for outcome in (alone, two)
    )
    assert one == other
    assert {target.id for target in alone.targets} == {target.id for target in two.targets}


@TWO_CORES
def test_the_main_job_is_shared_among_the_cores_unless_it_is_told_not_to_be(tmp_path: Path) -> None:
    place, file = tmp_path / "shared", tmp_path / "processes"
    argv = [str(ROOT / "viacheck"), *PLUGIN, "-k", "HOST-06", "--report-dir", str(place)]
    shared = finished(argv, place, env={process_plugin.WRITTEN_TO: str(file)})
    alone, in_one = run(tmp_path / "alone", "-k", "HOST-06", "-n", "0")
    assert (shared.exit_code, alone.exit_code) == (0, 0), shared.said
    assert len(ran_by_process(file)) > 1
    assert len(in_one) == 1


def test_the_run_ends_at_the_first_failure_where_that_is_asked_for(tmp_path: Path) -> None:
    """Pytest's own ``-x``: the other processes end after their present check, and close their labs."""
    labs = "nat+forward-dropped,nat-multihomed,policy-routing,policy-routing-hardened"
    done, ran = run(tmp_path / "run", "--lab", labs, "-k", "not FLAP", "-x", "-n", "2")
    assert done.exit_code == 1, done.said
    assert sum(map(len, ran.values())) < 4 * 30
    assert "lab:nat+forward-dropped" in {result.target for result in done.outcome.results if result.verdict.bad}


@pytest.mark.parametrize(
    ("killed", "judged"), [("nat-multihomed", set(LABS) - {"nat-multihomed"}), ("nat", set())],
    ids=["another one goes on", "none is left"],
)  # fmt: skip
def test_a_process_that_is_killed_is_reported_and_its_target_is_not_judged(
    killed: str, judged: set[str], tmp_path: Path
) -> None:
    labs = ("--lab", ",".join(LABS), "-k", "HOST", "-n", "2")
    # The first two labs are the processes' first ones: "nat" is a part of both names.
    done, _ran = run(tmp_path / "run", *labs, killed_at=f"default_exit[{killed}")
    assert done.exit_code == 1, done.said
    assert f"the process that judged it ended by signal {signal.SIGKILL.value}" in done.said
    assert "Traceback" not in done.said
    targets = {target.id.removeprefix("lab:"): target for target in done.outcome.targets}
    assert {name: target.verdict for name, target in targets.items()} == {
        lab: "pass" if lab in judged else "inconclusive" for lab in LABS
    }
    for name, target in targets.items():
        assert len([note for note in target.notes if "not judged" in note]) == (name not in judged), target.notes
        assert len(target.notes) == len(set(target.notes))


def test_a_warning_of_a_check_is_reported(tmp_path: Path) -> None:
    own = tmp_path / "test_own.py"
    own.write_text(
        "import warnings\nfrom viacheck import check\n\n"
        "@check('MARK-01', 'A warning')\ndef test_own(expect):\n"
        "    warnings.warn('look here')\n    expect.holds(True, expected='x', observed='x')\n"
    )
    done = viacheck("--lab", "nat,policy-routing", "-n", "2", str(own), "-k", "MARK", report_dir=tmp_path / "report")
    assert done.exit_code == 0, done.said
    assert done.stdout.count("UserWarning: look here") == 1, done.stdout
    assert {result.verdict for result in done.outcome.results} == {Verdict.PASS}


def test_two_processes_do_not_mix_what_their_checks_print(tmp_path: Path) -> None:
    own = tmp_path / "test_own.py"
    own.write_text(
        "from viacheck import check\n\n@check('MARK-01', 'Prints')\ndef test_own(expect, target):\n"
        "    print('of', target.id * 3000)\n    assert False\n"
    )
    done = viacheck(
        "--lab", "nat,policy-routing", "-n", "2", str(own), "-k", "MARK", "-v", report_dir=tmp_path / "report"
    )
    assert done.exit_code == 1
    for name in ("nat", "policy-routing"):
        assert done.stdout.count(f"of {f'lab:{name}' * 3000}\n") == 1


def test_workers_of_xdist_are_refused(tmp_path: Path) -> None:

    argv = [sys.executable, "-m", "pytest", "checks", "--lab", "nat", "-n", "2", "--report-dir", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "ERROR: -n: each worker of pytest-xdist would build every lab; add '-p no:xdist'\n" in done.stderr
