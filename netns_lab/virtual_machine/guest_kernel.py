"""The kernel of a virtual machine as the programs in it see it, and how they know that they are in one."""

from __future__ import annotations

import os
from pathlib import Path

PARAMETER = "viacheck.guest"
"""The kernel's parameter by which a virtual machine says how its processor is made: kvm or tcg."""
PROCESSORS = {"kvm": "KVM", "tcg": "an emulated processor"}
_COMMAND_LINE = Path("/proc/cmdline")


def processor() -> str | None:
    """Return how the processor of this virtual machine is made; None where viacheck has started none around it."""
    try:
        words = _COMMAND_LINE.read_text().split()
    except OSError:
        return None
    values = [word.partition("=")[2] for word in words if word.startswith(f"{PARAMETER}=")]
    return values[0] if values else None


def kernel_note() -> str:
    """Return the sentence for the report about the kernel that a lab ran on."""
    made = PROCESSORS.get(processor() or "", "a processor of its own")
    return f"the lab ran in a virtual machine with the kernel Linux {os.uname().release}, on {made}"
