"""A lossy uplink built by hand: a third of the answers is lost, and the loss is a figure with its interval."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from netns_lab.plan import RESOLVER
from tests.helpers.front_door import Finished
from tests.helpers.hand_made import SITE, apply_the_guides_recipe, hand_made_host, write_site
from tests.helpers.judgements import PASS, assert_saved_state_agrees
from viacheck.model.check_evidence import PacketsEvidence
from viacheck.model.result import CheckResult
from viacheck.model.verdict import Verdict

pytestmark = pytest.mark.skipif(shutil.which("nft") is None, reason="needs the package nftables")
GATEWAY = "gw1"
"""The namespace of wlan0's gateway."""


def judged(folder: Path, more: str = "") -> Finished:
    """Judge the guide's host while wlan0's gateway loses every third packet to the probe target."""
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        for command in (
            "add table ip lossy",
            "add chain ip lossy input { type filter hook input priority 0; }",
            # The agent's kernel resets each connection that a probe opened; those packets do not count.
            "add rule ip lossy input tcp flags & rst == rst accept",
            "add rule ip lossy input ip daddr 198.51.100.1 numgen inc mod 3 == 0 drop",
            f"add rule ip lossy input ip daddr {RESOLVER} numgen inc mod 3 == 0 drop",
        ):
            host.run("ip", "netns", "exec", GATEWAY, "nft", command)
        return host.viacheck(site=write_site(folder, SITE + more), report_dir=folder / "report")


def results_of(done: Finished) -> dict[str, list[CheckResult]]:
    """Return the results of a run by their check; none of them may be unexplained."""
    results: dict[str, list[CheckResult]] = {}
    for result in done.outcome.results:
        results.setdefault(result.check, []).append(result)
        assert result.diagnosis is None or result.diagnosis.code != "UNEXPLAINED", result
    return results


def test_a_third_lost_is_a_loss_with_its_figures(tmp_path: Path) -> None:
    done = judged(tmp_path)
    results = results_of(done)
    failed = {result.check for several in results.values() for result in several if result.verdict.bad}
    assert failed == {"EGRESS-03"}
    for result in results["EGRESS-03"]:
        (packets,) = (evidence for evidence in result.evidence if isinstance(evidence, PacketsEvidence))
        assert packets.loss is not None
        assert (packets.loss.sent, packets.sent) == (50, 50)
        assert 0.3 <= packets.loss.rate <= 0.38
        assert packets.loss.low < packets.loss.rate < packets.loss.high
        assert packets.latency is not None
        assert f"{packets.loss.lost} of 50 lost" in result.observed
        assert "round trip: median" in result.observed
        assert result.diagnosis is not None
        assert result.diagnosis.code == "PACKETS_LOST"
        assert "50 probes left by wlan0" in result.diagnosis.cause
    (queries,) = results["EGRESS-05"]
    assert queries.verdict is Verdict.PASS
    assert f"{RESOLVER}: 50 of 50 left by wlan0 (17 of 50 lost: 34 % (95 % interval: " in queries.observed
    # The gateway loses them, which is no part of the host: its bundle knows the loss of the run, its replica has none.
    assert_saved_state_agrees(
        done, in_bundle={"EGRESS-03": (Verdict.FAIL, "PACKETS_LOST")}, in_replica={"EGRESS-03": PASS},
        replica_notes=("what loses packets beyond the host is not reproduced here",),
    )  # fmt: skip


def test_the_site_file_says_how_much_may_be_lost(tmp_path: Path) -> None:
    results = results_of(judged(tmp_path, 'loss_allowed = "70%"\n'))
    assert {result.verdict for result in results["EGRESS-03"]} == {Verdict.PASS}
    assert not any(result.verdict.bad for several in results.values() for result in several)
