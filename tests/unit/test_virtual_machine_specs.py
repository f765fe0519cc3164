"""Labs of a virtual machine on the command line, and the files that their machine boots with."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from netns_lab.lab_specs import catalogue, default_labs, parse_labs
from netns_lab.plan import HOST
from netns_lab.scenarios import VIRTUAL_MACHINES
from netns_lab.virtual_machine import guest_kernel
from netns_lab.virtual_machine.guest_requirements import MACHINE, missing_for_guest
from netns_lab.virtual_machine.guest_root import GuestRoot
from netns_lab.virtual_machine.initramfs import modules_in_order
from viacheck.cli.guest_run import asks_for_guest, run_in_guest
from viacheck.model.exit_status import UsageError
from viacheck.targets.specs import SelectionError, TargetUnavailable

KERNEL = "6.1.0-56-amd64"
DEPENDENCIES = """\
kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko.xz
kernel/net/9p/9pnet.ko:
kernel/fs/netfs/netfs.ko.xz:
kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/ring.ko
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/ring.ko
kernel/drivers/virtio/ring.ko:
"""


@pytest.mark.parametrize("name", ["vm:wifi", "vm:wifi-macvlan@trixie"])
def test_a_name_is_read_back_as_it_was_written(name: str) -> None:
    (spec,) = parse_labs(name)
    assert spec.name == name
    assert spec.flavour == "vm"


def test_they_are_listed_and_run_only_when_they_are_named() -> None:
    listed = [line.split()[0] for line in catalogue() if line.startswith("vm:")]
    assert listed == [f"vm:{name}" for name in VIRTUAL_MACHINES]
    assert all(lab.flavour == "netns" for lab in default_labs())
    assert all(lab.flavour != "vm" for lab in parse_labs("all"))


def test_commands_and_radios_belong_to_machines_of_the_lab() -> None:
    for scenario in VIRTUAL_MACHINES.values():
        plan = scenario()
        names = {machine.name for machine in plan.machines}
        assert {name for name, _argv in plan.commands} | {radio.machine for radio in plan.radios} <= names
        assert HOST in {name for name, _argv in plan.commands}


@pytest.mark.parametrize(
    ("arguments", "asks"),
    [
        (["--lab", "vm:vlan"], True),
        (["--lab=nat,vm:vlan", "-q"], True),
        (["--lab", "nat"], False),
        (["-k", "vm:vlan"], False),
        ([], False),
    ],
)
def test_only_a_lab_of_a_virtual_machine_starts_one(arguments: list[str], asks: bool) -> None:
    assert asks_for_guest(arguments) is asks


def test_a_guest_starts_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = tmp_path / "cmdline"
    line.write_text("console=ttyS0 viacheck.guest=tcg\n")
    monkeypatch.setattr(guest_kernel, "_COMMAND_LINE", line)
    assert not asks_for_guest(["--lab", "vm:vlan"])
    assert "on an emulated processor" in guest_kernel.kernel_note()


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        (["--lab", "vm:vlan,nat"], "--lab: 'nat' runs here and vm: labs in a virtual machine: start them apart"),
        (["--lab", "vm:vlan,vm:bond@trixie"], "--lab: bookworm and trixie are two virtual machines: start them apart"),
        (["--lab", "vm:vlan", "--apply", "fix.sh"], "--apply does not go with vm: labs: they run apart from this"),
        (["--lab", "vm:vlan", "--local"], "--local does not go with vm: labs"),
        (["--lab", "vm:vlan", "--twin"], "--twin does not go with vm: labs"),
        (["--lab", "vm:vlann"], "--lab: unknown lab 'vlann'; did you mean vlan"),
        (["--lab", "vm:nat"], "--lab: lab 'nat' has no flavour 'vm'; with it: vlan, "),
    ],
)
def test_a_mistake_is_said_before_anything_starts(arguments: list[str], mistake: str) -> None:
    with pytest.raises(UsageError) as raised:
        run_in_guest(arguments)
    assert str(raised.value).startswith(mistake)


def test_outside_of_a_virtual_machine_such_a_lab_says_how_to_start_one() -> None:
    (spec,) = parse_labs("vm:vlan")
    with pytest.raises(TargetUnavailable, match=r"viacheck --lab vm:vlan starts one"):
        spec.open()


def test_a_fault_of_other_labs_does_not_belong_to_them() -> None:
    with pytest.raises(SelectionError, match="does not belong to lab 'vlan'"):
        parse_labs("vm:vlan+uplink-down")


def test_a_module_comes_after_those_that_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/modules" / KERNEL
    folder.mkdir(parents=True)
    (folder / "modules.dep").write_text(DEPENDENCIES)
    monkeypatch.setattr(GuestRoot, "path", tmp_path)
    names = [path.name for path in modules_in_order(GuestRoot(), ("9pnet_virtio", "9p", "built_in"))]
    assert names == ["ring.ko", "virtio.ko", "9pnet.ko", "9pnet_virtio.ko", "netfs.ko.xz", "9p.ko"]


def test_without_qemu_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = missing_for_guest(GuestRoot())
    assert reason is not None
    if platform.machine() == MACHINE:
        assert reason.endswith("apt-get install --no-install-recommends qemu-system-x86")
