"""The exit statuses of every command, and the error that a person at the command line can correct."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """How a command ends (contract)."""

    OK = 0
    """Nothing is bad, and something was decided."""
    FAILED = 1
    """A check fails or is inconclusive, two states differ, or the command could not do its work."""
    USAGE = 4
    """The command line, the site file or another input is wrong."""
    HUNG_UP = 129
    """Ended by SIGHUP, as when the terminal is gone."""
    INTERRUPTED = 130
    """Ended by SIGINT."""
    TERMINATED = 143
    """Ended by SIGTERM."""


STATUS_BY_SIGNAL = {
    "SIGHUP": ExitStatus.HUNG_UP, "SIGINT": ExitStatus.INTERRUPTED, "SIGTERM": ExitStatus.TERMINATED,
}  # fmt: skip
"""The signals that end a run with its report, and how it ends then."""


class UsageError(Exception):
    """An input is wrong, and its author can correct it; each argument is one line of the message."""

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        """The lines of the message."""
        return [str(argument) for argument in self.args]
