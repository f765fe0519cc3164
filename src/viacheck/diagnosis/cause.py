"""A cause: one reason for checks to fail, with its remedy."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from viacheck.diagnosis.codes import CODES
from viacheck.model.intent import Intent
from viacheck.model.result import Diagnosis, Evidence

EGRESS = frozenset({"EGRESS-01", "EGRESS-02", "EGRESS-03", "EGRESS-05", "EGRESS-06"})
"""The checks that watch the agent's own packets."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for checks to fail."""

    code: str
    reported_by: str
    """Id of the check that tells this cause."""
    sentence: str
    remedy: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    explains: frozenset[str] = frozenset()
    """Ids of the other checks that may fail because of it."""
    evidence: tuple[Evidence, ...] = ()

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"{self.code} is no diagnosis code; codes.py lists them")

    def diagnosis(self, check: str) -> Diagnosis:
        """The cause as the diagnosis of one check: told whole by its own check, pointed to by others."""
        return Diagnosis(
            code=self.code,
            cause=self.sentence,
            remedy=list(self.remedy),
            undo=list(self.undo),
            reported_by=None if check == self.reported_by else self.reported_by,
        )


def enter_agent(intent: Intent) -> str:
    """How a person enters the agent's network namespace: what is put before a command."""
    if intent.agent.netns is not None:
        return command("nsenter", f"--net={intent.agent.netns}")
    # The name of a container has no character that a shell would take for its own.
    return f"nsenter --net --target $(docker inspect -f '{{{{.State.Pid}}}}' {intent.agent.container})"


def command(*words: object) -> str:
    """A command as a person types it, every word quoted where it needs to be."""
    return shlex.join(str(word) for word in words)
