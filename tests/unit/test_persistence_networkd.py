"""networkd's files are read as networkd reads them: folders, drop-ins, masks, matches, and its own names of tables."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.helpers.persistence_hosts import recorded, resolved
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.persistence import cannot_run_twice, not_written_down
from viacheck.model.measurements import Measurements
from viacheck.model.snapshot import HostFile
from viacheck.persistence.assess import assess_persistence
from viacheck.persistence.lint import findings_of

NETWORK, LOOPBACK = "/etc/systemd/network/20-wlan0.network", "/etc/systemd/network/10-lo.network"
HEALTHY = recorded("networkd-healthy")


def changed(old: str, new: str) -> dict[str, str]:
    """The healthy host with a change in one of its files, or in both."""
    assert any(old in HEALTHY[path] for path in (NETWORK, LOOPBACK))
    return HEALTHY | {path: HEALTHY[path].replace(old, new) for path in (NETWORK, LOOPBACK)}


def test_a_healthy_host() -> None:
    case = resolved(HEALTHY)
    persistence = assess_persistence(case)
    assert persistence.manager == "networkd"
    assert [str(place) for place in persistence.places] == [f"{LOOPBACK}:6", f"{NETWORK}:11"]
    assert (persistence.missing, persistence.problems, findings_of(case, persistence)) == ((), (), [])


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        ("From=172.17.0.0/16", "From=172.18.0.0/16", "a rule from"),
        ("[RoutingPolicyRule]", "[SomethingElse]", "a rule from"),
        ("Gateway=10.10.50.1", "Gateway=10.10.50.254", "a route default"),
        ("[Route]", "[Rout]", "a route default"),
        ("Destination=0.0.0.0/0", "Destination=10.0.0.0/8", "a route default"),
    ],
)
def test_what_is_missing_is_named(old: str, new: str, missing: str) -> None:
    case = resolved(changed(old, new))
    assert [missing in sentence for sentence in assess_persistence(case).missing] == [True]
    (cause,) = not_written_down(case, Measurements())
    assert cause.remedy.lines[-1] == "networkctl reload"
    assert cause.remedy.rollback_lines[0].startswith("rm /etc/systemd/network/")


def test_the_gateway_of_the_lease_counts() -> None:
    assert assess_persistence(resolved(changed("Gateway=10.10.50.1", "Gateway=_dhcp4"))).holds


def test_a_file_in_run_is_gone_after_a_reboot() -> None:
    files = dict(HEALTHY)
    for path in (NETWORK, LOOPBACK):
        files[path.replace("/etc/", "/run/")] = files.pop(path)
    persistence = assess_persistence(resolved(files))
    assert len(persistence.missing) == 2
    assert {why for _place, why in persistence.ineffective} == {"/run is empty after a reboot"}


def test_an_earlier_file_that_matches_hides_a_later_one() -> None:
    files = HEALTHY | {"/usr/lib/systemd/network/10-all.network": "[Match]\nName=w*\n\n[Network]\nDHCP=yes\n"}
    assert not assess_persistence(resolved(files)).holds
    masked = files | {"/etc/systemd/network/10-all.network": ""}
    assert assess_persistence(resolved(masked)).holds


@pytest.mark.parametrize(
    ("match", "fits"),
    [("Name=eth* wl*", True), ("Name=!eth* docker*", True), ("Name=!wlan0", False), ("Type=wlan", True),
     ("Type=ether", False), ("MACAddress=02-00-00-00-00-0C", True), ("Driver=iwlwifi", False)],
)  # fmt: skip
def test_matches(match: str, fits: bool) -> None:
    files = changed("Name=wlan0", match)
    del files["/run/systemd/netif/links/12"]
    assert (assess_persistence(resolved(files)).manager == "networkd") is fits


def test_a_tables_name_is_networkds_own() -> None:
    named = changed("Table=200", "Table=wlan0rt")
    case = resolved(named)
    assert {(f.code, f.breaks) for f in findings_of(case, assess_persistence(case))} == {("TABLE_NAME_MISSING", True)}
    known = named | {"/etc/systemd/networkd.conf": "[Network]\nRouteTable=wlan0rt:200\n"}
    case = resolved(known)
    assert findings_of(case, assess_persistence(case)) == []


def test_unmanaged_links_are_not_held() -> None:
    files = HEALTHY | {"/run/systemd/netif/links/12": "ADMIN_STATE=unmanaged\n"}
    files[NETWORK] += "\n[Link]\nUnmanaged=yes\n"
    assert assess_persistence(resolved(files)).manager is None


def remedied(tmp_path: Path, files: dict[str, str], cause: Cause) -> dict[str, str]:
    """The host's files after the remedy's commands were run by a shell, below a folder of our own."""
    for command in cause.remedy.lines:
        if "/etc/" in command:
            subprocess.run(["/bin/sh", "-ec", command.replace("/etc/", f"{tmp_path}/etc/")], check=True)
    written = (path for path in tmp_path.rglob("*") if path.is_file())
    return files | {f"/{path.relative_to(tmp_path)}": path.read_text() for path in written}


def test_the_remedy_is_what_is_missing(tmp_path: Path) -> None:
    files = changed("From=172.17.0.0/16", "From=172.18.0.0/16")
    (cause,) = not_written_down(resolved(files), Measurements())
    assert assess_persistence(resolved(remedied(tmp_path, files, cause))).holds


def test_rule_and_backstop_go_under_the_loopback_and_the_route_under_the_uplink(tmp_path: Path) -> None:
    # Without a file for lo: the remedy makes one.
    files = {path: text for path, text in changed("[Route]", "[Rout]").items() if "10-lo" not in path}
    files["/run/systemd/netif/links/1"] = "ADMIN_STATE=unmanaged\n"
    (cause,) = not_written_down(resolved(files, rules=()), Measurements())
    after = remedied(tmp_path, files, cause)
    assert set(after) - set(files) == {
        "/etc/systemd/network/viacheck-lo.network", f"{NETWORK}.d/viacheck-200-172.17.0.0-16.conf",
    }  # fmt: skip
    case = resolved(after)
    assert assess_persistence(case).holds
    assert findings_of(case, assess_persistence(case)) == []
    assert cause.remedy.rollback_lines[-1] == "networkctl reload"


def test_a_file_of_other_interfaces_too_is_left_to_a_person() -> None:
    files = changed("Gateway=10.10.50.1", "Gateway=10.10.50.2")
    files[NETWORK] = files[NETWORK].replace("Name=wlan0", "Name=wlan0 docker0")
    (cause,) = not_written_down(resolved(files), Measurements())
    assert not cause.remedy
    assert cause.decision is not None
    assert cause.decision.startswith(f"{NETWORK} configures docker0 as well")


def test_a_drop_in_that_is_there_is_written_again(tmp_path: Path) -> None:
    files = changed("Gateway=10.10.50.1", "Gateway=10.10.50.2")
    drop_in, old = f"{NETWORK}.d/viacheck-200-route.conf", "[Route]\nDestination=10.9.0.0/16\nGateway=10.10.50.1\n"
    (cause,) = not_written_down(resolved(files | {drop_in: old}), Measurements())
    place = tmp_path / drop_in.removeprefix("/")
    place.parent.mkdir(parents=True)
    place.write_text(old)
    for lines in (cause.remedy.lines, cause.remedy.rollback_lines):
        for line in lines:
            if "/etc/" in line:
                subprocess.run(["/bin/sh", "-ec", line.replace("/etc/", f"{tmp_path}/etc/")], check=True)
    assert place.read_text() == old


def test_what_stands_under_the_uplink_goes_with_it(tmp_path: Path) -> None:
    under = {NETWORK: HEALTHY[NETWORK] + HEALTHY[LOOPBACK].partition("\n\n")[2]}
    files = {path: text for path, text in HEALTHY.items() if "10-lo" not in path} | under
    case = resolved(files)
    (cause,) = (one for one in cannot_run_twice(case, Measurements()) if one.code == "LEAK_WHILE_DOWN")
    assert {finding.breaks for finding in findings_of(case, assess_persistence(case))} == {False}
    case = resolved(remedied(tmp_path, files, cause))
    assert findings_of(case, assess_persistence(case)) == []


def test_a_networkd_with_its_defaults_takes_its_own_rules_anew() -> None:
    files = HEALTHY | {"/etc/systemd/networkd.conf.d/10-agent.conf": "[Network]\nManageForeignRoutes=no\n"}
    case = resolved(files)
    (finding,) = findings_of(case, assess_persistence(case))
    assert (finding.code, finding.breaks) == ("FOREIGN_RULES_PURGED", False)


@pytest.mark.parametrize(
    "text",
    ["[", "]", "=", "[Match\nName=wlan0", "[Match]\nName=wlan0\n[Route]\nDestination=no\n", "[Match]\nName=[\n",
     "[Match]\nName=wlan0\n[RoutingPolicyRule]\nFrom=172.17.0.0/99\nTable=x\nPriority=many\n", "\0", "key=before\n"],
)  # fmt: skip
def test_garbage_is_a_problem_with_its_line(text: str) -> None:
    file = HostFile(path=NETWORK, exists=True, text=text)
    for problem in assess_persistence(resolved((file,), persist="networkd")).problems:
        assert problem.path == NETWORK
        assert problem.line > 0


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        ("[Match]\nName=wlan0\n", True), ("[Match]\nName=wlan0\nPriority=5\n", True), ("[Match]\n", False),
        ("#[Match]\nName=wlan0\n", False), ("[Match]\nName=wlan0\nDriver=x\n", False),
    ],
)  # fmt: skip
def test_a_file_without_a_condition_configures_no_link(match: str, holds: bool) -> None:
    network = "[Network]\nAddress=10.10.50.9/24\n[Route]\nGateway=10.10.50.1\nTable=200\n"
    rule = "[RoutingPolicyRule]\nFrom=172.17.0.0/16\nTable=200\nPriority=1000\n"
    files = {"/etc/systemd/network/a.network": f"{match}{network}{rule}"}
    assert assess_persistence(resolved(files, persist="networkd")).holds is holds


def test_a_gateway_that_is_not_on_the_link_is_no_route() -> None:
    text = "[Match]\nName=wlan0\n[Network]\nAddress=10.10.5.9/24\n[Route]\nGateway=10.10.50.1\nTable=200\n"
    missing = assess_persistence(resolved({"/etc/systemd/network/a.network": text}, persist="networkd")).missing
    assert "systemd-networkd gives wlan0 10.10.5.9/24, so the gateway 10.10.50.1 is not on the link" in missing
