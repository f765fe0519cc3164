"""A routing decision: what becomes of a packet, every step that leads there, and the exits that it may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from viacheck.analysis.routing.packet import Packet
from viacheck.analysis.routing.rules import NOT_EVALUATED, PassedRules, RuleStep
from viacheck.model.check_evidence import DecisionEvidence, DecisionStep
from viacheck.model.measurements import KernelAnswer
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Route

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
"""Rules without a match that evidence names; the rest are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """An interface, and a gateway on it, by which the packet may leave."""

    interface: str
    gateway: str | None = None
    source: str | None = None
    """The packet's source address, or the address that the host chooses; None without such an address."""
    route: Route | None = None

    def __str__(self) -> str:
        """The exit as ``ip route get`` prints it."""
        via = f"via {self.gateway} " if self.gateway else ""
        return f"{via}dev {self.interface}" + (f" src {self.source}" if self.source else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Where a packet goes, and why."""

    packet: Packet
    outcome: RoutingOutcome
    """What becomes of it. ``no-route``: no rule leads to a route. ``martian``: source or destination cannot be
    (rp_filter, an address of the host as source). ``foreign-source``: the host does not own the source that it was to
    send from. ``not-forwarded``: forwarding is off where it arrives."""
    walk: tuple[RuleStep | PassedRules, ...] = field(default=(), compare=False, repr=False)
    """Every rule that was passed, up to the rule that decides."""
    rule: Rule | None = None
    """The rule that decides."""
    table: int | None = None
    route: Route | None = None
    """The route that the packet takes."""
    exits: tuple[Exit, ...] = ()
    """Every exit that the kernel may choose; several only for multipath and equal default routes."""
    runners_up: tuple[Route, ...] = ()
    """The deciding table's other routes to the destination, the next best first."""
    refused_exits: tuple[str, ...] = ()
    """Interfaces of the route for which the source address check refuses the packet."""
    note: str = ""
    """The reason for the outcome, where no step says it; for people."""
    certain: bool = True
    """False when the model skipped a rule it cannot evaluate."""

    @property
    def steps(self) -> tuple[RuleStep, ...]:
        """Every rule that was compared, and the result. A host with 10,000 rules has as many steps."""
        return tuple(
            step for entry in self.walk for step in (entry if isinstance(entry, PassedRules) else (entry,))
        )  # fmt: skip

    @property
    def interface(self) -> str | None:
        """The interface of the first exit."""
        return self.exits[0].interface if self.exits else None

    @property
    def gateway(self) -> str | None:
        """The gateway of the first exit; None when the destination is on the link."""
        return self.exits[0].gateway if self.exits else None

    @property
    def source(self) -> str | None:
        """The source address on the first exit."""
        return self.exits[0].source if self.exits else None

    @property
    def interfaces(self) -> frozenset[str]:
        """Every interface that the packet may leave by."""
        return frozenset(exit_.interface for exit_ in self.exits)

    @property
    def doubt(self) -> str:
        """A rule that the model cannot evaluate, and why; empty where the decision is certain."""
        steps = () if self.certain else self.steps
        return next((f"rule {step.rule}: {step.outcome}" for step in steps if NOT_EVALUATED in step.outcome), "")

    @property
    def delivered(self) -> bool:
        """The packet is delivered or sent."""
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
        exits = " or ".join(str(exit_) for exit_ in self.exits)
        kind = "" if self.outcome == "unicast" else f"{self.outcome} "
        return f"{where}{kind}{exits}".rstrip() + by + (f": {self.note}" if self.note else "")

    def evidence(self, kernel: str | None = None, agree: bool | None = None) -> DecisionEvidence:
        """Return the decision as evidence, with the kernel's own beside it where the kernel was asked."""
        shown: list[DecisionStep] = []
        misses = 0
        for entry in self.walk:
            if isinstance(entry, RuleStep):
                shown.append(_shown(entry))
                continue
            named = max(0, min(STEPS_SHOWN - misses, len(entry)))
            misses += len(entry)
            shown += map(_shown, islice(entry, named))
            if named < len(entry):
                rest = f"{len(entry) - named} rules, priority {entry.priority(named)} to {entry.priority(-1)}"
                shown.append(DecisionStep(rule=rest, outcome="no match"))
        return DecisionEvidence(question=str(self.packet), steps=shown, model=str(self), kernel=kernel, agree=agree)


def _shown(step: RuleStep) -> DecisionStep:
    return DecisionStep(rule=str(step.rule), outcome=step.outcome, chosen=step.chosen)
