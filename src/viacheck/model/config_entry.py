"""A rule, a route or a removal as a network manager's file has it, with the line that it stands on.

These are the plain values that the parsers of shell and ini files return; the readers of each manager collect them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from viacheck.model.policy_rule import Rule
from viacheck.model.route import Route

Phase = Literal["pre-up", "up", "down", "post-down"]
TableNumberOf = Callable[[str], int | None]
"""The number that a table's name stands for; None where the name is not known."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file of the host."""

    path: str
    line: int
    """From 1; the first line of an entry that spans several."""
    text: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def volatile(self) -> bool:
        """The file is gone after a reboot."""
        return self.path.startswith("/run/")


@dataclass(frozen=True, slots=True)
class ParseProblem:
    """A line of a file that its manager, or this reader, cannot read."""

    path: str
    line: int
    """From 1; 0 for the file as a whole."""
    reason: str
    refused: bool = False
    """The manager itself refuses the entry, or stops reading there."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}" if self.line else f"{self.path}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRule:
    """A policy routing rule as a line of a manager's file has it."""

    place: Place
    interface: str | None
    """The interface whose coming up installs it; None for a script that runs for every interface."""
    rule: Rule
    """With priority 0 where none is written, and with no table where the name is not known."""
    table: str
    """The table as it is written."""
    has_priority: bool
    phase: Phase = "up"
    typed: bool = False
    """A command installs it; otherwise the manager installs it itself and owns it."""
    failure_tolerated: bool = False
    """The commands after it run even when it fails."""
    guarded: bool = False
    """The command runs only when the rule does not exist yet."""

    @property
    def table_known(self) -> bool:
        """The table's name is known to the manager that reads the line."""
        return self.rule.table is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRoute:
    """A route as a line of a manager's file has it."""

    place: Place
    interface: str | None
    route: Route
    """In table 0 where the table's name is not known."""
    table: str
    verb: str = "replace"
    """``add``, ``append``, ``change`` or ``replace``; a manager replaces a route that it installs itself."""
    gateway_computed: bool = False
    """The gateway is known only when the interface comes up: the router of a lease, a variable."""
    phase: Phase = "up"
    typed: bool = False
    failure_tolerated: bool = False
    guarded: bool = False

    @property
    def table_known(self) -> bool:
        """The table's name is known to the manager that reads the line."""
        return self.route.table != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRemoval:
    """A command that removes rules or routes."""

    place: Place
    interface: str | None
    phase: Phase
    kind: Literal["rule", "route"]
    rule: Rule | None = None
    """The selectors that the command names; None when it removes every rule, or removes routes."""
    by_priority: bool = False
    """The rule's priority is named."""
    by_table: bool = False
    """The rule's table is named."""
    failure_tolerated: bool = False


ConfigEntry = WrittenRule | WrittenRoute | WrittenRemoval
