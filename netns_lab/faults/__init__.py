"""Ways to break a lab on purpose. Each fault declares the checks that it breaks and their diagnosis.

The fault matrix (tests/labs/test_fault_matrix.py) verifies every declaration: exactly the declared checks get worse
than in the healthy lab, and each with the declared diagnosis. Each module is a chapter of checks.
"""

from netns_lab.faults import (
    bridge,
    egress,
    host,
    lease,
    nat,
    networkd,
    pipework_boot,
    routing,
    side_events,
    survival,
    whole_host,
)
from netns_lab.faults.fault import FAULTS, Fault

__all__ = [
    "FAULTS", "Fault", "bridge", "egress", "host", "lease", "nat", "networkd", "pipework_boot", "routing",
    "side_events", "survival", "whole_host",
]  # fmt: skip
