"""What a fault is, and the register of all faults by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from netns_lab.lab import Lab

Break = Callable[[Lab], None]
FAULT_TABLE = "viacheck-fault"
"""The packet filter table that faults write their rules to."""
LEAVES_ELSEWHERE = frozenset({"ROUTE-05", "EGRESS-01", "EGRESS-05"})
"""What breaks when the agent's packets take another uplink."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break a lab."""

    name: str
    title: str
    on: tuple[str, ...]
    """Scenarios that it belongs to."""
    breaks: frozenset[str]
    """Checks whose verdict gets worse than in the healthy lab; no others do."""
    diagnosis: str
    apply: Break
    flavour: Literal["any", "netns", "engine"] = "any"


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    title: str,
    *,
    on: str | tuple[str, ...],
    breaks: set[str],
    diagnosis: str,
    flavour: Literal["any", "netns", "engine"] = "any",
) -> Callable[[Break], Break]:
    """Register a fault under its name."""

    def register(apply: Break) -> Break:
        scenarios = (on,) if isinstance(on, str) else on
        FAULTS[name] = Fault(name, title, scenarios, frozenset(breaks), diagnosis, apply, flavour)
        return apply

    return register
