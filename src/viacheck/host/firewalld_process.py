"""Finds out whether firewalld runs in a network namespace: its table stays in the kernel when it has ended."""

from __future__ import annotations

import os

from viacheck.host.namespace import Namespace

FIREWALLD_TABLE = "firewalld"
_NAME = "firewalld"
"""As the kernel keeps it (proc(5), comm)."""
_INITIAL_PROCESSES = "pid:[4026531836]"
"""The initial PID namespace (PROC_PID_INIT_INO of linux/proc_ns.h), whose /proc shows every process."""


def firewalld_runs(namespace: Namespace, proc: str = "/proc") -> bool | None:
    """Return whether firewalld runs in a namespace; None where /proc may hide it.

    Args:
        namespace: the host's.
        proc: the /proc whose processes are searched.
    """
    wanted, hidden = os.fstat(namespace.net_fd), os.readlink(f"{proc}/self/ns/pid") != _INITIAL_PROCESSES
    for entry in filter(str.isdecimal, os.listdir(proc)):
        try:
            with open(f"{proc}/{entry}/comm", encoding="utf-8", errors="replace") as file:
                if file.read().strip() != _NAME:
                    continue
        except OSError:
            # The process has ended.
            continue
        try:
            if os.path.samestat(os.stat(f"{proc}/{entry}/ns/net"), wanted):
                return True
        except OSError:
            hidden = True
    return None if hidden else False
