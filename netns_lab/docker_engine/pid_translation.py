"""Process numbers between process namespaces (pid_namespaces(7)): an engine counts its own."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def outer_pid(inner: int, proc: str) -> int:
    """Translate a process number of another process namespace into this namespace's.

    Args:
        inner: the number in that namespace.
        proc: that namespace's /proc.

    Raises:
        ProcessLookupError: when the process has ended.
    """
    try:
        netns, started = os.stat(f"{proc}/{inner}/ns/net"), start_time(inner, proc)
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                lines = status.read_text().splitlines()
                numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
                # The depth of the namespace is unknown, and several engines may use the same number. The network
                # namespace distinguishes the engines, and the start time other processes with this number.
                outer = int(status.parent.name)
                same_netns = str(inner) in numbers[1:] and os.path.samestat(os.stat(status.parent / "ns/net"), netns)
                if same_netns and start_time(outer) == started:
                    return outer
    except FileNotFoundError:
        pass
    raise ProcessLookupError(f"process {inner} of {proc} has ended")


def start_time(pid: int, proc: str = "/proc") -> str | None:
    """Return when a process started, in clock ticks since the boot (proc(5), field 22), or None if it has ended."""
    try:
        # The second field is the command in parentheses, which may hold any character.
        return Path(f"{proc}/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
