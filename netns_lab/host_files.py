"""The private files of a lab's host: a mount namespace in which /etc, /run and other folders are the lab's own.

Commands and daemons of the lab write there. A plan may come from a snapshot of another host, so each of its files is
written only below a private folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from netns_lab.plan import LabPlan
from viacheck.host import syscalls

_OVERLAID = ("/etc", "/usr/local")
_NETWORK_SYSCTLS = "/proc/sys/net"
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - folders to cover, not files to write


def private_files(plan: LabPlan) -> Callable[[], None]:
    """Return the function that mounts the private folders and writes the plan's files.

    It must run in a new mount namespace. It raises PermissionError for a file outside of the private folders.
    """

    def prepare() -> None:
        if plan.untrusted:
            _protect_machine()
        syscalls.mount("tmpfs", "/run", "tmpfs", options="mode=755")
        os.makedirs("/run/netns")
        private = ["/run"]
        for folder in _OVERLAID:
            if folder == "/etc" or any(path.startswith(f"{folder}/") for path in plan.files):
                _overlay(folder)
                private.append(folder)
        for path in plan.hidden:
            if os.path.isdir(path):
                syscalls.mount("tmpfs", path, "tmpfs", options="mode=755")
                private.append(path)
            elif os.path.exists(path):
                _hide_file(path, private)
        # /sys/class/net must show this namespace. Only an interactive shell needs it where the system forbids it.
        with contextlib.suppress(OSError):
            syscalls.mount("sysfs", "/sys", "sysfs")
        _write(plan, [os.path.realpath(folder) for folder in private])

    return prepare


def cover_folder(path: str) -> None:
    """Give a lab's host an empty folder of its own, also where the machine has none; those beside it stay shared.

    It must run in the host's mount namespace, behind :func:`private_files`.
    """
    parent, name = os.path.split(path)
    machine = f"/run/lab{parent}-machine"
    os.makedirs(machine)
    syscalls.mount(parent, machine, flags=syscalls.MS_BIND | syscalls.MS_REC)
    # Nothing can be mounted where the machine has no folder.
    syscalls.mount("tmpfs", parent, "tmpfs", options="mode=755")
    for other in os.listdir(machine):
        if other != name:
            os.symlink(f"{machine}/{other}", f"{parent}/{other}")
    os.mkdir(path)


def _protect_machine() -> None:
    """Make every mount read-only, with empty folders for temporary files; sysctls of the network stay writable.

    The private folders are mounted on top of it afterwards.
    """
    syscalls.mount(_NETWORK_SYSCTLS, _NETWORK_SYSCTLS, flags=syscalls.MS_BIND)
    syscalls.mount_setattr("/", add=syscalls.MOUNT_ATTR_RDONLY, below=True)
    syscalls.mount_setattr(_NETWORK_SYSCTLS, clear=syscalls.MOUNT_ATTR_RDONLY)
    for folder in _TEMPORARY:
        syscalls.mount("tmpfs", folder, "tmpfs", options="mode=1777")


def _write(plan: LabPlan, private: Sequence[str]) -> None:
    for folder, path in {os.path.dirname(path): path for path in (*plan.files, *plan.file_links)}.items():
        if not _is_below(os.path.realpath(folder), private):
            raise PermissionError(errno.EPERM, "is outside of the lab's private folders", path)
    for path, text in plan.files.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # /etc/resolv.conf is often a link into /run, which is empty here.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        Path(path).write_text(text, errors="surrogateescape")
        if path in plan.executables:
            os.chmod(path, 0o755)  # noqa: S103 - a program needs it
    for path, target in plan.file_links.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)


def _hide_file(path: str, private: Sequence[str]) -> None:
    """Remove a file from a private folder; elsewhere cover it with /dev/null, as the file is the machine's own."""
    if _is_below(os.path.realpath(os.path.dirname(path)), [os.path.realpath(folder) for folder in private]):
        os.unlink(path)
    else:
        syscalls.mount("/dev/null", path, flags=syscalls.MS_BIND)


def _is_below(folder: str, parents: Sequence[str]) -> bool:
    return any(f"{folder}/".startswith(f"{parent}/") for parent in parents)


def _overlay(folder: str) -> None:
    """Mount an overlay on a folder, so that changes below it stay in this mount namespace."""
    if os.stat(folder).st_uid != os.geteuid():
        _replace(folder)
        return
    upper, work = (f"/run/lab{folder}{suffix}" for suffix in ("", "-work"))
    os.makedirs(upper)
    os.makedirs(work)
    syscalls.mount("overlay", folder, "overlay", options=f"lowerdir={folder},upperdir={upper},workdir={work}")


def _replace(folder: str) -> None:
    """Mount a tmpfs on a folder, with links to the files of the machine's folder.

    Root of a user namespace needs it: in an overlay the files of the machine's root keep their owner, and the user
    namespace's root may not write them.
    """
    original = f"/run/lab{folder}-machine"
    os.makedirs(original)
    syscalls.mount(folder, original, flags=syscalls.MS_BIND | syscalls.MS_REC)
    syscalls.mount("tmpfs", folder, "tmpfs", options="mode=755")
    # Files that this user may not read are left out.
    with contextlib.suppress(shutil.Error):
        shutil.copytree(original, folder, symlinks=True, copy_function=os.symlink, dirs_exist_ok=True)
