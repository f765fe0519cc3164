"""Packet filters of real hosts, typed by hand with iptables and nft: the verdict names the rule, and the fix holds.

Each is judged on the live host, from its bundle and in its replica (the later ones of the file with ``--soak`` alone).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.front_door import Finished
from tests.helpers.hand_made import HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from tests.helpers.judgements import PASS, assert_bundle_and_replica_agree, assert_saved_state_agrees, judgements
from viacheck.model.result import CheckResult, RunResult

pytestmark = pytest.mark.skipif(
    not (shutil.which("iptables") and shutil.which("nft")), reason="iptables and nft are not installed"
)
JUDGED = "forwards or source_nat or packets_leave or answers"


@pytest.fixture(scope="module")
def host() -> Iterator[HandMadeHost]:
    with hand_made_host() as made:
        apply_the_guides_recipe(made)
        yield made


@pytest.fixture
def docker_user(host: HandMadeHost) -> Iterator[HandMadeHost]:
    """The host with Docker's chain for the operator's own rules."""
    host.run("iptables", "-N", "DOCKER-USER")
    host.run("iptables", "-A", "DOCKER-USER", "-j", "RETURN")
    host.run("iptables", "-I", "FORWARD", "-j", "DOCKER-USER")
    yield host
    host.run("iptables", "-F")
    host.run("iptables", "-X")


def judged(host: HandMadeHost, folder: Path) -> RunResult:
    return run(host, folder).outcome


def run(host: HandMadeHost, folder: Path) -> Finished:
    folder.mkdir(exist_ok=True)
    return host.viacheck("-k", JUDGED, site=write_site(folder), report_dir=folder / "report")


def only(outcome: RunResult, check: str) -> CheckResult:
    return next(result for result in outcome.results if result.check == check)


def code(outcome: RunResult, check: str) -> str | None:
    diagnosis = only(outcome, check).diagnosis
    return diagnosis.code if diagnosis else None


def test_dockers_own_lock_down_drops_the_answers(docker_user: HandMadeHost, tmp_path: Path) -> None:
    lock_down = ("DOCKER-USER", "-i", "wlan0", "!", "-s", "10.10.50.0/24", "-j", "DROP")
    docker_user.run("iptables", "-I", *lock_down)
    done = run(docker_user, tmp_path)
    outcome = done.outcome
    assert only(outcome, "EGRESS-01").verdict == "pass"
    assert code(outcome, "HOST-04") == code(outcome, "EGRESS-03") == "FORWARD_DROPPED"
    diagnosis = only(outcome, "HOST-04").diagnosis
    assert diagnosis is not None
    assert "10.10.50.0/24" in diagnosis.cause
    assert "of chain DOCKER-USER of table filter" in diagnosis.cause
    assert "drops the agent's answers" in diagnosis.cause
    before = docker_user.run("iptables-save")
    for line in diagnosis.remedy:
        docker_user.run("sh", "-c", line)
    assert "-I DOCKER-USER -d 172.17.0.0/16" in diagnosis.remedy[0]
    mended = judged(docker_user, tmp_path / "mended")
    assert {only(mended, check).verdict for check in ("HOST-04", "EGRESS-01", "EGRESS-03")} == {"pass"}
    for line in diagnosis.undo:
        docker_user.run("sh", "-c", line)
    assert rules_of(docker_user.run("iptables-save")) == rules_of(before)
    assert_saved_state_agrees(done)


def test_the_fix_goes_before_a_drop_that_docker_user_does_not_precede(
    docker_user: HandMadeHost, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    docker_user.run("iptables", "-I", "FORWARD", "-i", "docker0", "-p", "tcp", "--dport", "1:65535", "-j", "DROP")
    docker_user.run("iptables", "-I", "FORWARD", "-i", "lo", "-j", "ACCEPT")
    done = run(docker_user, tmp_path)
    diagnosis = only(done.outcome, "HOST-04").diagnosis
    assert diagnosis is not None
    assert diagnosis.code == "FORWARD_DROPPED"
    assert diagnosis.remedy == ["iptables -I FORWARD 2 -s 172.17.0.0/16 -j ACCEPT"]
    if pytestconfig.option.soak:
        assert_saved_state_agrees(done)


def test_a_rule_that_cannot_be_read_is_no_pass(docker_user: HandMadeHost, tmp_path: Path) -> None:
    docker_user.run("iptables", "-I", "DOCKER-USER", "-m", "u32", "--u32", "0&0xFF=0x7F", "-j", "DROP")
    done = run(docker_user, tmp_path)
    result = only(done.outcome, "HOST-04")
    assert result.verdict == "inconclusive"
    assert "u32" in result.observed
    # A replica cannot hold the rule, and its notes say so.
    assert_bundle_and_replica_agree(
        done, judgements(done), tmp_path / "saved", in_replica={"HOST-04": PASS}, replica_notes=("u32",)
    )


def test_an_accept_before_the_masquerade_is_the_cause(
    host: HandMadeHost, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    host.run(
        "iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "172.17.0.0/16", "!", "-o", "docker0", "-j", "MASQUERADE"
    )
    host.run("nft", "delete", "table", "inet", "nat")
    host.run(
        "iptables", "-t", "nat", "-I", "POSTROUTING", "-s", "172.16.0.0/12", "-d", "198.51.100.0/24", "-j", "ACCEPT"
    )
    done = run(host, tmp_path)
    diagnosis = only(done.outcome, "NAT-02").diagnosis
    assert diagnosis is not None
    assert diagnosis.code == "MASQUERADE_MISSING"
    excluding = "POSTROUTING -s 172.16.0.0/12 -d 198.51.100.0/24 -j ACCEPT"
    assert f"the rule '-A {excluding}'" in diagnosis.cause
    assert diagnosis.remedy == [f"iptables -t nat -D {excluding}"]
    before = host.run("iptables-save", "-t", "nat")
    host.run("sh", "-c", diagnosis.remedy[0])
    assert only(judged(host, tmp_path / "mended"), "NAT-02").verdict == "pass"
    host.run("sh", "-c", diagnosis.undo[0])
    assert rules_of(host.run("iptables-save", "-t", "nat")) == rules_of(before)
    host.run("iptables", "-t", "nat", "-D", *excluding.split())
    if pytestconfig.option.soak:
        assert_saved_state_agrees(done)


def rules_of(saved: str) -> list[str]:
    return [line for line in saved.splitlines() if line.startswith("-A")]
