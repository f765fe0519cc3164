"""Names of routing tables, as iproute2 reads them from rt_tables and rt_tables.d/*.conf (ip-route(8))."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from viacheck.model.snapshot import HostFile


@dataclass(frozen=True, slots=True)
class TableEntry:
    """A line that gives a number a name."""

    path: str
    line: int
    number: int
    name: str


def registered(files: Iterable[HostFile]) -> list[TableEntry]:
    """Return every entry of the files. A file in /etc overrides its namesake in /usr/share, as in iproute2 >= 6.5."""
    files = [file for file in files if file.exists and "rt_tables" in file.path]
    own = {file.path.removeprefix("/etc/iproute2/") for file in files if file.path.startswith("/etc/")}
    entries = []
    for file in files:
        if file.path.startswith("/usr/") and file.path.removeprefix("/usr/share/iproute2/") in own:
            continue
        for count, text in enumerate(file.text.split("\n"), 1):
            columns = text.split("#", 1)[0].split()
            if len(columns) >= 2:
                number = _number(columns[0])
                if number is not None:
                    entries.append(TableEntry(file.path, count, number, columns[1]))
    return entries


def _number(text: str) -> int | None:
    """Return a number as iproute2 reads it: hexadecimal after 0x, otherwise decimal."""
    if re.fullmatch(r"0x[0-9a-fA-F]{1,8}", text):
        return int(text, 16)
    return int(text) if re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) else None
