"""The chapters of checks, in the order in which checks run and are reported."""

from __future__ import annotations

CHAPTERS = {
    "HOST": "The host",
    "NAT": "Network address translation",
    "MACVLAN": "Bridging with macvlan",
    "PIPEWORK": "Bridging with pipework",
    "ROUTE": "Rules, tables and the kernel's decision",
    "EGRESS": "Where the packets leave",
    "PERSIST": "What is configured to persist",
    "FLAP": "Which events the egress survives",
    "WATCH": "What happened while it was watched",
}
"""Title of each chapter, by the letters with which its check ids begin."""
INTERRUPTIONS = "FLAP"
"""The chapter whose checks interrupt the network."""
