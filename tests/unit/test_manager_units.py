"""PERSIST-01 asks whether anything starts the manager at boot: its files alone set nothing."""

from __future__ import annotations

import pytest

from tests.helpers.persistence_hosts import host_file, recorded, resolved
from viacheck.diagnosis.persistence import not_written_down
from viacheck.model.measurements import Measurements
from viacheck.model.snapshot import HostFile
from viacheck.persistence.assess import assess_persistence
from viacheck.persistence.manager_config import Manager
from viacheck.persistence.manager_units import UNITS, NotStarted, not_started

VENDOR, WANTS, RUNTIME = "/usr/lib/systemd/system", "/etc/systemd/system/multi-user.target.wants", "/run/systemd/system"
HOSTS: dict[Manager, str] = {
    "ifupdown": "ifupdown-healthy", "networkd": "networkd-healthy", "networkmanager": "networkmanager-healthy",
}  # fmt: skip


def there(*paths: str) -> tuple[HostFile, ...]:
    return tuple(HostFile(path=path, exists=True) for path in paths)


@pytest.mark.parametrize("manager", HOSTS)
@pytest.mark.parametrize("masked", [False, True])
def test_files_that_nothing_reads_are_not_persistent(manager: Manager, masked: bool) -> None:
    unit = UNITS[manager][0]
    files = (*(host_file(path, text) for path, text in recorded(HOSTS[manager]).items()), *there(f"{VENDOR}/{unit}"))
    assert assess_persistence(resolved((*files, *there(f"{WANTS}/{unit}")))).holds
    units = there(f"/etc/systemd/system/{unit}") if masked else ()
    case = resolved((*files, *units))
    persistence = assess_persistence(case)
    assert persistence.unit == NotStarted(unit, masked)
    assert len(persistence.missing) == 1
    assert f"{unit} is {'masked' if masked else 'not enabled'}" in persistence.missing[0]
    (cause,) = not_written_down(case, Measurements())
    assert cause.code == "NOT_PERSISTENT"
    assert cause.sentence.endswith("lost after a reboot")
    unmask, mask = ([f"systemctl unmask {unit}"], [f"systemctl mask {unit}"]) if masked else ([], [])
    assert cause.remedy.lines == [*unmask, f"systemctl enable {unit}"]
    assert cause.remedy.rollback_lines == [f"systemctl disable {unit}", *mask]


@pytest.mark.parametrize(
    ("manager", "enabled_by"),
    [
        ("networkd", "/etc/systemd/system/sockets.target.wants/systemd-networkd.socket"),
        ("networkd", "/etc/systemd/system/network-online.target.wants/systemd-networkd-wait-online.service"),
        ("networkd", "/run/systemd/generator/multi-user.target.wants/systemd-networkd.service"),
        ("networkmanager", f"{VENDOR}/multi-user.target.requires/NetworkManager.service"),
    ],
)
def test_other_units_and_generators_start_a_manager_too(manager: Manager, enabled_by: str) -> None:
    assert not_started(there(f"{VENDOR}/{UNITS[manager][0]}"), manager) is not None
    assert not_started(there(f"{VENDOR}/{UNITS[manager][0]}", enabled_by), manager) is None


def test_what_is_enabled_until_the_next_boot_does_not_count() -> None:
    files = there(f"{VENDOR}/networking.service", f"{RUNTIME}/multi-user.target.wants/networking.service")
    assert not_started(files, "ifupdown") == NotStarted("networking.service")


def test_a_host_without_systemd_and_netplan_are_not_asked() -> None:
    assert not_started((), "ifupdown") is None
    assert not_started(there(f"{VENDOR}/systemd-networkd.service"), "netplan") is None
