"""The cgroups of engines and whole hosts. Only these folders would outlive a killed lab; a process removes them.

That process has a session of its own and outlives the lab's, SIGKILL included. Where it was killed too, the next start
sweeps. The name of a cgroup holds the process that owns it, with its start time: a later process with the same number
is not taken for the owner.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess

from netns_lab.docker_engine.pid_translation import start_time

MOUNT_POINT = "/sys/fs/cgroup"
PREFIX = "viacheck-lab-"
_REMOVED_WITHIN = 30.0
"""Seconds until the remover gives up; the kernel takes up to two to end the processes of a whole host."""
_THAWED = {"freezer.state": "THAWED", "cgroup.freeze": "0"}
"""The freezer's file and its value for running processes: cgroup version 1, version 2."""

_REMOVER = r"""
cat >/dev/null
first=$1
shift
tries=0
while [ $tries -lt 2000 ]; do
    ended=yes
    if [ "$first" != 0 ] && [ -d "/proc/$first" ]; then ended=; fi
    find "$@" -name freezer.state | while read -r file; do echo THAWED >"$file"; done
    find "$@" -name cgroup.freeze | while read -r file; do echo 0 >"$file"; done
    find "$@" -depth -type d -exec rmdir {} +
    for folder; do [ ! -d "$folder" ] || ended=; done
    if [ -n "$ended" ]; then exit 0; fi
    tries=$((tries + 1))
    sleep 0.01
done
"""
"""Waits for the end of its input, which is the end of the program that started it, then for the lab's processes. Those
that are frozen (of a paused container) must run for the SIGKILL that waits for them to end them."""

_numbers = itertools.count(1)


class LabCgroup:
    """The cgroup of one lab, and the process that removes it after the lab.

    Attributes:
        name: of the folder, in each hierarchy.
    """

    def __init__(self, first: int = 0) -> None:
        """Start the process that removes the folders; it makes none.

        Args:
            first: the lab's first process, whose end is the end of all that could make a folder; 0 when the folder is
                made before any process of the lab is started.
        """
        sweep()
        self.name = _new_name()
        self._folders = _folders(self.name)
        # A session of its own: what the terminal sends to this program must not end it.
        self._remover: subprocess.Popen[bytes] | None = subprocess.Popen(
            ["sh", "-c", _REMOVER, "sh", str(first), *self._folders], stdin=subprocess.PIPE, cwd="/",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def remove(self) -> list[str]:
        """Remove the folders, once the lab's processes are ended; return those that stay."""
        if self._remover is not None:
            assert self._remover.stdin is not None
            self._remover.stdin.close()
            try:
                self._remover.wait(_REMOVED_WITHIN)
            except subprocess.TimeoutExpired:
                self._remover.kill()
                self._remover.wait()
            self._remover = None
        return [folder for folder in self._folders if os.path.isdir(folder)]


def try_to_write() -> bool:
    """Make and remove a cgroup in every hierarchy; return whether any hierarchy is mounted.

    Raises:
        OSError: when a hierarchy cannot be written.
    """
    folders = _folders(_new_name())
    for folder in folders:
        os.mkdir(folder)
        os.rmdir(folder)
    return bool(folders)


def sweep() -> None:
    """Remove the empty cgroups of labs whose owner was killed; those of running owners stay."""
    names = {name for place in _hierarchies() for name in os.listdir(place) if name.startswith(PREFIX)}
    for name in names:
        pid, _, started = name.removeprefix(PREFIX).rpartition("-")[0].partition("-")
        if not pid.isdecimal() or start_time(int(pid)) != started:
            for folder in _folders(name):
                _remove_tree(folder)


def unified_hierarchy() -> str | None:
    """Return where the hierarchy of version 2 is mounted, or None."""
    return next((place for place, kind in _mounted() if kind == "cgroup2"), None)


def _new_name() -> str:
    return f"{PREFIX}{_owner()}-{next(_numbers)}"


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


def _remove_tree(folder: str) -> None:
    # A cgroup's files go with its folder; the kernel refuses to remove a folder with processes in it (EBUSY).
    for below, _, _ in os.walk(folder, topdown=False):
        _thaw(below)
        with contextlib.suppress(OSError):
            os.rmdir(below)


def _thaw(folder: str) -> None:
    """Let frozen processes run, so that the SIGKILL that waits for them ends them (a paused container's)."""
    for name, running in _THAWED.items():
        with contextlib.suppress(OSError), open(f"{folder}/{name}", "r+") as file:
            if file.read().strip() != running:
                file.seek(0)
                file.write(running)
