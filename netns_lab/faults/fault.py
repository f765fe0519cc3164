"""What a fault is, and the register of all faults by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    """The diagnosis that most of it comes to."""
    apply: Break
    flavour: Literal["any", "netns", "engine"] = "any"
    needs: Mapping[str, str] = field(default_factory=dict)
    """Programs that must be installed besides those of the lab, and the Debian package of each."""
    diagnoses: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By diagnosis, the checks that must tell it, or point to it. More than one where the fault has several holes."""


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    title: str,
    *,
    on: str | tuple[str, ...],
    breaks: set[str] | Mapping[str, set[str]],
    diagnosis: str,
    flavour: Literal["any", "netns", "engine"] = "any",
    needs: Mapping[str, str] | None = None,
) -> Callable[[Break], Break]:
    """Register a fault under its name.

    Args:
        name: as it is written on the command line.
        title: what is broken.
        on: the scenarios that it belongs to.
        breaks: the checks that it breaks; where it is many things at once, by the diagnosis of each.
        diagnosis: what most of it comes to.
        flavour: of the labs that it can be made in.
        needs: programs that it needs, and the Debian package of each.
    """
    diagnoses = breaks if isinstance(breaks, Mapping) else {diagnosis: breaks}
    broken = frozenset[str]().union(*diagnoses.values())
    by_code = {code: frozenset(checks) for code, checks in diagnoses.items()}

    def register(apply: Break) -> Break:
        scenarios = (on,) if isinstance(on, str) else on
        FAULTS[name] = Fault(name, title, scenarios, broken, diagnosis, apply, flavour, needs or {}, by_code)
        return apply

    return register
