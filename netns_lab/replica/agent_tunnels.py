"""Tunnels of the agent in a replica: tun devices without a program, whatever kind of tunnel the agent has.

What matters is that the agent's own routing leads into one. Behind it are a program's packets, which no snapshot holds.
"""

from __future__ import annotations

import fcntl
import os
import struct

from viacheck.host.namespace import Namespace
from viacheck.model.namespace_state import Link

_DEVICE = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST, _TUNSETIFINDEX = 0x400454CA, 0x400454CB, 0x400454DA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_IFREQ = struct.Struct("16sH22x")


def add_tunnel(namespace: Namespace, link: Link) -> None:
    """Add a tun device with the name and the index of a link, and set it up if the link is (tun: kernel documentation).

    Raises:
        OSError: when the system has no tun devices, or forbids them.
    """

    def add() -> None:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _TUNSETIFINDEX, struct.pack("I", link.index))
            fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(link.name.encode(), _IFF_TUN | _IFF_NO_PI))
            fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
        finally:
            os.close(descriptor)

    namespace.call(add)
