"""Hosts built by hand whose interfaces stand on each other, or lead to a LAN by a bridge, judged with ``--local``."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.front_door import Finished
from tests.helpers.hand_made import (
    SITE,
    UPLINKS,
    HandMadeHost,
    agent_on_lan_bridge,
    apply_the_guides_recipe,
    hand_made_host,
    macvlan_on_lan_bridge,
    with_pipework,
    write_site,
)
from tests.helpers.judgements import PASS, Judgement, assert_bundle_and_replica_agree, judgements
from viacheck.model.check_evidence import PacketsEvidence
from viacheck.model.verdict import Verdict

ETH0 = {"eth0": UPLINKS["eth0"]}


def judge(host: HandMadeHost, folder: Path, text: str = SITE) -> Finished:
    """Judge the host by a site file of this text."""
    return host.viacheck(site=write_site(folder, text), report_dir=folder / "report")


def passing(*checks: str) -> dict[str, Judgement]:
    """Return that these checks pass."""
    return dict.fromkeys(checks, PASS)


def test_a_frame_on_an_uplink_and_on_its_parent_is_one_frame(tmp_path: Path) -> None:
    with hand_made_host(ETH0) as host:
        host.uplink_on("eth0", "wlan0", UPLINKS["wlan0"])
        apply_the_guides_recipe(host)
        done = judge(host, tmp_path)
    assert done.exit_code == 0, done.said
    assert_bundle_and_replica_agree(done, passing("EGRESS-01", "EGRESS-04"), tmp_path / "saved")
    packets = next(
        evidence
        for result in done.outcome.results
        if result.check == "EGRESS-01"
        for evidence in result.evidence
        if isinstance(evidence, PacketsEvidence)
    )
    assert {sighting.same_frame_on for sighting in packets.sightings if sighting.interface == "eth0"} == {"wlan0"}


LAN_BRIDGE_SITE = """\
schema = 1
[site]
name = "by-hand"
[agent]
netns = "/run/netns/agent"
[agent.attach]
mode = "pipework-static"
parent = "br0"
address = "10.10.40.200/24"
gateway = "10.10.40.1"
[uplinks.br0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
[egress]
uplink = "br0"
persist = "none"
survives = []
[host]
default_exit = "br0"
[probe]
target = "198.51.100.1"
timeout = "400ms"
"""


def test_pipework_on_a_lan_bridge_passes(tmp_path: Path) -> None:
    with hand_made_host() as host:
        agent_on_lan_bridge(host)
        site = write_site(tmp_path, LAN_BRIDGE_SITE)
        done = host.viacheck(site=site, report_dir=tmp_path / "report", by=with_pipework(tmp_path))
    assert done.exit_code == 0, done.said
    expected = passing("EGRESS-01", "EGRESS-02", "EGRESS-03", "EGRESS-04", "EGRESS-09", "PIPEWORK-02", "PIPEWORK-03")
    assert judgements(done).items() >= expected.items(), done.said
    assert "left by br0" in done.said or "leave by br0" in done.said
    assert_bundle_and_replica_agree(done, expected, tmp_path / "saved")


def test_a_second_interface_behind_docker0_is_still_found_on_a_lan_bridge(tmp_path: Path) -> None:
    with hand_made_host() as host:
        agent_on_lan_bridge(host)
        host.ip("link add docker0 type bridge")
        host.ip("link set docker0 up")
        host.ip("link add veth2 type veth peer name eth0 netns agent")
        host.ip("link set veth2 up master docker0")
        host.ip("-n agent link set eth0 up")
        site = write_site(tmp_path, LAN_BRIDGE_SITE)
        done = host.viacheck(site=site, report_dir=tmp_path / "report", by=with_pipework(tmp_path))
    expected = {"PIPEWORK-02": (Verdict.FAIL, "DEFAULT_NETWORK_PRESENT")}
    assert judgements(done).items() >= expected.items(), done.said
    assert_bundle_and_replica_agree(done, expected, tmp_path / "saved")
    assert "dev eth1 down" not in done.said


MACVLAN_ON_BRIDGE_SITE = LAN_BRIDGE_SITE.replace(
    'mode = "pipework-static"', 'mode = "macvlan"\nnetwork = "macvlan0"'
).replace('address = "10.10.40.200/24"', 'subnet = "10.10.40.0/24"')


def test_a_bridge_whose_only_port_is_a_veth_is_an_uplink(tmp_path: Path) -> None:
    with hand_made_host() as host:
        macvlan_on_lan_bridge(host)
        done = judge(host, tmp_path, MACVLAN_ON_BRIDGE_SITE)
    assert done.exit_code == 0, done.said
    expected = passing("EGRESS-01", "EGRESS-02", "EGRESS-03", "MACVLAN-03", "MACVLAN-05", "MACVLAN-06")
    assert judgements(done).items() >= expected.items(), done.said
    assert_bundle_and_replica_agree(done, expected, tmp_path / "saved")
