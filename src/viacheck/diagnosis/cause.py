"""A cause: one reason for checks to fail, with its remedy."""

from __future__ import annotations

from dataclasses import dataclass, replace

from viacheck.diagnosis.remedy import NO_REMEDY, Remedy, execution_of
from viacheck.model.check_evidence import Evidence
from viacheck.model.diagnosis_codes import CODES
from viacheck.model.diagnosis_record import Diagnosis, RemedyCheck
from viacheck.model.site_agents import in_agents_tables

EGRESS = frozenset({"EGRESS-01", "EGRESS-02", "EGRESS-03", "EGRESS-05", "EGRESS-06"})
"""The checks that watch the agent's own packets."""
ANSWERS = frozenset({"EGRESS-03", "EGRESS-05", "EGRESS-06", "EGRESS-07"})
"""The checks that need the answers to the agent's packets."""
REACHES_GATEWAY = frozenset({"MACVLAN-03", "PIPEWORK-04"})
"""The checks of a bridged agent's pings to its gateway."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for checks to fail."""

    code: str
    reported_by: str
    """Id of the check that reports this cause."""
    sentence: str
    remedy: Remedy = NO_REMEDY
    also_affects: frozenset[str] = frozenset()
    """Ids of the other checks that may fail because of it."""
    evidence: tuple[Evidence, ...] = ()
    site_file: tuple[str, ...] = ()
    """Lines of the site file that make it say what the host does."""
    decision: str | None = None
    """What a person must decide."""
    needs: tuple[str, ...] = ()
    """What must be there before the remedy can be typed: programs that the host lacks."""
    predicted: bool | None = None
    """Whether the model shows the intended path with the remedy; None if it cannot apply the remedy."""

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"{self.code} is not a diagnosis code; diagnosis_codes.py lists them")

    def of_agent(self, name: str) -> Cause:
        """Return the cause with the tables that it names in the site file as those of one of several agents."""
        return replace(
            self,
            sentence=in_agents_tables(name, self.sentence),
            site_file=tuple(in_agents_tables(name, line) for line in self.site_file),
            decision=in_agents_tables(name, self.decision) if self.decision is not None else None,
        )

    def diagnosis(self, check: str) -> Diagnosis:
        """Return the cause as the diagnosis of one check; any other check than its own points to that one."""
        return Diagnosis(
            code=self.code,
            cause=self.sentence,
            remedy=self.remedy.lines,
            undo=self.remedy.rollback_lines,
            remedy_steps=[execution_of(step) for step in self.remedy.steps],
            undo_steps=[execution_of(step) for step in self.remedy.rollback],
            site_file=list(self.site_file),
            decision=self.decision,
            needs=list(self.needs),
            remedy_check=RemedyCheck(predicted=self.predicted) if self.predicted is not None else None,
            reported_by=None if check == self.reported_by else self.reported_by,
        )
