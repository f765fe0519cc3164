"""Finds link monitors: programs that learn of a changed link of a network namespace and may act on it.

ifplugd(8), NetworkManager and systemd-networkd bring routes back after a flap. No dump of the kernel shows these
actions, but /proc shows that the programs listen: each holds a socket in the group RTNLGRP_LINK (rtnetlink(7)).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from viacheck.host.namespace import Namespace

ROUTE_PROTOCOL = "0"
"""NETLINK_ROUTE, as /proc/net/netlink writes it."""
LINK_GROUP = 1
"""RTMGRP_LINK (linux/rtnetlink.h)."""
FLIGHT_RECORDER = "viacheck-watch"
"""The name that ``viacheck watch`` gives its process: it listens, and changes nothing."""
BYSTANDERS = frozenset({
    FLIGHT_RECORDER,
    "avahi-daemon", "chronyd", "containerd", "dockerd", "hostapd", "iwd", "ntpd", "snmpd", "systemd-resolve",
    "systemd-timesyn", "systemd-udevd", "wpa_supplicant",
})  # fmt: skip
"""Programs that listen and set no route; names as the kernel keeps them (proc(5), comm): fifteen characters."""


def link_monitors(namespace: Namespace, proc: str = "/proc") -> tuple[str, ...]:
    """Return the programs that may act on events of a namespace's links, by name; empty without such programs.

    Args:
        namespace: where the links are.
        proc: the /proc of the host, whose processes are searched.
    """
    listening = namespace.call(lambda: frozenset(_listening()))
    if not listening:
        return ()
    return monitor_names(listening, dict(_owners(listening, proc)))


def monitor_names(listening: frozenset[str], owners: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of link monitors.

    Args:
        listening: inodes of the sockets that receive link messages.
        owners: by inode, the name of a process that holds the socket.
    """
    named = dict.fromkeys(name for name in owners.values() if name not in BYSTANDERS)
    unknown = ["a program that listens for changes of links"] if listening - owners.keys() else []
    return (*named, *unknown)


def _listening() -> Iterator[str]:
    """Yield the inodes of the sockets in the calling thread's namespace that receive link messages."""
    with open("/proc/thread-self/net/netlink") as file:
        for line in list(file)[1:]:
            _address, protocol, _port, groups, *_figures, inode = line.split()
            if protocol == ROUTE_PROTOCOL and int(groups, 16) & LINK_GROUP:
                yield inode


def _owners(inodes: frozenset[str], proc: str) -> Iterator[tuple[str, str]]:
    """Yield inode and name of each process that holds one of the sockets."""
    for entry in filter(str.isdecimal, os.listdir(proc)):
        try:
            with open(f"{proc}/{entry}/comm", encoding="utf-8", errors="replace") as file:
                name = file.read().strip()
            for number in os.listdir(f"{proc}/{entry}/fd"):
                target = os.readlink(f"{proc}/{entry}/fd/{number}")
                if target.startswith("socket:[") and target[8:-1] in inodes:
                    yield target[8:-1], name
        except OSError:
            # The process has ended, or this process may not look at it.
            continue
