"""The state of interfaces at one moment, asked by name through ioctls that never wait for the kernel's network lock.

A netlink request would: it stalls for as long as anybody removes a bridge. netdevice(7) describes the requests.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from typing import Literal

from viacheck.host.namespace import Namespace

LinkWord = Literal["up", "down", "no-carrier", "missing"]

_SIOCGIFFLAGS, _SIOCGIFHWADDR, _SIOCGIFINDEX = 0x8913, 0x8927, 0x8933
_IFF_UP, _IFF_RUNNING = 0x01, 0x40
_REQUEST = 40
_LONGEST_NAME = 15
_SENT_PACKETS = 9
"""Column of /proc/net/dev after the name."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """One interface."""

    word: LinkWord
    index: int = 0
    hardware_type: int = 0
    """ARPHRD_* of linux/if_arp.h."""
    mac: bytes = bytes(6)
    sent_packets: int | None = None
    """Read only where nothing should leave: of an interface that is not up."""


MISSING = LinkState("missing")


class LinkReader:
    """Reads the state of a namespace's interfaces."""

    def __init__(self, namespace: Namespace, socket_fd: int) -> None:
        """Ask through a socket of that namespace, which stays the caller's.

        Raises:
            OSError: with the kernel's errno.
        """
        self._socket_fd = socket_fd
        # An open file of /proc/net keeps the namespace that it was opened in.
        self._counters = namespace.call(lambda: os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC))

    def read(self, name: str) -> LinkState:
        """The state of the interface that has this name now."""
        octets = os.fsencode(name)
        if len(octets) > _LONGEST_NAME:
            return MISSING
        try:
            index = int(struct.unpack_from("@i", self._ask(_SIOCGIFINDEX, octets), 16)[0])
            flags = struct.unpack_from("@H", self._ask(_SIOCGIFFLAGS, octets), 16)[0]
            hardware = self._ask(_SIOCGIFHWADDR, octets)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return MISSING
            raise
        hardware_type, mac = struct.unpack_from("@H6s", hardware, 16)
        if flags & _IFF_UP and flags & _IFF_RUNNING:
            return LinkState("up", index, hardware_type, mac)
        word: LinkWord = "no-carrier" if flags & _IFF_UP else "down"
        return LinkState(word, index, hardware_type, mac, self._sent_packets(octets))

    def _ask(self, request: int, name: bytes) -> bytes:
        return fcntl.ioctl(self._socket_fd, request, name.ljust(_REQUEST, b"\0"))

    def _sent_packets(self, name: bytes) -> int | None:
        text, offset = bytearray(), 0
        while part := os.pread(self._counters, 1 << 16, offset):
            text += part
            offset += len(part)
        for line in text.splitlines():
            interface, colon, columns = line.partition(b":")
            if colon and interface.strip() == name:
                return int(columns.split()[_SENT_PACKETS])
        return None

    def close(self) -> None:
        """Close the counters."""
        os.close(self._counters)
