"""Finds the DHCP clients of a network namespace: programs that run in it by name, and a listener on port 68.

Neither alone is enough: udhcpc(8) has no socket between two renewals, and a client may have any name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from viacheck.host.namespace import Namespace

CLIENT_PORT = 68
CLIENTS = frozenset({"dhclient", "udhcpc", "dhcpcd", "systemd-network", "NetworkManager", "connmand", "pump"})
"""Names as the kernel keeps them (proc(5), comm): fifteen characters."""
_BUSYBOX = "busybox"


def dhcp_clients(namespace: Namespace, proc: str = "/proc") -> tuple[str, ...]:
    """Return the programs that may renew leases in a namespace, by name; empty without such programs.

    Args:
        namespace: where the leased address is.
        proc: the /proc of the host, whose processes are searched.
    """
    clients = [f"{name} (process {pid})" for pid, name in _processes(namespace.net_fd, proc)]
    return tuple(clients) or (("a program that listens on port 68",) if namespace.call(_listens) else ())


def _processes(net_fd: int, proc: str) -> Iterator[tuple[int, str]]:
    wanted = os.fstat(net_fd)
    for entry in os.listdir(proc):
        if not entry.isdecimal():
            continue
        try:
            with open(f"{proc}/{entry}/comm", encoding="utf-8", errors="replace") as file:
                name = file.read().strip()
            if name == _BUSYBOX:
                with open(f"{proc}/{entry}/cmdline", "rb") as file:
                    name = file.read().split(b"\0")[1].decode(errors="replace").rpartition("/")[2]
            if name in CLIENTS and os.path.samestat(os.stat(f"{proc}/{entry}/ns/net"), wanted):
                yield int(entry), name
        except (OSError, IndexError):
            # The process has ended, or this process may not look at it.
            continue


def _listens() -> bool:
    """Return whether a UDP socket of the calling thread's namespace is bound to the clients' port."""
    with open("/proc/thread-self/net/udp") as file:
        return any(int(line.split()[1].rpartition(":")[2], 16) == CLIENT_PORT for line in list(file)[1:])
