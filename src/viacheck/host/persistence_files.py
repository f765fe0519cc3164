"""Collects the files that decide what survives a reboot, each reduced to what concerns addressing and routing.

The files are opened inside the target's namespaces and not by testinfra: a shell for each of them would cost more than
the rest of the snapshot, and their whole text, which may hold keys, would go through a command's output.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from glob import glob

from viacheck.host.facts import READ_LIMIT
from viacheck.host.namespace import Namespace
from viacheck.model.snapshot import HostFile
from viacheck.persistence import ifupdown, netplan, networkd, networkmanager
from viacheck.persistence.allowlist import RC_LOCAL, keep
from viacheck.persistence.netplan import YAMLProblem

MOST_FILES = 500
"""Of one folder, or of one ``source`` line; a host with more has something else in there."""
ALWAYS = (ifupdown.INTERFACES, RC_LOCAL)
"""Told even where they do not exist."""
SINGLE = (ifupdown.IFSTATE, networkd.CONF)
FOLDERS: dict[str, str] = {
    **dict.fromkeys(networkd.FOLDERS, "*.network"),
    **dict.fromkeys(networkd.CONF_FOLDERS, "*.conf"),
    networkd.STATE_FOLDER: "*",
    **dict.fromkeys(networkmanager.PROFILE_FOLDERS, "*"),
    networkmanager.STATE_FOLDER: "*",
    **dict.fromkeys(netplan.FOLDERS, "*.yaml"),
}
"""Folders, and which of their files matter."""
SCRIPTS = (*ifupdown.SCRIPT_FOLDERS, ifupdown.LEASE_HOOKS, *networkmanager.DISPATCHER_FOLDERS)
"""Folders of scripts, of which only those matter that change routing."""


def collect(namespace: Namespace) -> tuple[HostFile, ...]:
    """Read the files of every network manager, as the namespace's host has them.

    A file that is there and cannot be read says so in ``error``; what may not be kept of a file is blank.
    """
    return namespace.call(lambda: tuple(_files()))


def ifupdown_files(namespace: Namespace) -> tuple[HostFile, ...]:
    """Read everything that ifupdown reads and runs, whole.

    Such a text may hold keys and passwords: it is for running in a lab, and for nothing that is kept or shown.
    """
    return namespace.call(lambda: tuple(_whole_files()))


def _whole_files() -> Iterator[HostFile]:
    paths = [ifupdown.INTERFACES, *(file.path for file in _sourced())]
    paths += [f"{folder}/{name}" for folder in ifupdown.SCRIPT_FOLDERS for name in _names(folder)]
    for path in paths:
        try:
            text, mode = _content(path)
        except OSError as error:
            yield HostFile(path=path, exists=True, error=error.strerror or type(error).__name__)
        else:
            yield HostFile(path=path, exists=True, text=text, mode=mode)


def _files() -> Iterator[HostFile]:
    for path in ALWAYS:
        yield _read(path)
    yield from _sourced()
    for path in SINGLE:
        if os.path.exists(path):
            yield _read(path)
    for folder, pattern in FOLDERS.items():
        names = _names(folder)
        yield from (_read(f"{folder}/{name}") for name in names if fnmatchcase(name, pattern))
        if folder in networkd.FOLDERS:
            for name in names:
                if name.endswith(".network.d"):
                    inside = f"{folder}/{name}"
                    yield from (_read(f"{inside}/{one}") for one in _names(inside) if one.endswith(".conf"))
    for folder in SCRIPTS:
        for script in (_read(f"{folder}/{name}") for name in _names(folder)):
            if script.text.strip() or script.error is not None:
                yield script


def _names(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith("."))[:MOST_FILES]
    except OSError:
        # Most hosts have one manager of the four, and an ordinary user may not look into NetworkManager's folder.
        return []


def _sourced() -> Iterator[HostFile]:
    """The files that /etc/network/interfaces reads by ``source`` and ``source-directory``, each once."""
    seen = {ifupdown.INTERFACES}
    waiting: list[str] = [ifupdown.INTERFACES]
    while waiting and len(seen) <= MOST_FILES:
        path = waiting.pop(0)
        text = _text(path)
        if text is None:
            continue
        for _line, pattern, folder in ifupdown.sources(HostFile(path=path, exists=True, text=text)):
            for found in _expanded(pattern, folder):
                if found not in seen:
                    seen.add(found)
                    waiting.append(found)
                    yield _read(found)


def _expanded(pattern: str, folder: bool) -> Sequence[str]:
    """The regular files that a pattern names; never one of another manager, or of another place altogether."""
    candidates = sorted(glob(f"{pattern.rstrip('/')}/*" if folder else pattern))[:MOST_FILES]
    return [path for path in ifupdown.sourced(pattern, folder, candidates) if os.path.isfile(path)]


def _text(path: str) -> str | None:
    try:
        return _content(path)[0]
    except OSError:
        return None


def _content(path: str) -> tuple[str, int]:
    """The text and the permission bits of a regular file; a device, such as the /dev/null that masks, is empty.

    Raises:
        OSError: when it cannot be read.
    """
    # A FIFO in such a folder would keep an ordinary open waiting for ever.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        content = file.read(READ_LIMIT) if stat.S_ISREG(status.st_mode) else b""
    return content.decode("utf-8", errors="replace"), stat.S_IMODE(status.st_mode)


def _read(path: str) -> HostFile:
    if not os.path.lexists(path):
        return HostFile(path=path, exists=False)
    try:
        text, mode = _content(path)
        return HostFile(path=path, exists=True, text=keep(path, text), mode=mode)
    except YAMLProblem as problem:
        return HostFile(path=path, exists=True, error=f"line {problem.line}: {problem}")
    except OSError as error:
        return HostFile(path=path, exists=True, error=error.strerror or type(error).__name__)
