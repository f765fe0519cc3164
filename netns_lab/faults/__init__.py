"""Ways to break a lab on purpose. Each names the checks that it breaks and the diagnosis that must be told.

The fault matrix (tests/test_fault_matrix.py) holds every one of these to its word: exactly the declared checks get
worse than in the healthy lab, and each with the declared diagnosis. One module for each chapter of checks.
"""

from netns_lab.faults import bridge, egress, host, lease, nat, networkd, routing, survival
from netns_lab.faults.fault import FAULTS, Fault

__all__ = ["FAULTS", "Fault", "bridge", "egress", "host", "lease", "nat", "networkd", "routing", "survival"]
