"""Why a check failed, the remedy, and what a lab showed with the remedy (contract viacheck.result/1)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import computed_field, model_validator

from viacheck.model.plain import Plain
from viacheck.model.verdict import Verdict


class VerdictChange(Plain):
    """The verdict of one check before a remedy and after it."""

    check: str
    case: str | None = None
    before: Verdict
    after: Verdict


class OtherCause(Plain):
    """A check that a remedy did not repair, as it has another cause too."""

    check: str
    code: str


RemedyObstacle = Literal["no-command", "needs-systemd", "needs-docker", "runs-host-files"]
"""Why a remedy cannot be verified in a lab: there is no command to run, or the lab lacks a program that it needs."""


class RemedyOutcome(Plain):
    """What a lab like the target showed with one remedy alone, or with all remedies of the target together."""

    verdict: Literal["pass", "fail", "inconclusive"]
    """The verdict of the lab as a whole."""
    repaired: list[VerdictChange] = []
    """The checks that were bad, or at risk, and pass then."""
    worse: list[VerdictChange] = []
    """The checks with a worse verdict than before, and those that passed and could not be judged again."""
    reason: str | None = None
    """Why a step could not be run; the verdict is inconclusive then."""

    @property
    def text(self) -> str:
        """The outcome in one phrase."""
        if self.reason is not None:
            return f"could not be applied: {self.reason}"
        parts = [f"verdict {self.verdict}"]
        if self.repaired:
            parts.append(f"repairs {changes_text(self.repaired)}")
        if self.worse:
            parts.append(f"makes worse {changes_text(self.worse)}")
        return "; ".join(parts if len(parts) > 1 else [*parts, "repairs no check"])


class RemedyCheck(Plain):
    """The verification of a remedy and of its rollback."""

    predicted: bool | None = None
    """Whether the routing model shows the intended path with the remedy; None if it was not asked."""
    verified: bool | None = None
    """Whether the remedy repaired a lab like the target, and made no check worse; None if it was not run."""
    rollback_verified: bool | None = None
    """Whether the lab's state after the rollback equals its state before the remedy; None if it was not run."""
    reason: str | None = None
    """Why the remedy is not verified."""
    rollback_reason: str | None = None
    """Why the rollback is not verified."""
    obstacle: RemedyObstacle | None = None
    repaired: list[VerdictChange] = []
    """The checks of this diagnosis whose verdict changed."""
    side_effects: list[VerdictChange] = []
    """The other checks whose verdict changed."""
    other_causes: list[OtherCause] = []
    """The checks of this diagnosis that now fail for another cause."""
    order: int | None = None
    """The place, from 1, in the order in which to type the remedies of its target; None if it was not run."""
    alone: RemedyOutcome | None = None
    """What this remedy achieves without the others; None if it was not run."""
    together: RemedyOutcome | None = None
    """What all remedies of the target achieve, typed in their order; None if it was not run."""

    @property
    def needs_others(self) -> bool:
        """Whether the remedy repairs the target with the other remedies alone."""
        if not self.verified or self.alone is None or self.together is None:
            return False
        return self.alone.reason is not None or bool(self.alone.worse) or not self.alone.repaired

    @property
    def was_tried(self) -> bool:
        """Whether a run was asked to verify the remedy, and not the model alone."""
        return self.verified is not None or self.obstacle is not None or self.reason is not None

    @property
    def text(self) -> str:
        """The verification as a sentence."""
        if self.verified is None:
            return f"not verified: {self.reason or 'no command repairs this'}"
        rollback = "rollback verified: the state is as before"
        if not self.rollback_verified:
            rollback = f"rollback not verified: {self.rollback_reason or 'the fix could not be applied'}"
        if not self.verified:
            return f"fix not verified: {self.reason}; {rollback}"
        others = f"and with it {changes_text(self.side_effects)}" if self.side_effects else "nothing else changed"
        how = "" if not self.needs_others else " together with the other fixes"
        text = f"fix verified{how}: {changes_text(self.repaired) or 'its cause is gone'}, {others}"
        if self.other_causes:
            checks = ", ".join(f"{other.check} ({other.code})" for other in self.other_causes)
            text += f"; another cause remains for {checks}"
        return f"{text}; {rollback}"


def changes_text(changes: list[VerdictChange]) -> str:
    """Return changes of verdicts as text, with the cases of a check together."""
    cases: dict[tuple[str, str], list[str]] = {}
    for change in changes:
        text = f"{change.before.value} -> {change.after.value}"
        cases.setdefault((change.check, text), []).extend([change.case] if change.case else [])
    return ", ".join(
        f"{check} ({', '.join(names)}) {text}" if names else f"{check} {text}" for (check, text), names in cases.items()
    )


class OutputOf(Plain):
    """An argument of a step that the output of a command gives."""

    command: list[str]


class RemedyStep(Plain):
    """A step of a remedy as a program runs it: an argument list without a shell, and the text of standard input."""

    argv: list[str | OutputOf]
    stdin: str | None = None


class Diagnosis(Plain):
    """Why a check failed: the code, the cause in one sentence, the commands of the remedy and of its rollback."""

    code: str
    cause: str
    remedy: list[str] = []
    """Commands, in order, with this host's own values filled in."""
    undo: list[str] = []
    """The commands of the rollback, in order."""
    remedy_steps: list[RemedyStep] = []
    """The remedy as argument lists, one for each command."""
    undo_steps: list[RemedyStep] = []
    """The rollback as argument lists, one for each command."""
    site_file: list[str] = []
    """Lines of the site file, where the file may be what is wrong."""
    decision: str | None = None
    """What a person must decide before anything is typed; None when the commands can be typed as they are."""
    needs: list[str] = []
    """What must be there before the remedy can be typed: programs that the host lacks, with their packages."""
    reported_by: str | None = None
    """Id of the check that reports this cause; None when it is this check."""
    also_affects: list[str] = []
    """Ids of the other checks that fail because of this cause."""
    remedy_check: RemedyCheck | None = None
    """The prediction for the remedy, and its verification; None if neither the model nor the run tried it."""

    @model_validator(mode="before")
    @classmethod
    def _accept_computed(cls, fields: Any) -> Any:
        """Accept the computed fields of a saved result; ``told_by`` is the only name before version 0.2."""
        if not isinstance(fields, dict):
            return fields
        own = {name: value for name, value in fields.items() if name not in cls.model_computed_fields}
        if "told_by" in fields:
            own.setdefault("reported_by", fields["told_by"])
        return own

    @computed_field  # type: ignore[prop-decorator]
    @property
    def told_by(self) -> str | None:
        """The former name of ``reported_by``, for programs that read it."""
        return self.reported_by

    @computed_field  # type: ignore[prop-decorator]
    @property
    def mend(self) -> str | None:
        """The verification of the remedy as text, for people; programs read ``remedy_check``."""
        check = self.remedy_check
        return check.text if check is not None and check.was_tried else None
