"""Receives the announcements of one namespace's kernel for hours, each stamped as soon as the kernel sends it.

Netlink has no time stamps of the kernel (SO_TIMESTAMP has no effect on it), so that a thread does nothing but receive
and look at the clock. What the socket could not hold is reported as lost (ENOBUFS of netlink(7)), and so is what this
process did not take in time.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass

from viacheck.netlink import rtnetlink
from viacheck.netlink.codec import NetlinkSocket
from viacheck.netlink.nfnetlink import EnterableNamespace

MOST_WAITING = 20_000
"""Datagrams that wait for the reader at most."""


@dataclass(frozen=True, slots=True)
class ReceivedEvents:
    """One datagram, or the report that some were lost."""

    time_ns: int
    """Since the epoch, when it was received."""
    datagram: bytes | None
    """None: announcements were lost before this moment."""


class EventListener:
    """Listens from the moment that it is made; the thread that receives begins with :meth:`start`."""

    def __init__(self, namespace: EnterableNamespace) -> None:
        """Open the socket in the namespace.

        Raises:
            OSError: with the kernel's errno.
        """
        self._socket = namespace.call(
            lambda: NetlinkSocket(socket.NETLINK_ROUTE, timeout=0, groups=rtnetlink.CHANGE_GROUPS)
        )
        self._waiting: deque[ReceivedEvents] = deque()
        self._arrived, self._stop = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2))
        self._thread = threading.Thread(target=self._receive, name="netlink-events", daemon=True)

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def fileno(self) -> int:
        """Return a descriptor that is readable while something waits, for poll(2)."""
        return self._arrived

    def take(self) -> list[ReceivedEvents]:
        """Return what has arrived since the last call, in order."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._arrived)
        taken = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        return taken

    def _receive(self) -> None:
        poll = select.poll()
        for descriptor in (self._socket.fileno(), self._stop):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _events in poll.poll()]
            if self._stop in ready:
                return
            self._receive_waiting()
            os.eventfd_write(self._arrived, 1)

    def _receive_waiting(self) -> None:
        for datagram in self._socket.waiting():
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(ReceivedEvents(time.time_ns(), datagram))
            elif self._waiting[-1].datagram is not None:
                self._waiting.append(ReceivedEvents(time.time_ns(), None))

    def close(self) -> None:
        """Stop listening."""
        if self._thread.is_alive():
            os.eventfd_write(self._stop, 1)
            self._thread.join()
        self._socket.close()
        os.close(self._arrived)
        os.close(self._stop)
