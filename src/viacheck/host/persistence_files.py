"""Collects the files that decide what survives a reboot, each reduced to the lines about addresses and routing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from glob import glob

from viacheck.host.files import MOST_NAMES, names_in, read_text
from viacheck.host.namespace import Namespace
from viacheck.model.snapshot import HostFile
from viacheck.persistence import ifupdown, netplan, networkd, networkmanager
from viacheck.persistence.allowlist import RC_LOCAL, redact_to_allowlist
from viacheck.persistence.netplan import YAMLProblem

ALWAYS = (ifupdown.INTERFACES, RC_LOCAL)
"""Listed even where they do not exist."""
SINGLE = (ifupdown.IFSTATE, networkd.CONF)
FOLDERS: dict[str, str] = {
    **dict.fromkeys(networkd.FOLDERS, "*.network"),
    **dict.fromkeys(networkd.CONF_FOLDERS, "*.conf"),
    networkd.STATE_FOLDER: "*",
    **dict.fromkeys(networkmanager.PROFILE_FOLDERS, "*"),
    networkmanager.STATE_FOLDER: "*",
    **dict.fromkeys(netplan.FOLDERS, "*.yaml"),
}
"""Folders, and the pattern of the files in them that matter."""
SCRIPTS = (*ifupdown.SCRIPT_FOLDERS, ifupdown.LEASE_HOOKS, *networkmanager.DISPATCHER_FOLDERS)
"""Folders of scripts. Only the scripts that change routing matter."""


def collect(namespace: Namespace) -> tuple[HostFile, ...]:
    """Read the files of every network manager, as the namespace's host has them.

    A file that exists and cannot be read has the reason in ``error``. Lines that may not be kept are blank.
    """
    return namespace.call(lambda: tuple(_files()))


def ifupdown_files(namespace: Namespace) -> tuple[HostFile, ...]:
    """Read the whole text of every file that ifupdown reads and runs.

    Such a text may hold keys and passwords: it may run in a lab, and is neither kept nor shown.
    """
    return namespace.call(lambda: tuple(_whole_files()))


def _whole_files() -> Iterator[HostFile]:
    paths = [ifupdown.INTERFACES, *(file.path for file in _sourced())]
    paths += [f"{folder}/{name}" for folder in ifupdown.SCRIPT_FOLDERS for name in names_in(folder)]
    for path in paths:
        try:
            text, mode = read_text(path)
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
        names = names_in(folder)
        yield from (_read(f"{folder}/{name}") for name in names if fnmatchcase(name, pattern))
        if folder in networkd.FOLDERS:
            for name in names:
                if name.endswith(".network.d"):
                    inside = f"{folder}/{name}"
                    yield from (_read(f"{inside}/{part}") for part in names_in(inside) if part.endswith(".conf"))
    for folder in SCRIPTS:
        for script in (_read(f"{folder}/{name}") for name in names_in(folder)):
            if script.text.strip() or script.error is not None:
                yield script


def _sourced() -> Iterator[HostFile]:
    """Yield the files that /etc/network/interfaces reads by ``source`` and ``source-directory``, each once."""
    seen = {ifupdown.INTERFACES}
    waiting: list[str] = [ifupdown.INTERFACES]
    while waiting and len(seen) <= MOST_NAMES:
        path = waiting.pop(0)
        try:
            text, _mode = read_text(path)
        except OSError:
            continue
        for _line, pattern, folder in ifupdown.sources(HostFile(path=path, exists=True, text=text)):
            for sourced in _expanded(pattern, folder):
                if sourced not in seen:
                    seen.add(sourced)
                    waiting.append(sourced)
                    yield _read(sourced)


def _expanded(pattern: str, folder: bool) -> Sequence[str]:
    """Return the regular files that a pattern names, without files of another manager or outside of ifupdown's."""
    candidates = sorted(glob(f"{pattern.rstrip('/')}/*" if folder else pattern))[:MOST_NAMES]
    return [path for path in ifupdown.sourced(pattern, folder, candidates) if os.path.isfile(path)]


def _read(path: str) -> HostFile:
    if not os.path.lexists(path):
        return HostFile(path=path, exists=False)
    try:
        text, mode = read_text(path)
        return HostFile(path=path, exists=True, text=redact_to_allowlist(path, text), mode=mode)
    except YAMLProblem as problem:
        return HostFile(path=path, exists=True, error=f"line {problem.line}: {problem}")
    except OSError as error:
        return HostFile(path=path, exists=True, error=error.strerror or type(error).__name__)
