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


def chapter(check: str) -> str:
    """Return the chapter of a check id: ``EGRESS`` for ``EGRESS-01``."""
    return check.rpartition("-")[0] or check


def check_order(check: str) -> tuple[int, str]:
    """Return the sort key of a check id: chapters in order, ids by number, unknown chapters last."""
    names = list(CHAPTERS)
    name = chapter(check)
    return (names.index(name) if name in CHAPTERS else len(names), check)
