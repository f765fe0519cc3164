"""Labs on Debian's own kernel in a virtual machine: one boot for all of them, judged by viacheck in the machine.

The kernel's Wi-Fi (mac80211) shows the guide's warning with packets: of a macvlan on a station only the station's own
MAC address gets through. An emulated processor takes some minutes.
"""

from __future__ import annotations

import subprocess

import pytest

from netns_lab.scenarios import VIRTUAL_MACHINES
from netns_lab.virtual_machine.guest_requirements import missing_for_guest
from netns_lab.virtual_machine.guest_root import GuestRoot
from netns_lab.whole_host.base_root import DEFAULT_RELEASE
from reports.report_files import read_outcome
from tests.helpers.front_door import VIACHECK
from viacheck.model.result import CheckResult, RunResult
from viacheck.model.verdict import Verdict

KERNELS = {"bookworm": "Linux 6.1.", "trixie": "Linux 6.12."}
WITHOUT_EVENTS = ("-k", "not FLAP")
RUN_WITHIN = 3600.0
STATION, TUNNEL = "wifi-macvlan", "wireguard"
_MISSING = missing_for_guest(GuestRoot())
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "release" in metafunc.fixturenames:
        releases = KERNELS if metafunc.config.option.releases else (DEFAULT_RELEASE,)
        metafunc.parametrize("release", releases, scope="module")


@pytest.fixture(scope="module")
def outcome(release: str, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The result of the one run over every lab."""
    folder = tmp_path_factory.mktemp("report")
    labs = ",".join(f"vm:{name}@{release}" for name in VIRTUAL_MACHINES)
    argv = [*VIACHECK, "--lab", labs, *WITHOUT_EVENTS, "--report-dir", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_WITHIN)
    assert done.returncode == 1, done.stdout + done.stderr
    assert KERNELS[release] in done.stderr
    return read_outcome(folder / "result.json")


def results_of(outcome: RunResult, scenario: str) -> list[CheckResult]:
    """The results of one lab, whatever its release."""
    ids = {target.id for target in outcome.targets if target.id.partition("@")[0] == f"lab:vm:{scenario}"}
    assert len(ids) == 1, scenario
    return [result for result in outcome.results if result.target in ids]


def of_check(results: list[CheckResult], check: str) -> list[CheckResult]:
    return [result for result in results if result.check == check]


@pytest.mark.parametrize("scenario", [name for name in VIRTUAL_MACHINES if name not in (STATION, TUNNEL)])
def test_every_kind_of_uplink_and_attachment_is_judged_right(outcome: RunResult, scenario: str) -> None:
    results = results_of(outcome, scenario)
    bad = [
        (result.check, result.case, result.verdict.value, result.observed) for result in results if result.verdict.bad
    ]
    assert not bad
    egress = of_check(results, "EGRESS-01")
    assert {result.verdict for result in egress} == {Verdict.PASS}
    assert {result.case for result in egress} == {"icmp", "udp", "tcp"}


def test_by_wireguard_all_is_proven(outcome: RunResult) -> None:
    """The tunnel's driver refuses a frame that is no IP packet, after the captures have seen it."""
    results = results_of(outcome, TUNNEL)
    for check in ("EGRESS-01", "EGRESS-02", "EGRESS-03", "EGRESS-04"):
        assert {result.verdict for result in of_check(results, check)} == {Verdict.PASS}, check
    assert not {(result.check, result.verdict) for result in results if result.verdict.bad}


def test_answers_in_a_vrf_are_named_as_not_modelled(outcome: RunResult) -> None:
    for result in of_check(results_of(outcome, "vrf"), "EGRESS-03"):
        assert result.verdict is Verdict.PASS
        assert "judged by packets alone" in result.observed
        assert "belongs to a VRF" in result.observed


def test_a_lossy_wire_is_named_with_its_figures(outcome: RunResult) -> None:
    observed = " ".join(result.observed for result in of_check(results_of(outcome, "lossy"), "EGRESS-03"))
    assert "of 50 lost" in observed


def test_a_lab_says_which_kernel_it_ran_on(outcome: RunResult, release: str) -> None:
    for target in outcome.targets:
        assert target.flavour == "vm"
        assert any(f"with the kernel {KERNELS[release]}" in note for note in target.notes), target.id


def test_of_a_macvlan_on_a_station_only_the_stations_mac_address_gets_through(outcome: RunResult) -> None:
    results = results_of(outcome, STATION)
    (second_mac,) = of_check(results, "MACVLAN-06")
    assert second_mac.verdict is Verdict.FAIL
    assert second_mac.diagnosis is not None
    assert second_mac.diagnosis.code == "PARENT_SINGLE_MAC"
    # Frames with the station's own MAC address get through; the gateway answers none of the agent's ARP requests.
    for check in ("HOST-03", "EGRESS-04"):
        assert {result.verdict for result in of_check(results, check)} == {Verdict.PASS}, check
    for check in ("MACVLAN-03", "EGRESS-01"):
        for result in of_check(results, check):
            assert result.verdict is Verdict.FAIL
            assert result.diagnosis is not None
            assert result.diagnosis.code == "PARENT_SINGLE_MAC", result
    assert {result.verdict for result in of_check(results, "EGRESS-03")} == {Verdict.NOT_RUN}
