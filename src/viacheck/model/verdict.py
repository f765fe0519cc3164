"""The verdict of a check (contract viacheck.result/1)."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """The verdict of a check."""

    PASS = "pass"
    FAIL = "fail"
    ADVISORY = "advisory"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not-applicable"
    NOT_RUN = "not-run"

    @property
    def decided(self) -> bool:
        """Whether the check was decided."""
        return self in (Verdict.PASS, Verdict.FAIL, Verdict.ADVISORY)

    @property
    def bad(self) -> bool:
        """Whether the verdict makes the run end with exit status 1."""
        return self in (Verdict.FAIL, Verdict.INCONCLUSIVE)
