"""networkd's files are read as networkd reads them: folders, drop-ins, masks, matches, and its own names of tables."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fixtures.model.snapshot import HostFile
from fixtures.reasoning.causes.cause import Measured
from fixtures.reasoning.causes.persist import findings_of, not_written_down, persistence_of
from tests.persistence_hosts import recorded, situation

NETWORK = "/etc/systemd/network/20-wlan0.network"
HEALTHY = recorded("networkd-healthy")


def changed(old: str, new: str, path: str = NETWORK) -> dict[str, str]:
    assert old in HEALTHY[path]
    return HEALTHY | {path: HEALTHY[path].replace(old, new)}


def test_a_healthy_host() -> None:
    case = situation(HEALTHY)
    found = persistence_of(case)
    assert found.manager == "networkd"
    assert [str(place) for place in found.places] == [f"{NETWORK}:9", f"{NETWORK}:16"]
    assert (found.missing, found.problems, findings_of(case, found)) == ((), (), [])


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
    case = situation(changed(old, new))
    assert [missing in sentence for sentence in persistence_of(case).missing] == [True]
    (cause,) = not_written_down(case, Measured())
    assert cause.remedy[-1] == "networkctl reload"
    assert cause.undo[0].startswith("rm /etc/systemd/network/20-wlan0.network.d/viacheck-")


def test_the_gateway_of_the_lease_counts() -> None:
    assert persistence_of(situation(changed("Gateway=10.10.50.1", "Gateway=_dhcp4"))).holds


def test_a_file_in_run_is_gone_after_a_reboot() -> None:
    files = dict(HEALTHY)
    files["/run/systemd/network/20-wlan0.network"] = files.pop(NETWORK)
    found = persistence_of(situation(files))
    assert len(found.missing) == 2
    assert {why for _place, why in found.astray} == {"/run is empty after a reboot"}


def test_an_earlier_file_that_matches_hides_a_later_one() -> None:
    files = HEALTHY | {"/usr/lib/systemd/network/10-all.network": "[Match]\nName=w*\n\n[Network]\nDHCP=yes\n"}
    assert not persistence_of(situation(files)).holds
    masked = files | {"/etc/systemd/network/10-all.network": ""}
    assert persistence_of(situation(masked)).holds


@pytest.mark.parametrize(
    ("match", "fits"),
    [("Name=eth* wl*", True), ("Name=!eth* docker*", True), ("Name=!wlan0", False), ("Type=wlan", True),
     ("Type=ether", False), ("MACAddress=02-00-00-00-00-0C", True), ("Driver=iwlwifi", False)],
)  # fmt: skip
def test_matches(match: str, fits: bool) -> None:
    files = changed("Name=wlan0", match)
    del files["/run/systemd/netif/links/12"]
    assert (persistence_of(situation(files)).manager == "networkd") is fits


def test_a_tables_name_is_networkds_own() -> None:
    named = changed("Table=200", "Table=wlan0rt")
    case = situation(named)
    assert {(f.code, f.breaks) for f in findings_of(case, persistence_of(case))} == {("TABLE_NAME_MISSING", True)}
    known = named | {"/etc/systemd/networkd.conf": "[Network]\nRouteTable=wlan0rt:200\n"}
    case = situation(known)
    assert findings_of(case, persistence_of(case)) == []


def test_unmanaged_links_are_not_held() -> None:
    files = HEALTHY | {"/run/systemd/netif/links/12": "ADMIN_STATE=unmanaged\n"}
    files[NETWORK] += "\n[Link]\nUnmanaged=yes\n"
    assert persistence_of(situation(files)).manager is None


def test_the_remedy_is_what_is_missing(tmp_path: Path) -> None:
    files = changed("From=172.17.0.0/16", "From=172.18.0.0/16")
    (cause,) = not_written_down(situation(files), Measured())
    command = cause.remedy[0].replace("/etc/", f"{tmp_path}/etc/")
    subprocess.run(["/bin/sh", "-ec", command], check=True)
    (written,) = tmp_path.rglob("*.conf")
    mended = files | {f"/{written.relative_to(tmp_path)}": written.read_text()}
    assert persistence_of(situation(mended)).holds


@pytest.mark.parametrize(
    "text",
    ["[", "]", "=", "[Match\nName=wlan0", "[Match]\nName=wlan0\n[Route]\nDestination=no\n", "[Match]\nName=[\n",
     "[Match]\nName=wlan0\n[RoutingPolicyRule]\nFrom=172.17.0.0/99\nTable=x\nPriority=many\n", "\0", "key=before\n"],
)  # fmt: skip
def test_garbage_is_a_problem_with_its_line(text: str) -> None:
    file = HostFile(path=NETWORK, exists=True, text=text)
    for problem in persistence_of(situation((file,), persist="networkd")).problems:
        assert problem.path == NETWORK
        assert problem.line > 0
