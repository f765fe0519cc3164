"""A routing decision: what becomes of a packet, every step that led there, and the ways that it may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from viacheck.analysis.routing.packet import Packet
from viacheck.analysis.routing.rules import RuleStep
from viacheck.model.measurements import KernelAnswer
from viacheck.model.result import DecisionEvidence, DecisionStep
from viacheck.model.snapshot import Route, Rule

RoutingOutcome = Literal[
    "unicast",
    "local",
    "broadcast",
    "multicast",
    "anycast",
    "unreachable",
    "prohibit",
    "blackhole",
    "no-route",
    "martian",
    "not-forwarded",
    "foreign-source",
]
DELIVERED: frozenset[str] = frozenset({"unicast", "local", "broadcast", "multicast", "anycast"})
STEPS_SHOWN = 40
"""Evidence names at most so many rules that did not match; past that they are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """One way that the packet may take."""

    interface: str
    gateway: str | None = None
    source: str | None = None
    """The packet's own source, or the one that the host chooses; None when the host has none to choose."""
    route: Route | None = None

    def __str__(self) -> str:
        """The way in the words of ``ip route get``."""
        via = f"via {self.gateway} " if self.gateway else ""
        return f"{via}dev {self.interface}" + (f" src {self.source}" if self.source else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Where a packet goes, and how that came about."""

    packet: Packet
    outcome: RoutingOutcome
    """What becomes of it. ``no-route``: no rule led to a route. ``martian``: source or destination cannot be
    (rp_filter, a source of the host's own). ``foreign-source``: the host does not own the source it was to send from.
    ``not-forwarded``: forwarding is off where it arrives."""
    steps: tuple[RuleStep, ...] = ()
    rule: Rule | None = None
    """The rule that decided."""
    table: int | None = None
    route: Route | None = None
    """The route that won."""
    exits: tuple[Exit, ...] = ()
    """Every way that the kernel may choose; more than one only for multipath and equal default routes."""
    runners_up: tuple[Route, ...] = ()
    """The winning table's other routes that cover the destination, the next best first."""
    note: str = ""
    """What the outcome rests on, where no step says it."""
    certain: bool = True
    """False when a rule was passed by that the model cannot judge."""

    @property
    def interface(self) -> str | None:
        """The interface of the first way out."""
        return self.exits[0].interface if self.exits else None

    @property
    def gateway(self) -> str | None:
        """The gateway of the first way out; None when the destination is on the link."""
        return self.exits[0].gateway if self.exits else None

    @property
    def source(self) -> str | None:
        """The source address on the first way out."""
        return self.exits[0].source if self.exits else None

    @property
    def interfaces(self) -> frozenset[str]:
        """Every interface that the packet may leave by."""
        return frozenset(exit_.interface for exit_ in self.exits)

    @property
    def delivered(self) -> bool:
        """The packet goes somewhere."""
        return self.outcome in DELIVERED

    def agrees_with(self, kernel: KernelAnswer) -> bool:
        """Return whether the kernel decides the same. Of several equal exits the kernel may take any."""
        if kernel.type is None:
            # The kernel refuses a multicast group that the host has not joined, and no dump names the joined groups.
            unjoined_group = self.outcome == "multicast" and self.packet.iif is not None
            return unjoined_group or not self.delivered
        return self.outcome == kernel.type and (kernel.interface in self.interfaces or not self.interfaces)

    def __str__(self) -> str:
        """The decision in one line."""
        where = "" if self.table is None else f"table {self.table}: "
        by = f" (rule priority {self.rule.priority})" if self.rule else ""
        ways = " or ".join(str(exit_) for exit_ in self.exits)
        kind = "" if self.outcome == "unicast" else f"{self.outcome} "
        return f"{where}{kind}{ways}".rstrip() + by + (f": {self.note}" if self.note else "")

    def evidence(self, kernel: str | None = None, agree: bool | None = None) -> DecisionEvidence:
        """The decision as evidence, with the kernel's own beside it where it was asked."""
        shown: list[DecisionStep] = []
        passed: list[RuleStep] = []
        misses = 0
        for step in self.steps:
            misses += not step.matched
            if not step.matched and misses > STEPS_SHOWN:
                passed.append(step)
                continue
            if passed:
                shown.append(_counted(passed))
                passed = []
            shown.append(DecisionStep(rule=str(step.rule), outcome=step.outcome, chosen=step.chosen))
        if passed:
            shown.append(_counted(passed))
        return DecisionEvidence(question=str(self.packet), steps=shown, model=str(self), kernel=kernel, agree=agree)


def _counted(steps: list[RuleStep]) -> DecisionStep:
    first, last = steps[0].rule.priority, steps[-1].rule.priority
    return DecisionStep(rule=f"{len(steps)} rules, priority {first} to {last}", outcome="no match")
