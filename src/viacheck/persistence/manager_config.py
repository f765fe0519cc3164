"""What a network manager's files say about rules and routes, in terms that are the same for every manager.

A reader turns files into a :class:`Written`; a rule or route keeps the place where it stands, so that a verdict can
name file and line. Nothing here or in the readers touches the host: they work from a bundle as they do on a live host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from viacheck.model.snapshot import HostFile, Route, Rule

Manager = Literal["ifupdown", "networkd", "networkmanager", "netplan"]
Phase = Literal["pre-up", "up", "down", "post-down"]
TableNumber = Callable[[str], int | None]
"""The number that a table's name stands for; None where the name is not known."""

OWN_NAMES = {"ifupdown": "ifupdown", "networkd": "systemd-networkd", "networkmanager": "NetworkManager",
             "netplan": "netplan"}  # fmt: skip
"""What people call each manager."""
PREDEFINED_TABLES = {"default": 253, "main": 254, "local": 255}


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file of the host."""

    path: str
    line: int
    """From 1; of what is written over several lines, the first."""
    text: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def volatile(self) -> bool:
        """The file is gone after a reboot."""
        return self.path.startswith("/run/")


@dataclass(frozen=True, slots=True)
class ParseProblem:
    """Something in a file that its manager, or this reader, cannot read."""

    path: str
    line: int
    """From 1; 0 for the file as a whole."""
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}" if self.line else f"{self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ManagedLink:
    """A manager's hold on an interface."""

    interface: str
    place: Place
    now: bool = False
    """The manager's own state says that it holds the interface at this moment; else only its files name it."""
    at_boot: bool = True
    """Something brings the interface up at boot or when it appears."""
    method: str = ""
    """``dhcp``, ``static``, ``manual``, ``loopback`` …, where the manager has such a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRule:
    """A policy routing rule as a manager's files have it."""

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
    """A command installs it; else the manager does so itself, and owns it."""
    failure_tolerated: bool = False
    """A command whose failure does not stop what comes after it."""
    guarded: bool = False
    """A command that runs only when the rule is not there yet."""

    @property
    def table_known(self) -> bool:
        """Whoever reads the line knows the table."""
        return self.rule.table is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRoute:
    """A route as a manager's files have it."""

    place: Place
    interface: str | None
    route: Route
    """In table 0 where the table's name is not known."""
    table: str
    verb: str = "replace"
    """``add``, ``append``, ``change``, ``replace``; what a manager installs itself, it replaces."""
    gateway_computed: bool = False
    """The gateway is found when the interface comes up: a lease's router, a variable."""
    phase: Phase = "up"
    typed: bool = False
    failure_tolerated: bool = False
    guarded: bool = False

    @property
    def table_known(self) -> bool:
        """Whoever reads the line knows the table."""
        return self.route.table != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRemoval:
    """A command that takes rules or routes away."""

    place: Place
    interface: str | None
    phase: Phase
    kind: Literal["rule", "route"]
    rule: Rule | None = None
    """Of a rule that is taken away, what is named of it; None where all are."""
    by_priority: bool = False
    """The rule's priority is named."""
    by_table: bool = False
    """The rule's table is named."""
    failure_tolerated: bool = False


Entry = WrittenRule | WrittenRoute | WrittenRemoval


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Everything that matters in the files of one manager."""

    manager: Manager
    holdings: tuple[ManagedLink, ...] = ()
    entries: tuple[Entry, ...] = ()
    """In the order in which they are run, as far as the files tell."""
    problems: tuple[ParseProblem, ...] = ()

    @property
    def rules(self) -> tuple[WrittenRule, ...]:
        """The rules that are written."""
        return tuple(entry for entry in self.entries if isinstance(entry, WrittenRule))

    @property
    def routes(self) -> tuple[WrittenRoute, ...]:
        """The routes that are written."""
        return tuple(entry for entry in self.entries if isinstance(entry, WrittenRoute))

    @property
    def removals(self) -> tuple[WrittenRemoval, ...]:
        """The commands that take rules or routes away."""
        return tuple(entry for entry in self.entries if isinstance(entry, WrittenRemoval))

    @property
    def active(self) -> bool:
        """The manager holds at least one interface at this moment."""
        return any(holding.now for holding in self.holdings)

    def holding(self, interface: str) -> ManagedLink | None:
        """The manager's hold on an interface: of this moment, else by its files."""
        found = [holding for holding in self.holdings if holding.interface == interface]
        return next((holding for holding in found if holding.now), found[0] if found else None)

    def stanza(self, interface: str) -> ManagedLink | None:
        """Where the manager's files name an interface."""
        found = (holding for holding in self.holdings if holding.interface == interface and not holding.now)
        return next((holding for holding in found if not holding.place.volatile), None)


@dataclass(slots=True)
class Reading:
    """A :class:`Written` while its files are read."""

    manager: Manager
    holdings: list[ManagedLink] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    problems: list[ParseProblem] = field(default_factory=list)

    def finish(self) -> Written:
        """The finished reading."""
        return Written(
            manager=self.manager,
            holdings=tuple(self.holdings),
            entries=tuple(self.entries),
            problems=tuple(self.problems),
        )

    def readable(self, file: HostFile) -> bool:
        """Whether a file has a text to read; why it has none is noted."""
        if file.error is not None:
            self.problems.append(ParseProblem(file.path, 0, file.error))
        return file.exists and file.error is None


def below(files: Sequence[HostFile], *folders: str, suffix: str = "") -> list[HostFile]:
    """The files that lie directly in one of the folders, in the order of the folders."""
    return [
        file
        for folder in folders
        for file in files
        if file.exists and file.path.rpartition("/")[0] == folder and file.path.endswith(suffix)
    ]


def winning(files: Sequence[HostFile]) -> list[HostFile]:
    """Of files with the same name the first; the rest sorted by name, as systemd and netplan merge their folders."""
    by_name: dict[str, HostFile] = {}
    for file in files:
        by_name.setdefault(file.path.rpartition("/")[2], file)
    return [by_name[name] for name in sorted(by_name)]
