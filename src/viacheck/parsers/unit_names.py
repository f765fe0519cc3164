"""Names of systemd's units that follow from other names (systemd.unit(5), "String escaping")."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z0-9:_.]")


def device_unit(interface: str) -> str:
    r"""Return the unit of a network interface: ``br-lan`` has ``sys-subsystem-net-devices-br\x2dlan.device``."""
    escaped = "".join(
        letter if _PLAIN.match(letter) else "".join(f"\\x{byte:02x}" for byte in letter.encode())
        for letter in interface
    )
    return f"sys-subsystem-net-devices-{escaped}.device"
