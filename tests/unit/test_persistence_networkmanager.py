"""NetworkManager's profiles, device states and dispatcher scripts are read as NetworkManager takes them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.helpers.persistence_hosts import host_file, recorded, resolved
from viacheck.diagnosis.persistence import not_written_down
from viacheck.model.measurements import Measurements
from viacheck.model.snapshot import HostFile
from viacheck.persistence.assess import assess_persistence
from viacheck.persistence.lint import findings_of

PROFILE = "/etc/NetworkManager/system-connections/office.nmconnection"
SCRIPT = "/etc/NetworkManager/dispatcher.d/50-agent"
HEALTHY = recorded("networkmanager-healthy")


def changed(old: str, new: str) -> dict[str, str]:
    assert old in HEALTHY[PROFILE]
    return HEALTHY | {PROFILE: HEALTHY[PROFILE].replace(old, new)}


def test_a_healthy_profile() -> None:
    case = resolved(HEALTHY)
    persistence = assess_persistence(case)
    assert persistence.manager == "networkmanager"
    assert [str(place) for place in persistence.places] == [f"{PROFILE}:26", f"{PROFILE}:22"]
    assert (persistence.missing, persistence.problems, findings_of(case, persistence)) == ((), (), [])


def test_a_profile_is_found_by_the_device_that_uses_it() -> None:
    assert assess_persistence(resolved(changed("interface-name=wlan0\n", ""))).holds


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        ("from 172.17.0.0/16", "from 172.18.0.0/16", "a rule from"),
        ("routing-rule1=priority 1000 from 172.17.0.0/16 table 200\n", "", "a rule from"),
        ("routing-rule1=priority 1000 ", "routing-rule1=", "a rule from"),
        ("10.10.50.1\n", "10.10.50.2\n", "a route default"),
        ("route1_options=table=200", "route1_options=onlink=true", "a route default"),
        ("type=wifi", "type=wifi\nautoconnect=false", "autoconnect=false"),
    ],
)
def test_what_is_missing_is_named_and_written_into_the_profile(
    tmp_path: Path, old: str, new: str, missing: str
) -> None:
    files = changed(old, new)
    case = resolved(files)
    assert any(missing in sentence for sentence in assess_persistence(case).missing)
    (cause,) = not_written_down(case, Measurements())
    load, reapply = f"nmcli connection load {PROFILE}", "nmcli device reapply wlan0"
    assert cause.remedy.lines[1:] == ([load] if "autoconnect" in missing else [load, reapply])
    # The host has the rule and not the route: reapplied without the rule, NetworkManager would remove it.
    assert cause.remedy.rollback_lines[1:] == ([load, reapply] if "route" in missing else [load])
    copy = tmp_path / "profile"
    copy.write_text(files[PROFILE])
    subprocess.run(["/bin/sh", "-ec", cause.remedy.lines[0].replace(PROFILE, str(copy))], check=True)
    assert assess_persistence(resolved(files | {PROFILE: copy.read_text()})).holds
    subprocess.run(["/bin/sh", "-ec", cause.remedy.rollback_lines[0].replace(PROFILE, str(copy))], check=True)
    assert copy.read_text() == files[PROFILE]


def test_a_profile_of_a_package_is_left_to_a_person() -> None:
    files = {path.replace("/etc/NetworkManager/system", "/usr/lib/NetworkManager/system"): text
             for path, text in changed("routing-rule1=priority 1000 ", "routing-rule1=").items()}  # fmt: skip
    (cause,) = not_written_down(resolved(files), Measurements())
    assert not cause.remedy


def test_route_table_moves_the_leases_own_default() -> None:
    text = HEALTHY[PROFILE].replace("route1=0.0.0.0/0,10.10.50.1\nroute1_options=table=200\n", "route-table=200\n")
    persistence = assess_persistence(resolved(HEALTHY | {PROFILE: text}))
    assert persistence.holds
    assert persistence.routes[0].gateway_computed


def test_a_profile_that_others_may_read_is_ignored() -> None:
    persistence = assess_persistence(resolved((host_file(PROFILE, HEALTHY[PROFILE], 0o644),), persist="networkmanager"))
    assert not persistence.holds
    assert "its mode is 644" in persistence.problems[0].reason


@pytest.mark.parametrize("section", ["[ipv4]\n", "[ipv6]\n"])
def test_a_profile_that_networkmanager_refuses_holds_nothing(section: str) -> None:
    before, behind = HEALTHY[PROFILE].split(section)
    text = before + section + behind.replace("method=auto\n", "", 1)
    persistence = assess_persistence(resolved(HEALTHY | {PROFILE: text}, persist="networkmanager"))
    assert not persistence.holds
    assert any("has no method" in str(problem) for problem in persistence.problems)


def test_a_disabled_method_with_routes_is_refused() -> None:
    before, behind = HEALTHY[PROFILE].split("[ipv4]\n")
    text = f"{before}[ipv4]\n{behind.replace('method=auto', 'method=disabled', 1)}"
    assert not assess_persistence(resolved(HEALTHY | {PROFILE: text}, persist="networkmanager")).holds


def test_dispatcher_scripts_count() -> None:
    case = resolved(recorded("networkmanager-dispatcher"))
    persistence = assess_persistence(case)
    assert [str(place) for place in persistence.places] == [f"{SCRIPT}:8", f"{SCRIPT}:5"]
    assert [(f.code, f.breaks) for f in findings_of(case, persistence)] == [("FAIL_OPEN", False)]


@pytest.mark.parametrize(
    "text",
    [
        "[ipv4]\nmethod=auto\nroute1=,\n",
        "[ipv4]\nmethod=auto\nroute1=x/y,z\n",
        "[ipv4]\nmethod=auto\nrouting-rule1=priority x\n",
        "[ipv4]\nmethod=auto\nrouting-rule1=\nroute9_options=\n",
        "[[\n",
        "\0=\n",
    ],
)
def test_garbage_is_a_problem_with_its_line(text: str) -> None:
    text = f"[connection]\ninterface-name=wlan0\n{text}"
    file = HostFile(path=PROFILE, exists=True, text=text, mode=0o600)
    for problem in assess_persistence(resolved((file,), persist="networkmanager")).problems:
        assert problem.path == PROFILE
        assert problem.line > 2
