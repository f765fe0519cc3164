"""The status of interfaces at one moment, read by name through ioctls that never wait for the kernel's network lock.

A netlink request would wait, for as long as another process removes a bridge. netdevice(7) describes the ioctls.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from typing import Literal

from viacheck.host.namespace import Namespace

LinkCondition = Literal["up", "down", "no-carrier", "missing"]

_SIOCGIFFLAGS, _SIOCGIFHWADDR, _SIOCGIFINDEX = 0x8913, 0x8927, 0x8933
_IFF_UP, _IFF_RUNNING = 0x01, 0x40
_REQUEST = 40
_LONGEST_NAME = 15
_INDEX, _FLAGS, _HARDWARE = struct.Struct("@16xi"), struct.Struct("@16xH"), struct.Struct("@16xH6s")
"""struct ifreq: what follows the name."""
_SENT_PACKETS = 9
"""Column of /proc/net/dev after the name."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """The status of one interface."""

    condition: LinkCondition
    index: int = 0
    hardware_type: int = 0
    """ARPHRD_* of linux/if_arp.h."""
    mac: bytes = bytes(6)
    sent_packets: int | None = None
    """Read only of an interface that is not up, which should send nothing."""


MISSING = LinkStatus("missing")


class LinkReader:
    """Reads the status of a namespace's interfaces."""

    def __init__(self, namespace: Namespace, socket_fd: int) -> None:
        """Read through a socket of that namespace, which the caller keeps and closes.

        Raises:
            OSError: with the kernel's errno.
        """
        self._socket_fd = socket_fd
        # An open file of /proc/net keeps the namespace that it was opened in.
        self._counters = namespace.call(lambda: os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC))

    def read(self, name: str) -> LinkStatus:
        """Return the status of the interface that has this name now."""
        octets = os.fsencode(name)
        if len(octets) > _LONGEST_NAME:
            return MISSING
        request = octets.ljust(_REQUEST, b"\0")
        try:
            (index,) = _INDEX.unpack_from(fcntl.ioctl(self._socket_fd, _SIOCGIFINDEX, request))
            (flags,) = _FLAGS.unpack_from(fcntl.ioctl(self._socket_fd, _SIOCGIFFLAGS, request))
            hardware_type, mac = _HARDWARE.unpack_from(fcntl.ioctl(self._socket_fd, _SIOCGIFHWADDR, request))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return MISSING
            raise
        if flags & _IFF_UP and flags & _IFF_RUNNING:
            return LinkStatus("up", index, hardware_type, mac)
        condition: LinkCondition = "no-carrier" if flags & _IFF_UP else "down"
        return LinkStatus(condition, index, hardware_type, mac, self._sent_packets(octets))

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
