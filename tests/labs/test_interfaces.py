"""Hosts built by hand whose interfaces stand on each other, or lead to a LAN by a bridge, judged with ``--local``."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.front_door import Finished
from tests.helpers.hand_made import (
    SITE,
    UPLINKS,
    HandMadeHost,
    apply_the_guides_recipe,
    hand_made_host,
    write_site,
)
from viacheck.model.result import PacketsEvidence, Verdict

ETH0 = {"eth0": UPLINKS["eth0"]}


def judge(host: HandMadeHost, folder: Path, text: str = SITE) -> Finished:
    """Judge the host by a site file of this text."""
    return host.viacheck(site=write_site(folder, text), report_dir=folder / "report")


def verdicts(done: Finished) -> dict[str, set[tuple[Verdict, str | None]]]:
    """Return the verdicts and diagnosis codes of each check."""
    outcome: dict[str, set[tuple[Verdict, str | None]]] = {}
    for result in done.outcome.results:
        code = result.diagnosis.code if result.diagnosis else None
        outcome.setdefault(result.check, set()).add((result.verdict, code))
    return outcome


PASS = {(Verdict.PASS, None)}


def test_a_frame_on_an_uplink_and_on_its_parent_is_one_frame(tmp_path: Path) -> None:
    with hand_made_host(ETH0) as host:
        host.uplink_on("eth0", "wlan0", UPLINKS["wlan0"])
        apply_the_guides_recipe(host)
        done = judge(host, tmp_path)
    assert done.exit_code == 0, done.said
    assert verdicts(done)["EGRESS-01"] == verdicts(done)["EGRESS-04"] == PASS
    packets = next(
        evidence
        for result in done.outcome.results
        if result.check == "EGRESS-01"
        for evidence in result.evidence
        if isinstance(evidence, PacketsEvidence)
    )
    assert {sighting.same_frame_on for sighting in packets.sightings if sighting.interface == "eth0"} == {"wlan0"}
