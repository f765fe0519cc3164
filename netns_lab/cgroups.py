"""The cgroups of engines and whole hosts. Only these folders outlive a killed lab, so the next start sweeps them.

The name of a cgroup holds the process that owns it, with its start time: a later process with the same number is not
taken for the owner.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time

from netns_lab.docker_engine.pid_translation import start_time

MOUNT_POINT = "/sys/fs/cgroup"
PREFIX = "viacheck-lab-"
REMOVED_WITHIN = 2.0
_RETRY_EVERY = 0.002
_THAWED = {"freezer.state": "THAWED", "cgroup.freeze": "0"}
"""The freezer's file and its value for running processes: cgroup version 1, version 2."""

_numbers = itertools.count(1)


def new_name() -> str:
    """Return the name of a cgroup for another lab of this process."""
    return f"{PREFIX}{_owner()}-{next(_numbers)}"


def try_to_write() -> bool:
    """Make and remove a cgroup in every hierarchy; return whether any hierarchy is mounted.

    Raises:
        OSError: when a hierarchy cannot be written.
    """
    folders = _folders(f"{PREFIX}{_owner()}-trial")
    for folder in folders:
        os.mkdir(folder)
        os.rmdir(folder)
    return bool(folders)


def remove(name: str, within: float = REMOVED_WITHIN) -> list[str]:
    """Remove a cgroup with everything below it from all hierarchies; return the folders that stay.

    Args:
        name: of the cgroup.
        within: seconds to try for; 0 tries once.
    """
    deadline = time.monotonic() + within
    left = [folder for folder in _folders(name) if not _remove_tree(folder)]
    while left and time.monotonic() < deadline:
        time.sleep(_RETRY_EVERY)
        left = [folder for folder in left if not _remove_tree(folder)]
    return left


def sweep() -> None:
    """Remove the empty cgroups of labs whose owner was killed; those of running owners stay."""
    names = {name for place in _hierarchies() for name in os.listdir(place) if name.startswith(PREFIX)}
    for name in names:
        pid, _, started = name.removeprefix(PREFIX).rpartition("-")[0].partition("-")
        if not pid.isdecimal() or start_time(int(pid)) != started:
            remove(name, within=0)


def unified_hierarchy() -> str | None:
    """Return where the hierarchy of version 2 is mounted, or None."""
    return next((place for place, kind in _mounted() if kind == "cgroup2"), None)


def _owner() -> str:
    return f"{os.getpid()}-{start_time(os.getpid())}"


def _hierarchies() -> list[str]:
    """Return the mount points: one of version 2, or one for each controller of version 1."""
    return [place for place, _kind in _mounted()]


def _mounted() -> list[tuple[str, str]]:
    with open("/proc/self/mounts") as mounts:
        entries = [line.split() for line in mounts]
    return [
        (place, kind)
        for _, place, kind, *_ in entries
        if kind in ("cgroup", "cgroup2") and (place == MOUNT_POINT or place.startswith(f"{MOUNT_POINT}/"))
    ]


def _folders(name: str) -> list[str]:
    return [f"{place}/{name}" for place in _hierarchies()]


def _remove_tree(folder: str) -> bool:
    # A cgroup's files go with its folder; the kernel refuses to remove a folder with processes in it (EBUSY).
    for below, _, _ in os.walk(folder, topdown=False):
        _thaw(below)
        with contextlib.suppress(OSError):
            os.rmdir(below)
    return not os.path.isdir(folder)


def _thaw(folder: str) -> None:
    """Let frozen processes run, so that the SIGKILL that waits for them ends them (a paused container's)."""
    for name, running in _THAWED.items():
        with contextlib.suppress(OSError), open(f"{folder}/{name}", "r+") as file:
            if file.read().strip() != running:
                file.seek(0)
                file.write(running)
