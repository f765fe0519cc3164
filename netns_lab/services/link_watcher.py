"""A link watcher, such as ifplugd(8): it runs a program of the host whenever an interface of the host comes up.

ifupdown does nothing when a link goes down and up without it, so a host that must survive a link flap needs a program
that reads the kernel's link messages (rtnetlink(7)). In a lab a thread reads them, and ends with the lab.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable

from viacheck.host.namespace import Namespace

_RTMGRP_LINK = 1
_IFF_UP = 1


def start_link_watcher(namespace: Namespace, program: str) -> Callable[[], None]:
    """Start to watch; return the function that ends it. A program that does not exist is not run."""
    netlink = namespace.call(_link_messages)
    stop_reader, stop_writer = os.pipe()
    thread = threading.Thread(
        target=_watch, args=(namespace, netlink, program, stop_reader), name="link-watcher", daemon=True
    )
    thread.start()

    def stop() -> None:
        os.write(stop_writer, b"\0")
        thread.join()
        netlink.close()
        os.close(stop_reader)
        os.close(stop_writer)

    return stop


def _link_messages() -> socket.socket:
    netlink = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    )
    netlink.bind((0, _RTMGRP_LINK))
    return netlink


def _watch(namespace: Namespace, netlink: socket.socket, program: str, stop: int) -> None:
    from pyroute2.netlink.rtnl.marshal import MarshalRtnl

    marshal = MarshalRtnl()
    up: set[int] = set()
    watched: list[socket.socket | int] = [netlink, stop]
    while True:
        if stop in select.select(watched, [], [])[0]:
            return
        for message in marshal.parse(netlink.recv(1 << 16)):
            index, name = message["index"], message.get_attr("IFLA_IFNAME")
            if message["event"] == "RTM_DELLINK" or not message["flags"] & _IFF_UP:
                up.discard(index)
            elif index not in up:
                up.add(index)
                namespace.run([program, name])
