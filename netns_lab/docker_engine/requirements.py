"""The requirements of an engine lab on this machine: root, the Debian packages, writable cgroups."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from netns_lab import cgroups
from netns_lab.docker_engine.image import BUSYBOX
from netns_lab.docker_engine.sandbox import SEARCH_PATH

PACKAGES = {"dockerd": "docker.io", "docker-init": "docker.io", "iptables": "iptables"}
ALL_USER_IDS = ["0", "0", "4294967295"]


def missing_requirement(*, packages: bool = True) -> str | None:
    """Return why no engine can run here, in one line with the remedy, or None when an engine can run.

    ``packages``: the engine is this machine's own.
    """
    if os.geteuid() != 0:
        return "an engine lab needs root: dockerd mounts file systems and makes cgroups"
    if Path("/proc/self/uid_map").read_text().split() != ALL_USER_IDS:
        return "an engine lab needs the machine's root; this is root of a user namespace only"
    missing = missing_packages() if packages else []
    if missing:
        return f"an engine lab needs packages that are not installed: apt-get install {' '.join(missing)}"
    try:
        writable = cgroups.try_to_write()
    except OSError as error:
        return f"an engine lab needs cgroups that can be written: {error.filename}: {error.strerror}"
    return None if writable else f"an engine lab needs cgroups: nothing is mounted on {cgroups.MOUNT_POINT}"


def missing_packages() -> list[str]:
    """Return the Debian packages that an engine lab needs and that are not installed."""
    missing = {package for program, package in PACKAGES.items() if shutil.which(program, path=SEARCH_PATH) is None}
    if not _is_static(BUSYBOX):
        missing.add("busybox-static")
    return sorted(missing)


def _is_static(program: str) -> bool:
    try:
        with open(program, "rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    # A dynamic ELF file names its loader (/lib64/ld-linux…) behind the program headers; see elf(5), PT_INTERP.
    return start.startswith(b"\x7fELF") and b"/ld-" not in start
