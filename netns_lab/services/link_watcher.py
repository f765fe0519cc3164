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
from viacheck.netlink.codec import NetlinkSocket, decode_messages
from viacheck.netlink.rtnetlink import IFF_UP, LINK_GROUP, LinkChange, RtnetlinkMessage


def start_link_watcher(namespace: Namespace, program: str) -> Callable[[], None]:
    """Start to watch; return the function that ends it. A program that does not exist is not run."""
    netlink = namespace.call(lambda: NetlinkSocket(socket.NETLINK_ROUTE, timeout=0, groups=LINK_GROUP))
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


def _watch(namespace: Namespace, netlink: NetlinkSocket, program: str, stop: int) -> None:
    up: set[int] = set()
    watched: list[NetlinkSocket | int] = [netlink, stop]
    while True:
        if stop in select.select(watched, [], [])[0]:
            return
        for message in decode_messages(netlink.receive()):
            link = LinkChange.of(RtnetlinkMessage.decode(message.type, message.payload))
            if link.gone or not link.flags & IFF_UP:
                up.discard(link.index)
            elif link.index not in up:
                up.add(link.index)
                namespace.run([program, link.name])
