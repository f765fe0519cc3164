"""What the kernel announces while something happens: links, addresses, rules and routes (rtnetlink(7)).

Not everything is announced: IPv4 routes that go because their link went down are flushed without a word, so that state
is read again and never added up from here. Messages are only taken in while packets are watched, and decoded later.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from viacheck.host.namespace import Namespace

# linux/rtnetlink.h: RTMGRP_* have no name for IPv6 rules; group 19 is RTNLGRP_IPV6_RULE.
_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18
_RECEIVE_BUFFER = 1 << 20
_UP, _LOWER_UP = 0x1, 0x10000
_RTM_NEWADDR, _RTM_DELADDR = 20, 21
_MAIN_AND_MORE = 255


@dataclass(frozen=True, slots=True)
class Announcement:
    """One change, as the kernel told it."""

    time_ns: int
    """Since the epoch, when it was taken in."""
    words: str


class RouteMonitor:
    """Collects what the kernel of one namespace announces, from the moment that it is made."""

    def __init__(self, namespace: Namespace) -> None:
        """Begin to listen.

        Raises:
            OSError: with the kernel's errno.
        """
        self._socket = namespace.call(_listen)
        self._received: list[tuple[int, bytes]] = []
        self.address_ns = 0
        """Since the epoch, when the last change of an address was taken in; 0 when there was none."""

    def fileno(self) -> int:
        """For poll(2)."""
        return self._socket.fileno()

    def read(self) -> None:
        """Take in what has been announced, without waiting."""
        while True:
            try:
                octets = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                # ENOBUFS: some were lost; the dumps tell the state all the same.
                continue
            self._received.append((time.time_ns(), octets))
            # struct nlmsghdr of netlink(7): the length, then the type.
            if int.from_bytes(octets[4:6], sys.byteorder) in (_RTM_NEWADDR, _RTM_DELADDR):
                self.address_ns = time.time_ns()

    def announcements(self) -> Iterator[Announcement]:
        """Everything that was taken in, in words."""
        self.read()
        names: dict[int, str] = {}
        marshal = MarshalRtnl()
        for time_ns, octets in self._received:
            for message in marshal.parse(octets):
                words = _in_words(message, names)
                if words is not None:
                    yield Announcement(time_ns, words)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _listen() -> socket.socket:
    one = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    )
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    one.bind((0, _GROUPS))
    return one


def _in_words(message: Any, names: dict[int, str]) -> str | None:
    event = message["event"]
    verb = "gone" if event.startswith("RTM_DEL") else "there"
    if event.endswith("LINK"):
        names[message["index"]] = name = message.get_attr("IFLA_IFNAME") or f"interface {message['index']}"
        if verb == "gone":
            return f"link {name} gone"
        carrier = "carrier" if message["flags"] & _LOWER_UP else "no carrier"
        return f"link {name} {f'up, {carrier}' if message['flags'] & _UP else 'down'}"
    if event.endswith("ADDR"):
        name = names.get(message["index"]) or message.get_attr("IFA_LABEL") or f"interface {message['index']}"
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        return f"address {address}/{message['prefixlen']} of {name} {verb}"
    if event.endswith("RULE"):
        source = message.get_attr("FRA_SRC")
        table = message.get_attr("FRA_TABLE") or message["table"]
        words = f"from {source}/{message['src_len']}" if source else "from all"
        return f"{_six(message)}rule priority {message.get_attr('FRA_PRIORITY') or 0} {words} lookup {table} {verb}"
    if event.endswith("ROUTE"):
        table = message.get_attr("RTA_TABLE") or message["table"]
        if table == _MAIN_AND_MORE:
            # The local table follows the addresses.
            return None
        destination = message.get_attr("RTA_DST")
        words = f"{destination}/{message['dst_len']}" if destination else "default"
        gateway = message.get_attr("RTA_GATEWAY")
        via = f" via {gateway}" if gateway else ""
        return f"{_six(message)}route {words}{via} table {table} {verb}"
    return None


def _six(message: Any) -> str:
    return "-6 " if message["family"] == socket.AF_INET6 else ""
