"""Collects the files besides a network manager's that may run pipework again: systemd units, their programs, crontabs.

Units and scripts hold passwords and tokens, so only what concerns pipework is kept of each, on its own line.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from viacheck.host.facts import READ_LIMIT
from viacheck.host.namespace import Namespace
from viacheck.model.snapshot import HostFile
from viacheck.persistence.pipework import CRON_FOLDERS, CRONTAB, PROGRAM, UNIT_FOLDERS, keep, programs_of

SEARCH_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
MOST_FILES = 500


def collect(namespace: Namespace) -> tuple[HostFile, ...]:
    """Read them, as the namespace's host has them."""
    return namespace.call(lambda: tuple(_files()))


def _files() -> Iterator[HostFile]:
    for folder in SEARCH_PATH:
        # The program itself: whether it may be executed. On merged systems /bin is /usr/bin.
        if not os.path.islink(folder) and os.path.isfile(path := f"{folder}/{PROGRAM}"):
            yield HostFile(path=path, exists=True, mode=stat.S_IMODE(os.stat(path).st_mode))
    told: set[str] = set()
    for folder in UNIT_FOLDERS:
        for name in _names(folder):
            if name.endswith(".service"):
                yield from _unit(f"{folder}/{name}", told)
    yield from _mentioning(CRONTAB)
    for folder in CRON_FOLDERS:
        for name in _names(folder):
            yield from _mentioning(f"{folder}/{name}")


def _unit(path: str, told: set[str]) -> Iterator[HostFile]:
    """A unit that runs pipework itself or by a script, that script, and the links that enable the unit."""
    content = _content(path)
    if content is None:
        return
    unit = _kept(path, *content)
    scripts = {one: script for one in programs_of(unit) if (script := _script(one)) is not None}
    if PROGRAM.encode() not in content[0] and not scripts:
        return
    yield unit
    yield from (_kept(one, *script) for one, script in scripts.items() if one not in told)
    told |= set(scripts)
    yield from _enabled(path)
    timer = path.removesuffix(".service") + ".timer"
    if os.path.exists(timer):
        yield from _enabled(timer)


def _script(path: str) -> tuple[bytes, int] | None:
    """A program's text and permissions, if it is a script that names pipework, and not pipework itself."""
    content = _content(path) if os.path.basename(path) != PROGRAM else None
    return content if content is not None and content[0].startswith(b"#!") and PROGRAM.encode() in content[0] else None


def _mentioning(path: str) -> Iterator[HostFile]:
    content = _content(path)
    if content is not None and PROGRAM.encode() in content[0]:
        yield _kept(path, *content)


def _enabled(unit: str) -> Iterator[HostFile]:
    """The links by which systemctl(1) has enabled a unit."""
    name = os.path.basename(unit)
    for folder in UNIT_FOLDERS:
        for wanting in _names(folder):
            path = f"{folder}/{wanting}/{name}"
            if wanting.endswith((".wants", ".requires")) and os.path.lexists(path):
                yield HostFile(path=path, exists=True)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))[:MOST_FILES]
    except OSError:
        return []


def _content(path: str) -> tuple[bytes, int] | None:
    try:
        # A FIFO would keep an ordinary open waiting for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            return (file.read(READ_LIMIT), stat.S_IMODE(status.st_mode)) if stat.S_ISREG(status.st_mode) else None
    except OSError:
        return None


def _kept(path: str, content: bytes, mode: int) -> HostFile:
    return HostFile(path=path, exists=True, text=keep(path, content.decode("utf-8", errors="replace")), mode=mode)
