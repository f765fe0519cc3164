"""HOST-01 on recorded answers of real engines: the modes that each version allows, and the diagnosis for the others."""

from __future__ import annotations

import contextlib
import json

import pytest

from checks.test_host import test_the_engine_answers_and_allows_the_mode as host_01
from fixtures.check import check_of
from fixtures.expect import Expect
from tests.helpers.paths import RECORDED
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis import Cause, diagnose
from viacheck.model.check import Check
from viacheck.model.intent import Intent
from viacheck.model.intent_file import parse_intent
from viacheck.model.measurements import Measurements
from viacheck.model.namespace_state import NetworkState
from viacheck.model.result import CheckResult
from viacheck.model.snapshot import Snapshot
from viacheck.model.verdict import Verdict
from viacheck.parsers.docker_api import engine_from_answers

# What pytest would collect once more.
host_01.__test__ = False  # type: ignore[attr-defined]

ATTACH = {
    "nat": {"mode": "nat", "network": "bridge"},
    "macvlan": {
        "mode": "macvlan", "network": "macvlan0", "parent": "eth0", "subnet": "10.10.40.0/24", "gateway": "10.10.40.1",
    },
    "pipework-static": {
        "mode": "pipework-static", "parent": "eth0", "address": "10.10.40.200/24", "gateway": "10.10.40.1",
    },
    "pipework-dhcp": {"mode": "pipework-dhcp", "parent": "eth0"},
}  # fmt: skip


def intent(mode: str) -> Intent:
    document = {
        "schema": 1,
        "site": {"name": "recorded"},
        "agent": {"container": "te-agent", "attach": ATTACH[mode]},
        "uplinks": {"eth0": {"gateway": "10.10.40.1"}},
        "egress": {"uplink": "eth0"},
    }
    return parse_intent(document, source="test")


class Recorded:
    """A target of which nothing is known but what the engine said."""

    id = "recorded"

    def __init__(self, version: str, mode: str) -> None:
        answers = json.loads((RECORDED / f"engine-{version}.json").read_text())
        engine = engine_from_answers(answers["version"], answers["info"], answers["networks"], answers["container"])
        self.snapshot = Snapshot(
            taken="2026-01-01T00:00:00+00:00", hostname="recorded", kernel="6.1", host=NetworkState(),
            agent=NetworkState(), engine=engine,
        )  # fmt: skip
        self.intent = intent(mode)

    def cause_of(self, check: Check) -> Cause | None:
        """Why a check fails."""
        return diagnose(check.id, ResolvedIntent(self.intent, self.snapshot), Measurements())

    def judge(self) -> CheckResult:
        """Make HOST-01."""
        check = check_of(host_01)
        assert check is not None
        expect = Expect(check, self, None)
        with contextlib.suppress(pytest.fail.Exception):
            host_01(self.snapshot, self.intent, expect)
        assert expect.result is not None
        return expect.result


@pytest.mark.parametrize("version", ["1.12", "20.10", "26", "28", "29"])
def test_engines_from_1_12_on_can_do_macvlan(version: str) -> None:
    assert Recorded(version, "macvlan").judge().verdict is Verdict.PASS


@pytest.mark.parametrize("mode", ["nat", "pipework-static", "pipework-dhcp"])
@pytest.mark.parametrize("version", ["1.11.2", "1.12", "20.10", "26", "28", "29"])
def test_every_engine_can_do_nat_and_pipework(version: str, mode: str) -> None:
    assert Recorded(version, mode).judge().verdict is Verdict.PASS


def test_an_engine_before_1_12_is_too_old_and_pipework_is_the_way() -> None:
    result = Recorded("1.11.2", "macvlan").judge()
    assert result.verdict is Verdict.FAIL
    assert result.diagnosis is not None
    assert result.diagnosis.code == "ENGINE_TOO_OLD"
    assert "1.11.2" in result.diagnosis.cause
    assert "1.12" in result.diagnosis.cause
    (remedy,) = result.diagnosis.remedy
    assert remedy.startswith("pipework eth0 te-agent 10.10.40.")
    assert remedy.endswith("/24@10.10.40.1")


def test_a_rootless_engine_cannot_do_macvlan_whatever_its_version() -> None:
    result = Recorded("rootless", "macvlan").judge()
    assert result.verdict is Verdict.FAIL
    assert result.diagnosis is not None
    assert result.diagnosis.code == "ENGINE_TOO_OLD"
    assert "rootless" in result.diagnosis.cause
    assert "rootless" in result.observed


def test_a_rootless_engine_does_nat() -> None:
    assert Recorded("rootless", "nat").judge().verdict is Verdict.PASS
