"""The processes of this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path


def descendants(pid: int) -> set[int]:
    """Return the processes below a process, systemd and its services among them."""
    children: dict[int, set[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, set()).add(int(path.parent.name))
    below, waiting = set[int](), [pid]
    while waiting:
        new = children.get(waiting.pop(), set()) - below
        below |= new
        waiting += new
    return below
