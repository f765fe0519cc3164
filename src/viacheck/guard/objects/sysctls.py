"""The kernel's settings of the interfaces, and those that all interfaces share."""

from __future__ import annotations

from viacheck.guard.comparison import Comparison
from viacheck.guard.difference import Difference, SysctlWrite
from viacheck.host.sysctl import read_sysctl


def sysctls(both: Comparison) -> Difference:
    """Compare the values below /proc/sys/net."""
    found = Difference()
    for path, value in both.saved.sysctls.items():
        current = read_sysctl(path)
        if current != value:
            words = f"{path} = {value}"
            found.lines.append(f"- sysctl: {words} (is {current})")
            found.mendings.append(SysctlWrite(f"sysctl: {words}", path, value))
    return found
