"""Collects the files beside a network manager's that may run pipework again: systemd units, their programs, crontabs.

Units and scripts hold passwords and tokens, so that only the lines about pipework are kept, each at its line number.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from viacheck.host.files import names_in, read_file
from viacheck.host.namespace import Namespace
from viacheck.host.persistence_files import enabled_by
from viacheck.model.snapshot import HostFile
from viacheck.persistence.boot_files import UNIT_FOLDERS
from viacheck.persistence.crontabs import CRON_FOLDERS, CRONTAB
from viacheck.persistence.pipework import programs_of, redact_to_pipework_lines
from viacheck.persistence.pipework_line import PROGRAM

SEARCH_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def collect(namespace: Namespace) -> tuple[HostFile, ...]:
    """Read the files, as the namespace's host has them."""
    return namespace.call(lambda: tuple(_files()))


def _files() -> Iterator[HostFile]:
    for folder in SEARCH_PATH:
        # The program itself, for its permissions. On merged systems /bin is /usr/bin.
        if not os.path.islink(folder) and os.path.isfile(path := f"{folder}/{PROGRAM}"):
            yield HostFile(path=path, exists=True, mode=stat.S_IMODE(os.stat(path).st_mode))
    yielded: set[str] = set()
    for folder in UNIT_FOLDERS:
        for name in names_in(folder, hidden=True):
            if name.endswith(".service"):
                yield from _unit(f"{folder}/{name}", yielded)
    yield from _mentioning(CRONTAB)
    for folder in CRON_FOLDERS:
        for name in names_in(folder, hidden=True):
            yield from _mentioning(f"{folder}/{name}")


def _unit(path: str, yielded: set[str]) -> Iterator[HostFile]:
    """Yield a unit that runs pipework itself or by a script, the script, and the links that enable the unit."""
    content = _content(path)
    if content is None:
        return
    unit = _kept(path, *content)
    programs = programs_of(unit)
    scripts = {program: script for program in programs if (script := _script(program)) is not None}
    if PROGRAM.encode() not in content[0] and not scripts:
        return
    yield unit
    yield from (_kept(program, *script) for program, script in scripts.items() if program not in yielded)
    yielded |= set(scripts)
    yield from enabled_by(os.path.basename(path))
    timer = path.removesuffix(".service") + ".timer"
    if os.path.exists(timer):
        yield from enabled_by(os.path.basename(timer))


def _script(path: str) -> tuple[bytes, int] | None:
    """Return a program's text and permissions, if the program is a script that names pipework, and not pipework."""
    content = _content(path) if os.path.basename(path) != PROGRAM else None
    return content if content is not None and content[0].startswith(b"#!") and PROGRAM.encode() in content[0] else None


def _mentioning(path: str) -> Iterator[HostFile]:
    content = _content(path)
    if content is not None and PROGRAM.encode() in content[0]:
        yield _kept(path, *content)


def _content(path: str) -> tuple[bytes, int] | None:
    """Return the content and the permission bits of a file; None when it cannot be read."""
    try:
        return read_file(path)
    except OSError:
        return None


def _kept(path: str, content: bytes, mode: int) -> HostFile:
    text = content.decode("utf-8", errors="replace")
    return HostFile.kept(path, text, redact_to_pipework_lines(path, text), mode)
