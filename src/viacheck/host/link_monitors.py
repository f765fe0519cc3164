"""Looks for programs that are told when a link of a network namespace changes, and may act on it.

ifplugd(8), NetworkManager and systemd-networkd bring routes back after a flap; what they do is in no dump of the
kernel's. That they listen is: each holds a socket in the group RTNLGRP_LINK (rtnetlink(7)).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from viacheck.host.namespace import Namespace

ROUTE_PROTOCOL = "0"
"""NETLINK_ROUTE, as /proc/net/netlink writes it."""
LINK_GROUP = 1
"""RTMGRP_LINK (linux/rtnetlink.h)."""
BYSTANDERS = frozenset({
    "avahi-daemon", "chronyd", "containerd", "dockerd", "hostapd", "iwd", "ntpd", "snmpd", "systemd-resolve",
    "systemd-timesyn", "systemd-udevd", "wpa_supplicant",
})  # fmt: skip
"""Who listens and sets no route; names as the kernel keeps them (proc(5), comm): fifteen characters."""


def link_watchers(namespace: Namespace, proc: str = "/proc") -> tuple[str, ...]:
    """What may act on the events of a namespace's links, in words; empty when there is nothing.

    Args:
        namespace: where the links are.
        proc: of the host, whose processes are looked through.
    """
    listening = namespace.call(lambda: frozenset(_listening()))
    if not listening:
        return ()
    return in_words(listening, dict(_owners(listening, proc)))


def in_words(listening: frozenset[str], owners: Mapping[str, str]) -> tuple[str, ...]:
    """What may act on a link's events, of the sockets' inodes and the names of the processes that hold them."""
    named = dict.fromkeys(name for name in owners.values() if name not in BYSTANDERS)
    unknown = ["a program that listens for changes of links"] if listening - owners.keys() else []
    return (*named, *unknown)


def _listening() -> Iterator[str]:
    """The inodes of the calling thread's namespace's sockets that are told of links."""
    with open("/proc/thread-self/net/netlink") as file:
        for line in list(file)[1:]:
            _address, protocol, _port, groups, *_figures, inode = line.split()
            if protocol == ROUTE_PROTOCOL and int(groups, 16) & LINK_GROUP:
                yield inode


def _owners(inodes: frozenset[str], proc: str) -> Iterator[tuple[str, str]]:
    """By inode, the name of the process that holds the socket."""
    for entry in filter(str.isdecimal, os.listdir(proc)):
        try:
            with open(f"{proc}/{entry}/comm", encoding="utf-8", errors="replace") as file:
                name = file.read().strip()
            for number in os.listdir(f"{proc}/{entry}/fd"):
                leads_to = os.readlink(f"{proc}/{entry}/fd/{number}")
                if leads_to.startswith("socket:[") and leads_to[8:-1] in inodes:
                    yield leads_to[8:-1], name
        except OSError:
            # It has ended, or is not ours to look at.
            continue
