"""The live host for real: viacheck in one file, copied to a whole host and run there, where systemd restarts services.

A copy of that host boots from its network files, in a whole host inside of the whole host.

With ``--releases`` the host runs trixie too, whose Python and engine are others, and NetworkManager and netplan are
restarted and applied on hosts of theirs. ``--soak`` ends 60 runs at random moments of real events, not 2, on hosts of
three managers.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab.lab import Lab
from netns_lab.lab_specs import LabSpec
from netns_lab.open_lab import open_lab
from netns_lab.whole_host.base_root import DEFAULT_RELEASE, BaseRoot
from netns_lab.whole_host.host_requirements import missing_for
from reports.report_files import read_outcome
from tests.helpers.bind_into_host import bind_into
from tests.helpers.front_door import by_check, sub_command, viacheck
from tests.helpers.long_runs import HOST_KILLS, SOAK_HOST_KILLS
from tests.helpers.one_file import PACKED, packed_once
from tests.helpers.whole_host_kills import ENDS, end_on_whole_host, whole_host_state
from viacheck.model.result import RunResult
from viacheck.model.verdict import Verdict

PYTHONS = {"bookworm": "3.11", "trixie": "3.13", "forky": "3.14"}
NETWORKD, NM, NETPLAN = (f"policy-routing-{manager}" for manager in ("networkd", "nm", "netplan"))
PIPEWORK, RC_LOCAL = "pipework-unit", "pipework-rc-local"
COPIED_ONLY = [("forky", NETWORKD), (DEFAULT_RELEASE, PIPEWORK), (DEFAULT_RELEASE, RC_LOCAL)]
"""Hosts of which a copy boots, besides those of the live runs."""
SITE = """\
schema = 1
allow_disruptive = true
[site]
name = "live"
[agent]
container = "te-agent"
[agent.attach]
mode = "nat"
network = "bridge"
[uplinks.eth0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
[egress]
uplink = "wlan0"
table = 200
table_name = "wlan0rt"
leak = "forbid"
[host]
default_exit = "eth0"
[probe]
target = "198.51.100.1"
timeout = "400ms"
"""
PIPEWORK_SITE = (
    SITE.replace('mode = "nat"\nnetwork = "bridge"', """\
mode = "pipework-static"
parent = "eth0"
address = "10.10.40.200/24"
gateway = "10.10.40.1\"""")
    .replace('uplink = "wlan0"\ntable = 200\ntable_name = "wlan0rt"\nleak = "forbid"', 'uplink = "eth0"')
)  # fmt: skip
EVENTS = {
    NETWORKD: {"FLAP-01", "FLAP-04", "FLAP-05", "FLAP-09"}, NM: {"FLAP-01", "FLAP-11"}, NETPLAN: {"FLAP-09", "FLAP-11"},
}  # fmt: skip
"""By lab, the events of a live run on its host."""
KILLED_IN = {
    NETWORKD: ("container-restart", "networkd-restart", "engine-restart", "link-flap"),
    NM: ("networkmanager-restart", "link-flap", "container-restart"),
    NETPLAN: ("netplan-apply", "networkd-restart", "link-flap"),
}
"""By lab, the events in whose middle runs are ended; all labs with ``--soak``."""
STATE = (
    "ip -4 rule", "ip -4 route show table all", "ip -br -4 address", "ip -6 rule", "iptables-save",
    "systemctl list-units --failed --no-legend",
)  # fmt: skip
RUN_WITHIN = 500.0
OUT_OF_FILES = {
    NETWORKD: "sed -i '/RoutingPolicyRule/,$d' /etc/systemd/network/10-lo.network",
    NM: "sed -i '/^routing-rule/d' /etc/NetworkManager/system-connections/*",
    NETPLAN: "sed -i '/routing-policy:/d; /priority:/d' /etc/netplan/*.yaml",
    PIPEWORK: "systemctl disable pipework.service pipework-watch.service",
    RC_LOCAL: "systemctl disable pipework-watch.service; chmod 644 /etc/rc.local",
}
"""By lab, the command that takes the rules out of the host's files: the kernel has them until the next boot."""
WRITTEN_DOWN = dict.fromkeys((PIPEWORK, RC_LOCAL), ("PIPEWORK-05", "PIPEWORK_NOT_PERSISTENT"))
"""By lab, the check of the host's files and its diagnosis, where they are not those of rules."""
_MISSING = missing_for(BaseRoot(DEFAULT_RELEASE))
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "release" in metafunc.fixturenames:
        hosts = [(DEFAULT_RELEASE, NETWORKD)]
        if metafunc.config.option.releases:
            hosts = [(release, scenario) for release in ("bookworm", "trixie") for scenario in EVENTS]
            hosts += COPIED_ONLY if metafunc.function is test_a_copy_of_the_host_is_rebooted_from_its_files else []
        killed = "moment" in metafunc.fixturenames
        if killed and metafunc.config.option.soak:
            hosts = [(DEFAULT_RELEASE, scenario) for scenario in KILLED_IN]
        metafunc.parametrize(("release", "scenario"), hosts, scope="module")
        if killed:
            moments = SOAK_HOST_KILLS // len(hosts) if metafunc.config.option.soak else HOST_KILLS
            metafunc.parametrize("moment", range(moments))


@pytest.fixture(scope="module")
def packed(release: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Viacheck in one file, for the Python of the release."""
    platform = f"{PYTHONS[release]}-x86_64"
    if platform in PACKED:
        return packed_once(tmp_path_factory)
    path = tmp_path_factory.mktemp("packed") / "viacheck.pyz"
    done = sub_command("pack", "--only", platform, "-o", path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def lab(release: str, scenario: str, packed: Path) -> Iterator[Lab]:
    """The host, with viacheck, a site file, and the base root of its own release."""
    base = BaseRoot(release)
    base.build(lambda _line: None)
    with contextlib.closing(open_lab(LabSpec(scenario, "host", release=release))) as lab:
        assert lab.engine is not None
        assert lab.whole_host is not None
        root = Path(lab.engine.root) / "root"
        shutil.copy(packed, root / "viacheck.pyz")
        (root / "site.toml").write_text(PIPEWORK_SITE if scenario in WRITTEN_DOWN else SITE)
        bind_into(lab.whole_host.init, base.folder, f"/root/.cache/viacheck/roots/{base.folder.name}")
        yield lab


def type_in(lab: Lab, line: str) -> str:
    """Type a line on the host, which must succeed."""
    done = lab.host.namespace.run(["sh", "-c", f"cd /root && {line}"], RUN_WITHIN)
    assert done.ok, done.stdout + done.stderr
    return done.stdout


def outcome_on(lab: Lab, folder: str, tmp_path: Path) -> RunResult:
    """The outcome of a run on the host; a path below another process's root is no regular path."""
    assert lab.engine is not None
    shutil.copytree(Path(lab.engine.root) / "root" / folder, tmp_path / folder)
    return read_outcome(tmp_path / folder / "result.json")


def rebooted(lab: Lab, folder: str, tmp_path: Path) -> RunResult:
    """Judge a copy of the host, booted from the host's files; the host itself must stay as it is."""
    before = state(lab)
    options = "--local --twin --reboot --site site.toml -q -k 'EGRESS-01 or PERSIST-01 or PIPEWORK-05 or FLAP-08'"
    lab.host.namespace.run(
        ["sh", "-c", f"cd /root && HOME=/root sh viacheck.pyz {options} --report-dir {folder}"], RUN_WITHIN
    )
    assert state(lab) == before
    outcome = outcome_on(lab, folder, tmp_path)
    assert outcome.targets[0].id == "reboot:live"
    return outcome


def state(lab: Lab) -> dict[str, list[str]]:
    """What the guard must put back, without counters and comments."""
    printed = {command: type_in(lab, command).splitlines() for command in STATE}
    return {
        command: sorted(line for line in lines if not line.startswith(("#", ":")) and "veth" not in line)
        for command, lines in printed.items()
    }


def verdicts(outcome: RunResult, target: str) -> dict[str, set[Verdict]]:
    return {check: {case.verdict for case in cases} for check, cases in by_check(outcome, target).items()}


def test_a_run_on_the_host_agrees_with_one_from_outside_and_restores_everything(
    lab: Lab, release: str, scenario: str, tmp_path: Path
) -> None:
    before = state(lab)
    only = " or ".join(("not FLAP", *sorted(EVENTS[scenario])))
    type_in(
        lab, f"sh viacheck.pyz --local --site site.toml --allow-disruptive --yes -q -k '{only}' --report-dir report"
    )
    inside = outcome_on(lab, "report", tmp_path)
    assert not inside.targets[0].alerts
    assert state(lab) == before
    assert "nothing to restore" in type_in(lab, "sh viacheck.pyz restore")
    assert "python" not in type_in(lab, "ps -e -o comm=")

    spec = LabSpec(scenario, "host", release=release)
    outside = viacheck("--lab", spec.name, "-k", only, "-n", "2", report_dir=tmp_path / "outside")
    assert outside.exit_code == 0, outside.said
    found, expected = verdicts(inside, "local:live"), verdicts(outside.outcome, spec.id)
    assert {check: found[check] for check in EVENTS[scenario]} == {key: {Verdict.PASS} for key in EVENTS[scenario]}
    assert found == expected


def test_a_run_that_ends_in_the_middle_of_a_restart_leaves_the_host_as_it_was(
    lab: Lab, scenario: str, moment: int
) -> None:
    events, ends = KILLED_IN[scenario], list(ENDS)
    event, end = events[moment % len(events)], ends[(moment + moment // len(events)) % len(ends)]
    before = whole_host_state(lab)
    assert sum(line.startswith("sysctls: ") for line in before) > 100
    different = end_on_whole_host(lab, event, end, random.Random(moment), site="site.toml", before=before)
    assert not different, f"{event}, {end}:\n{different}"
    assert "nothing to restore" in type_in(lab, "sh viacheck.pyz restore")


def test_a_copy_of_the_host_is_rebooted_from_its_files(
    lab: Lab, scenario: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    files, code = WRITTEN_DOWN.get(scenario, ("PERSIST-01", "NOT_PERSISTENT"))
    if pytestconfig.option.releases:
        healthy = verdicts(rebooted(lab, "healthy", tmp_path), "reboot:live")
        for check in ("EGRESS-01", files, "FLAP-08"):
            assert healthy[check] == {Verdict.PASS}, check
    type_in(lab, OUT_OF_FILES[scenario])
    type_in(lab, "sh viacheck.pyz --local --site site.toml -q -k EGRESS-01 --report-dir now")
    outcome = rebooted(lab, "broken", tmp_path)
    results = by_check(outcome, "reboot:live")
    (persisted,), (reboot,) = results[files], results["FLAP-08"]
    for case in (persisted, reboot):
        assert case.verdict is Verdict.FAIL
        assert case.diagnosis is not None
        assert case.diagnosis.code == code
    assert "missing" in reboot.observed
    assert any(note.startswith("rebooted, this host would lack: ") for note in outcome.targets[0].notes)
