"""Collects the files that decide what survives a reboot, each reduced to the lines about addresses and routing."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from glob import glob

from viacheck.host.files import MOST_NAMES, names_in, read_text
from viacheck.host.namespace import Namespace
from viacheck.host.table_files import table_files
from viacheck.model.snapshot import HostFile
from viacheck.parsers.rt_tables import registered
from viacheck.persistence import crontabs, ifupdown, manager_units, netplan, networkd, networkmanager
from viacheck.persistence.allowlist import redact_script, redact_to_allowlist
from viacheck.persistence.boot_files import (
    NETWORK_SCRIPTS,
    NETWORKD_DISPATCHER,
    RC_LOCAL,
    UNIT_FOLDERS,
    enabling_links,
)
from viacheck.persistence.hook_scripts import called_scripts
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
    NETWORK_SCRIPTS: "r[uo]*e-*",
}
"""Folders, and the pattern of the files in them that matter."""
SCRIPTS = (
    *ifupdown.SCRIPT_FOLDERS, ifupdown.LEASE_HOOKS, *networkmanager.DISPATCHER_FOLDERS, *NETWORKD_DISPATCHER
)  # fmt: skip
"""Folders of scripts. Only the scripts that change routing matter."""


def collect(namespace: Namespace) -> tuple[HostFile, ...]:
    """Read the files of every network manager, as the namespace's host has them.

    A file that exists and cannot be read has the reason in ``error``. Lines that may not be kept are blank.
    """
    return namespace.call(lambda: tuple(_with_called(_files())))


def _with_called(files: Iterator[HostFile]) -> Iterator[HostFile]:
    """Yield the files, systemd's units that change routing, and the scripts that any of them runs."""
    called: dict[str, HostFile] = {}

    def scripts_of(file: HostFile) -> list[HostFile]:
        scripts = []
        for path in dict.fromkeys(path for line in file.text.split("\n") for path in _called(line)):
            script = called.get(path) or _called_script(path)
            if script is not None:
                called[path] = script
                scripts.append(script)
        return scripts

    for file in files:
        yield file
        if file.exists and file.error is None:
            scripts_of(file)
    for folder in UNIT_FOLDERS:
        for name in names_in(folder):
            unit = _read(f"{folder}/{name}") if name.endswith(".service") else None
            if unit is not None and unit.error is None and (_CHANGES.search(unit.text) or scripts_of(unit)):
                yield unit
                yield from enabled_by(name)
    yield from _crontabs(scripts_of)
    yield from called.values()
    yield from _manager_units()


def _crontabs(scripts_of: Callable[[HostFile], list[HostFile]]) -> Iterator[HostFile]:
    """Yield the crontabs whose lines change routing at boot, and cron's units where systemd is the init."""
    paths = [crontabs.CRONTAB, crontabs.ROOTS_CRONTAB]
    paths += [f"{crontabs.CRON_FOLDER}/{name}" for name in names_in(crontabs.CRON_FOLDER)]
    any_changes = False
    for file in (_read(path) for path in paths if os.path.isfile(path)):
        changes = [line for line in crontabs.reboot_lines(file) if _CHANGES.search(line.command)]
        if file.error is None and (changes or scripts_of(file)):
            any_changes = True
            yield file
    if any_changes and os.path.isdir(manager_units.RUNTIME):
        units = list(_units(crontabs.UNITS))
        yield from units or [HostFile(path=f"{manager_units.CONFIGURED}/{crontabs.UNITS[0]}", exists=False)]


def _known_names() -> frozenset[str]:
    """Return the names of the host's interfaces and tables."""
    names = {name for _index, name in socket.if_nameindex()}
    return frozenset(names | {entry.name for entry in registered(table_files())})


_CHANGES = re.compile(r"\bip\b.*\b(ru\w*|ro\w*)\b")


def _called(line: str) -> Iterator[str]:
    """Yield the scripts that a line runs: a command, a hook of interfaces(5), ExecStart= of a unit, or @reboot."""
    word, _space, rest = line.strip().partition(" ")
    key, equals, value = line.strip().partition("=")
    yield from called_scripts(value.lstrip("-+!:@") if equals and key.startswith("Exec") else line)
    if word in ifupdown.HOOKS or word == "@reboot":
        yield from called_scripts(rest.removeprefix("root "))


def _called_script(path: str) -> HostFile | None:
    """Return a script that changes routing; None for any other program."""
    try:
        text, mode = read_text(path)
    except OSError:
        return None
    kept = redact_script(text, _known_names) if text.startswith("#!") else ""
    return HostFile.kept(path, text, kept, mode) if _CHANGES.search(kept) else None


def enabled_by(unit: str) -> Iterator[HostFile]:
    """Yield the links by which systemctl(1) enables a unit, or an instance of a template."""
    for folder in UNIT_FOLDERS:
        for wanting in (name for name in names_in(folder, hidden=True) if name.endswith(manager_units.ENABLES)):
            links = [f"{folder}/{wanting}/{name}" for name in names_in(f"{folder}/{wanting}", hidden=True)]
            yield from (HostFile(path=path, exists=True) for path in enabling_links(unit, links))


def _manager_units() -> Iterator[HostFile]:
    """Yield the units that start the managers, and the links that enable them, where systemd is the init.

    sd_booted(3) asks for the same folder. A namespace without an init of its own has none, whatever files it sees.
    """
    if os.path.isdir(manager_units.RUNTIME):
        yield from _units([name for units in manager_units.UNITS.values() for name in units])


def _units(names: Sequence[str]) -> Iterator[HostFile]:
    """Yield the units of these names, and the links that enable them."""
    folders = {os.path.realpath(folder): folder for folder in reversed(manager_units.FOLDERS)}
    for unit in names:
        for folder in folders.values():
            path = f"{folder}/{unit}"
            if os.path.lexists(path):
                yield _read(path) if folder == manager_units.CONFIGURED else HostFile(path=path, exists=True)
        for folder in (*folders.values(), *manager_units.GENERATED):
            for wanting in names_in(folder):
                path = f"{folder}/{wanting}/{unit}"
                if wanting.endswith(manager_units.ENABLES) and os.path.lexists(path):
                    yield HostFile(path=path, exists=True)


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
        # The dispatcher's folder holds those of its other phases.
        paths = [path for name in names_in(folder) if not os.path.isdir(path := f"{folder}/{name}")]
        for script in map(_read, paths):
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
        return HostFile.kept(path, text, redact_to_allowlist(path, text, _known_names), mode)
    except YAMLProblem as problem:
        return HostFile(path=path, exists=True, error=f"line {problem.line}: {problem}")
    except OSError as error:
        return HostFile(path=path, exists=True, error=error.strerror or type(error).__name__)
