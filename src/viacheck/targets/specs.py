"""Specifications of targets: which target a run is about, before the target is open. Cheap to make and to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from viacheck.model.exit_status import UsageError
from viacheck.model.intent import Intent

if TYPE_CHECKING:
    from viacheck.host.command import CommandResult
    from viacheck.model.result import TargetRecord
    from viacheck.targets.base import Target


class SelectionError(UsageError):
    """The selection of targets is wrong; the message is one line for the user."""


class TargetUnavailable(Exception):
    """Something that the target needs is missing on this machine; the message says what would help."""


class TargetNotOpened(Exception):
    """Opening the target failed; the message is one line and says why.

    Attributes:
        command: the command that failed, with its whole output, if it was one.
    """

    def __init__(self, message: str, command: CommandResult | None = None) -> None:
        super().__init__(message)
        self.command = command


class TargetSpec(Protocol):
    """A target that can be opened."""

    @property
    def name(self) -> str:
        """The name beside a check, as the command line writes it."""

    @property
    def id(self) -> str:
        """The target's id in result.json."""

    @property
    def intent(self) -> Intent:
        """The intent that the target is judged by."""

    @property
    def slow(self) -> bool:
        """Whether its checks take much longer than those of other targets, so that they start first."""

    @property
    def announcement(self) -> Sequence[str]:
        """The lines that a user must read before the first packet leaves; empty for a lab or a bundle."""

    def open(self) -> Target:
        """Open the target.

        Raises:
            TargetUnavailable: something that it needs is missing on this machine.
            TargetNotOpened: the kernel, the engine or a command refused.
        """

    def unopened(self, reason: str) -> TargetRecord:
        """Return the record of a target that could not be opened; ``reason`` is one line."""


def title_of(intent: Intent, agent: str) -> str:
    """Return the title of a target on a page: the site's name, and the agent's where the site has several."""
    return f"{intent.site.name}, agent {agent}" if agent else intent.site.name
