"""Whether what is written can run twice: what was read in it and what came of running it, put together (PERSIST-02)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from viacheck.model.measurements import NotReplayed, ReplayResult
from viacheck.model.result import Evidence, FileEvidence
from viacheck.persistence.finding import Finding


@dataclass(frozen=True, slots=True)
class Repeatable:
    """Lint and proof together."""

    breaking: tuple[Finding, ...]
    advice: tuple[Finding, ...]
    proof: ReplayResult | NotReplayed

    @property
    def holds(self) -> bool:
        """What is written can run twice: neither does a line read otherwise, nor was it seen to be otherwise."""
        return not self.breaking and (isinstance(self.proof, NotReplayed) or self.proof.holds)

    @property
    def observed(self) -> str:
        """In one line."""
        said = [str(finding) for finding in (*self.breaking, *self.advice)]
        if isinstance(self.proof, ReplayResult):
            return "; ".join((self.proof.observed, *said))
        read = "; ".join(said) or "nothing that could not run twice"
        return f"{read}; read, not run: {self.proof.reason}"

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The lines that are wrong, and what the proof has to show."""
        lines = [
            FileEvidence(path=finding.place.path, line=finding.place.line, text=finding.place.text)
            for finding in (*self.breaking, *self.advice)
        ]
        return (*(self.proof.evidence if isinstance(self.proof, ReplayResult) else ()), *lines)


def repeatable(findings: Sequence[Finding], proof: ReplayResult | NotReplayed) -> Repeatable:
    """Put lint and proof together; without a proof the lint alone decides."""
    return Repeatable(
        tuple(finding for finding in findings if finding.breaks),
        tuple(finding for finding in findings if not finding.breaks),
        proof,
    )
