"""Whether the configured lines can run twice: the findings of lint and the outcome of a replay (PERSIST-02)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from viacheck.model.check_evidence import Evidence, FileEvidence
from viacheck.model.measurements import NotReplayed, ReplayResult
from viacheck.persistence.finding import Finding


@dataclass(frozen=True, slots=True)
class Idempotence:
    """The findings of lint and the outcome of the replay."""

    breaking: tuple[Finding, ...]
    advice: tuple[Finding, ...]
    replay: ReplayResult | NotReplayed

    @property
    def holds(self) -> bool:
        """The lines can run twice: no finding breaks, and a replay that was made shows no fault."""
        return not self.breaking and (isinstance(self.replay, NotReplayed) or self.replay.holds)

    @property
    def observed(self) -> str:
        """Return the outcome in one line."""
        sentences = [str(finding) for finding in (*self.breaking, *self.advice)]
        if isinstance(self.replay, ReplayResult):
            return "; ".join((self.replay.observed, *sentences))
        return f"{'; '.join(sentences) or 'every line can run twice'}; read, not run: {self.replay.reason}"

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Return the faulty lines and the evidence of the replay."""
        lines = [
            FileEvidence(path=finding.place.path, line=finding.place.line, text=finding.place.text)
            for finding in (*self.breaking, *self.advice)
        ]
        return (*(self.replay.evidence if isinstance(self.replay, ReplayResult) else ()), *lines)


def assess_idempotence(findings: Sequence[Finding], replay: ReplayResult | NotReplayed) -> Idempotence:
    """Combine the findings of lint with a replay; without a replay the findings alone decide."""
    return Idempotence(
        tuple(finding for finding in findings if finding.breaks),
        tuple(finding for finding in findings if not finding.breaks),
        replay,
    )
