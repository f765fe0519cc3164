"""The steps of a restore: one rtnetlink request, or one write below /proc/sys."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Protocol

from viacheck.host.sysctl import write_sysctl
from viacheck.netlink.rtnetlink import RouteSocket


class Repair(Protocol):
    """One step towards the saved state."""

    @property
    def text(self) -> str:
        """Return the step for people."""

    def apply(self, netlink: RouteSocket) -> None:
        """Take the step.

        Raises:
            OSError: with the kernel's errno.
        """


@dataclass(frozen=True, slots=True)
class RouteSocketRepair:
    """One rtnetlink request."""

    text: str
    kind: int
    flags: int
    payload: bytes
    if_busy: tuple[int, bytes] | None = None
    """A request to send first when the kernel answers EBUSY: some drivers change a MAC address only while down."""

    def apply(self, netlink: RouteSocket) -> None:
        """Send the request.

        Raises:
            OSError: with the kernel's errno.
        """
        try:
            netlink.request(self.kind, self.flags, self.payload)
        except OSError as error:
            if self.if_busy is None or error.errno != errno.EBUSY:
                raise
            netlink.request(self.if_busy[0], 0, self.if_busy[1])
            netlink.request(self.kind, self.flags, self.payload)


@dataclass(frozen=True, slots=True)
class SysctlRepair:
    """One setting below /proc/sys."""

    text: str
    path: str
    value: str

    def apply(self, _netlink: RouteSocket) -> None:
        """Write the setting.

        Raises:
            OSError: when the system forbids the write.
        """
        write_sysctl(self.path, self.value)
