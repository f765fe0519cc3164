"""Names of routing tables, as iproute2 reads them from rt_tables and rt_tables.d/*.conf (ip-route(8))."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from viacheck.model.snapshot import HostFile


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One line that gives a number a name."""

    path: str
    line: int
    number: int
    name: str


def registered(files: Iterable[HostFile]) -> list[TableEntry]:
    """Every entry of the given files. /etc overrides /usr/share as a whole, as iproute2 >= 6.5 does for each file."""
    files = [file for file in files if file.exists and "rt_tables" in file.path]
    own = {file.path.removeprefix("/etc/iproute2/") for file in files if file.path.startswith("/etc/")}
    entries = []
    for file in files:
        if file.path.startswith("/usr/") and file.path.removeprefix("/usr/share/iproute2/") in own:
            continue
        for count, text in enumerate(file.text.splitlines(), 1):
            words = text.split("#", 1)[0].split()
            if len(words) >= 2:
                try:
                    number = int(words[0], 0)
                except ValueError:
                    continue
                entries.append(TableEntry(file.path, count, number, words[1]))
    return entries
