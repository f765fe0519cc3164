"""With pytest-xdist each target stays on one worker, in the order of the chapters."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.helpers.front_door import finished, viacheck
from tests.helpers.paths import ROOT

LABS = ("nat", "nat-multihomed", "policy-routing", "policy-routing-hardened")


def test_a_target_stays_on_one_worker_and_keeps_its_order(tmp_path: Path) -> None:
    alone = viacheck("--lab", ",".join(LABS), "-vv", "-k", "not FLAP", report_dir=tmp_path / "alone")
    done = viacheck("--lab", ",".join(LABS), "-vv", "-k", "not FLAP", "-n", "2", report_dir=tmp_path / "two")
    assert (alone.exit_code, done.exit_code) == (0, 0), done.said
    workers: dict[str, set[str]] = {}
    ran: dict[str, list[str]] = {}
    for worker, test, parameters in re.findall(r"^\[(gw\d)\].* (checks/\S+)\[(\S+)\]", done.stdout, re.MULTILINE):
        lab = re.sub(r"-(icmp|udp|tcp)$", "", parameters)
        workers.setdefault(lab, set()).add(worker)
        ran.setdefault(lab, []).append(f"{test}[{parameters}]")
    assert {lab: len(found) for lab, found in workers.items()} == dict.fromkeys(LABS, 1)
    assert len(set.union(*workers.values())) == 2
    for lab, tests in ran.items():
        assert tests == [test for test in re.findall(r"^(checks/\S+)", alone.stdout, re.MULTILINE) if test in tests], (
            lab
        )


def test_two_workers_find_what_one_process_finds(tmp_path: Path) -> None:
    labs = "policy-routing+rule-missing,policy-routing+mirrored-copy"
    alone = viacheck("--lab", labs, "-k", "not FLAP", report_dir=tmp_path / "alone").outcome
    two = viacheck("--lab", labs, "-k", "not FLAP", "-n", "2", report_dir=tmp_path / "two").outcome
    one, other = (
        {(r.target, r.check, r.case): (r.verdict, r.diagnosis.code if r.diagnosis else None) for r in outcome.results}
        for outcome in (alone, two)
    )
    assert one == other
    assert {target.id for target in alone.targets} == {target.id for target in two.targets}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core only")
def test_the_main_job_is_shared_among_the_cores_unless_it_is_told_not_to_be(tmp_path: Path) -> None:
    place = tmp_path / "shared"
    shared = finished([str(ROOT / "viacheck"), "-vv", "-k", "HOST-06", "--report-dir", str(place)], place)
    alone = viacheck("-vv", "-k", "HOST-06", "-n", "0", report_dir=tmp_path / "alone")
    assert (shared.exit_code, alone.exit_code) == (0, 0), shared.said
    assert len(set(re.findall(r"^\[(gw\d+)\]", shared.stdout, re.MULTILINE))) > 1
    assert not re.search(r"^\[gw\d+\]", alone.stdout, re.MULTILINE)
