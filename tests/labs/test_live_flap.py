"""A live host's link is flapped only with both consents, under the guard, which restores the state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.hand_made import SITE, HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from viacheck.model.result import CheckResult, RunResult, TimelineEvidence, Verdict

CONSENTING = SITE.replace("schema = 1\n", "schema = 1\nallow_disruptive = true\n")


@pytest.fixture
def host() -> Iterator[HandMadeHost]:
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        yield host


def state(host: HandMadeHost) -> list[str]:
    """Return addresses, rules and the routes of every table, as ``ip`` prints them."""
    return [host.ip("-br address"), host.ip("rule"), host.ip("route show table all")]


def link_flap(outcome: RunResult) -> CheckResult:
    return next(result for result in outcome.results if result.check == "FLAP-01")


def test_the_flap_is_shown_and_the_host_restored(host: HandMadeHost, tmp_path: Path) -> None:
    before = state(host)
    site = write_site(tmp_path, CONSENTING)
    done = host.viacheck("--allow-disruptive", "-k", "FLAP-01", site=site, report_dir=tmp_path / "report")
    assert done.exit_code == 0, done.said
    flap = link_flap(done.outcome)
    assert flap.verdict is Verdict.ADVISORY, flap.observed
    assert "leak" in flap.observed
    assert any(isinstance(evidence, TimelineEvidence) for evidence in flap.evidence)
    assert "  wlan0: link down, then up" in done.stdout
    (target,) = done.outcome.targets
    assert any("the host was restored" in note and "equals its saved state" in note for note in target.notes)
    assert done.outcome.run.disruptive
    assert state(host) == before


def test_without_the_option_nothing_is_interrupted(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, CONSENTING)
    done = host.viacheck("-k", "FLAP-01 or ROUTE-02", site=site, report_dir=tmp_path / "report")
    flap = link_flap(done.outcome)
    assert (flap.verdict, flap.observed) == (
        Verdict.NOT_RUN,
        "it interrupts this host's network: add --allow-disruptive",
    )


def test_the_operators_own_session_is_not_cut(host: HandMadeHost, tmp_path: Path) -> None:
    site = write_site(tmp_path, CONSENTING)
    session = {"SSH_CONNECTION": "10.10.50.1 40000 10.10.50.9 22"}
    done = host.viacheck(
        "--allow-disruptive", "-k", "FLAP-01 or ROUTE-02", site=site, report_dir=tmp_path / "report", env=session
    )
    flap = link_flap(done.outcome)
    assert flap.verdict is Verdict.NOT_RUN
    assert "wlan0 carries the SSH session from 10.10.50.1" in flap.observed
    assert "--flap-management" in flap.observed
