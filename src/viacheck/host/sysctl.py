"""Sysctls of the calling thread's network namespace, by their path below /proc/sys: ``net/ipv4/conf/eth0/rp_filter``.

The files are read directly: sysctl(8) costs a process for each call, and its dotted names are ambiguous for an
interface such as ``eth0.5``. Standard library only, because the guard's watchdog uses it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

ROOT = "/proc/sys"


def read_sysctl(path: str) -> str | None:
    """Return a value; None where the kernel does not have it, or does not let this process read it."""
    try:
        with open(f"{ROOT}/{path}") as file:
            return file.read().strip()
    except OSError:
        return None


def read_sysctls(paths: Iterable[str]) -> dict[str, str]:
    """Return the values that can be read. A kernel without a feature (IPv6, br_netfilter) does not have its sysctls."""
    values = ((path, read_sysctl(path)) for path in paths)
    return {path: value for path, value in values if value is not None}


def write_sysctl(path: str, value: str) -> None:
    """Set a value.

    Raises:
        OSError: when the sysctl does not exist or may not be written.
    """
    # Without the layers of open(), which take more than half of the time: a lab writes some thirty settings.
    descriptor = os.open(f"{ROOT}/{path}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def sysctls_in(folder: str) -> list[str]:
    """Return the paths of the sysctls in a folder such as ``net/ipv4/conf/eth0``; empty without such a folder."""
    try:
        return [f"{folder}/{name}" for name in sorted(os.listdir(f"{ROOT}/{folder}"))]
    except FileNotFoundError:
        return []
