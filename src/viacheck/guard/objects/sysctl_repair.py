"""Compare and restore the settings below /proc/sys/net: those of the interfaces, and those of all interfaces."""

from __future__ import annotations

from viacheck.guard.comparison import StateComparison
from viacheck.guard.difference import StateDifference
from viacheck.guard.repair import SysctlRepair
from viacheck.host.sysctl import read_sysctl


def compare_sysctls(comparison: StateComparison) -> StateDifference:
    """Compare the settings."""
    difference = StateDifference()
    for path, value in comparison.saved.sysctls.items():
        current = read_sysctl(path)
        if current != value:
            text = f"{path} = {value}"
            line = f"- sysctl: {text} (is {current})"
            if not comparison.saved.reconfigures:
                difference.foreign.append(line)
                continue
            difference.lines.append(line)
            difference.unclear.append(f"sysctl: {text}, was set to {current}")
            difference.repairs.append(SysctlRepair(f"sysctl: {text}", path, value))
    return difference
