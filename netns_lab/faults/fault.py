"""The type of a fault, and the register of all faults by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from netns_lab.lab import Lab

Break = Callable[[Lab], None]
FaultFlavour = Literal["any", "netns", "engine", "podman", "host"]
FAULT_TABLE = "viacheck-fault"
"""The packet filter table that faults write their rules to."""
LEAVES_ELSEWHERE = frozenset({"ROUTE-05", "EGRESS-01", "EGRESS-05", "EGRESS-08"})
"""The checks that fail when the agent's packets leave by another uplink."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to break a lab."""

    name: str
    title: str
    on: tuple[str, ...]
    """Scenarios that it belongs to."""
    breaks: frozenset[str]
    """The checks whose verdict gets worse than in the healthy lab; every other verdict stays."""
    diagnosis: str
    """The main diagnosis."""
    apply: Break
    flavour: FaultFlavour = "any"
    release: str | None = None
    """The release whose base root alone has the programs that it needs; None: any."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Programs that must be installed besides those of the lab, and the Debian package of each."""
    diagnoses: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The checks that must report each diagnosis, or refer to it; several where the fault breaks several things."""


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    title: str,
    *,
    on: str | tuple[str, ...],
    breaks: set[str] | Mapping[str, set[str]],
    diagnosis: str,
    flavour: FaultFlavour = "any",
    release: str | None = None,
    needs: Mapping[str, str] | None = None,
) -> Callable[[Break], Break]:
    """Register a fault under its name.

    Args:
        name: on the command line.
        title: a sentence that says what is broken.
        on: the scenarios that it belongs to.
        breaks: the checks that it breaks; by diagnosis, where it breaks several things.
        diagnosis: the main diagnosis.
        flavour: of the labs that it works in.
        release: the release whose base root alone has the programs that it needs.
        needs: programs that it needs, and the Debian package of each.
    """
    diagnoses = breaks if isinstance(breaks, Mapping) else {diagnosis: breaks}
    broken = frozenset[str]().union(*diagnoses.values())
    by_code = {code: frozenset(checks) for code, checks in diagnoses.items()}

    def register(apply: Break) -> Break:
        scenarios = (on,) if isinstance(on, str) else on
        FAULTS[name] = Fault(
            name, title, scenarios, broken, diagnosis, apply, flavour, release, needs or {}, by_code
        )  # fmt: skip
        return apply

    return register
