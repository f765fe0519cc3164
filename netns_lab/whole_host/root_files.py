"""The files of a whole host that its base root lacks: its configuration, its units, and which units are enabled."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netns_lab.plan import LabPlan

UNITS = "/etc/systemd/system"
VENDOR_UNITS = "/lib/systemd/system"
GENERATORS = "/etc/systemd/system-generators"
NO_UNIT = "/dev/null"
LINK_UNIT, WATCH_LINKS = "link-hook.service", "/usr/local/sbin/watch-links"
NETWORKD_UNITS = {
    "systemd-networkd.service": (
        "multi-user.target.wants",
        "/etc/systemd/system/dbus-org.freedesktop.network1.service",
    ),
    "systemd-networkd.socket": ("sockets.target.wants", None),
    "systemd-networkd-wait-online.service": ("network-online.target.wants", None),
}
NETWORK_MANAGER_UNITS = ("NetworkManager.service", "NetworkManager-wait-online.service")
"""The units that the package enables."""

UNITS_WITHOUT_WORK = (
    "dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount", "systemd-remount-fs.service",
    "systemd-sysusers.service", "systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup-dev-early.service",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
    "dbus-org.freedesktop.login1.service", "systemd-logind.service", "systemd-user-sessions.service",
)  # fmt: skip
"""Units that have nothing to do here: the disk has its users and no /etc/fstab, there are no devices but those of the
network, and there are no logins. They are masked, as each boot of a host would spend a tenth of its time on them."""
GENERATORS_WITHOUT_WORK = (
    "cryptsetup", "debug", "factory-reset", "fstab", "getty", "gpt-auto", "hibernate-resume", "integritysetup", "run",
    "ssh", "system-update", "tpm2", "veritysetup",
)  # fmt: skip
"""systemd's generators (systemd.generator(7)) for disks, terminals and kernel options, of which a host has none."""


@dataclass(frozen=True, slots=True)
class RootFile:
    """A file of the root, a symbolic link, or a file of the base root that the host does not have."""

    text: str = ""
    mode: int = 0o644
    link_to: str | None = None
    removed: bool = False

    def write(self, path: Path) -> None:
        """Write the file, and the folders that it lies in."""
        os.makedirs(path.parent, exist_ok=True)
        if self.removed:
            # An overlay hides the lower file behind such a device.
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
        elif self.link_to is not None:
            path.symlink_to(self.link_to)
        else:
            path.write_text(self.text, errors="surrogateescape")
            path.chmod(self.mode)


def root_files(plan: LabPlan) -> dict[str, RootFile]:
    """Return the files of a plan's host by absolute path: the plan's own, and what makes a host of them."""
    files = {
        path: RootFile(text, _mode(path, executable=path in plan.executables)) for path, text in plan.files.items()
    }
    # A container has no name below /run/netns.
    links = {path: target for path, target in plan.file_links.items() if not path.startswith("/run/")}
    files |= {path: RootFile(link_to=target) for path, target in links.items()}
    files |= {
        "/etc/hostname": RootFile("host\n"),
        "/etc/hosts": RootFile("127.0.0.1 localhost host\n"),
        # With an id the boot is not the first, at which systemd would reset which units are enabled.
        "/etc/machine-id": RootFile(f"{uuid.uuid4().hex}\n"),
        f"{UNITS}/systemd-udev-trigger.service.d/lab.conf": RootFile(_TRIGGER_NETWORK_DEVICES),
        "/etc/systemd/system.conf.d/lab.conf": RootFile(_MANAGER),
        "/etc/containerd/config.toml": RootFile(_CONTAINERD),
    }
    files |= {f"{UNITS}/{unit}": RootFile(link_to=NO_UNIT) for unit in UNITS_WITHOUT_WORK}
    files |= {f"{GENERATORS}/systemd-{name}-generator": RootFile(link_to=NO_UNIT) for name in GENERATORS_WITHOUT_WORK}
    if plan.link_hook is not None:
        files[WATCH_LINKS] = RootFile(_WATCH_LINKS.format(hook=plan.link_hook), 0o755)
        files[f"{UNITS}/{LINK_UNIT}"] = RootFile(_LINK_UNIT)
        files |= _enabled(LINK_UNIT, "multi-user.target.wants", UNITS)
    if plan.networkd:
        for unit, (wanted_by, alias) in NETWORKD_UNITS.items():
            files |= _enabled(unit, wanted_by, VENDOR_UNITS)
            if alias is not None:
                files[alias] = RootFile(link_to=f"{VENDOR_UNITS}/{unit}")
    if not plan.network_manager:
        files |= {f"{UNITS}/{unit}": RootFile(link_to=NO_UNIT) for unit in NETWORK_MANAGER_UNITS}
    return files


def _mode(path: str, *, executable: bool) -> int:
    if executable:
        return 0o755
    # NetworkManager and netplan refuse, or warn of, files that others may read.
    return 0o600 if path.startswith(("/etc/NetworkManager/system-connections/", "/etc/netplan/")) else 0o644


def _enabled(unit: str, wanted_by: str, folder: str) -> Mapping[str, RootFile]:
    return {f"{UNITS}/{wanted_by}/{unit}": RootFile(link_to=f"{folder}/{unit}")}


_TRIGGER_NETWORK_DEVICES = """\
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --subsystem-match=net --action=add
"""
_MANAGER = """\
[Manager]
DefaultTimeoutStopSec=5s
# The engine is started again for each thing that it does in a container's namespaces. By its defaults, Go spends a
# quarter of each start on garbage.
DefaultEnvironment=GOGC=400
"""
_CONTAINERD = """\
version = 2
# Docker does not use it, and Docker's own package of containerd leaves it out as well.
disabled_plugins = ["io.containerd.grpc.v1.cri"]

[plugins."io.containerd.gc.v1.scheduler"]
  # By its default, containerd 1.6 looks for garbage 200 times a second while it has none.
  pause_threshold = 0.001
"""
_LINK_UNIT = f"""\
[Unit]
Description=Runs a program whenever an interface comes up, as ifplugd does

[Service]
ExecStart={WATCH_LINKS}

[Install]
WantedBy=multi-user.target
"""
_WATCH_LINKS = """\
#!/bin/sh
# Lines of ip-monitor(8): "2: wlan0@if7: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 ..."
ip -o monitor link | while read -r _index name flags _rest; do
    name=${{name%:}}
    case $flags in
        *[\\<,]UP[,\\>]*) {hook} "${{name%%@*}}" ;;
    esac
done
"""
