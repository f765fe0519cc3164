"""The lines of crontabs that cron runs once at boot: ``@reboot`` (crontab(5)).

cron's unit starts beside the network managers, and waits for no interface. It runs such a line once, when it starts for
the first time after a boot, and not again when an interface changes or cron is restarted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from viacheck.model.config_entry import Place
from viacheck.model.snapshot import HostFile
from viacheck.persistence.manager_units import CONFIGURED, FOLDERS, first_not_started

CRONTAB = "/etc/crontab"
CRON_FOLDER, SPOOL = "/etc/cron.d", "/var/spool/cron/crontabs"
CRON_FOLDERS = (CRON_FOLDER, SPOOL)
ROOTS_CRONTAB = f"{SPOOL}/root"
UNITS = ("cron.service", "crond.service", "cronie.service")
"""cron's unit as Debian, Fedora and Arch call it."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")
"""The names of files that cron reads in /etc/cron.d (cron(8), Debian's notes)."""
_SYSTEM_LINE = re.compile(r"\s*@reboot\s+(?P<user>\S+)\s+(?P<command>.*)")
_ROOTS_LINE = re.compile(r"\s*@reboot\s+(?P<command>.*)")
_END = re.compile(r"(?<!\\)%")
"""Begins the input of a command."""
_OTHERS_MAY_WRITE = 0o022


@dataclass(frozen=True, slots=True)
class RebootLine:
    """A line that cron runs at boot."""

    place: Place
    user: str
    command: str


def is_crontab(path: str) -> bool:
    """Return whether a path is that of a crontab whose lines may run as root."""
    return path in (CRONTAB, ROOTS_CRONTAB) or path.rpartition("/")[0] == CRON_FOLDER


def reboot_line(path: str, number: int, line: str) -> RebootLine | None:
    """Return what a crontab's line runs at boot; None for any other line."""
    match = (_ROOTS_LINE if path == ROOTS_CRONTAB else _SYSTEM_LINE).fullmatch(line)
    if match is None:
        return None
    user = match.groupdict().get("user", "root")
    return RebootLine(Place(path, number, line.strip()), user, _END.split(match["command"])[0].strip())


def reboot_lines(file: HostFile) -> Iterator[RebootLine]:
    """Yield what a crontab runs at boot."""
    for number, text in enumerate(file.text.split("\n"), 1):
        line = reboot_line(file.path, number, text)
        if line is not None:
            yield line


def not_run(file: HostFile, files: Sequence[HostFile]) -> str | None:
    """Return why cron runs no line of a crontab at boot; None if it does.

    Args:
        file: the crontab.
        files: the host's, with cron's units where systemd is the init.
    """
    folder, _slash, name = file.path.rpartition("/")
    if folder == CRON_FOLDER and not _NAME.fullmatch(name):
        return "cron reads no file of such a name: letters, digits, '_' and '-' alone"
    if file.mode & _OTHERS_MAY_WRITE:
        return "cron reads no file that others may write"
    if file.text and not file.text.endswith("\n"):
        return "cron reads no file whose last line has no newline"
    if any(other.path == f"{CONFIGURED}/{UNITS[0]}" and not other.exists for other in files):
        return "cron is not installed"
    states = [(unit, first_not_started(files, (unit,))) for unit in UNITS if _is_recorded(files, unit)]
    if states and all(state is not None for _unit, state in states):
        return str(states[0][1])
    return None


def _is_recorded(files: Sequence[HostFile], unit: str) -> bool:
    paths = {f"{folder}/{unit}" for folder in FOLDERS}
    return any(file.exists and file.path in paths for file in files)
