"""What a network manager's files say about rules and routes, in terms that are the same for every manager.

A reader turns files into a :class:`Written`; a rule or route keeps the place where it stands, so that a verdict can
name file and line. Nothing here or in the readers touches the host: they work from a bundle as they do on a live host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from viacheck.model.config_entry import ConfigEntry, ParseProblem, Place, WrittenRemoval, WrittenRoute, WrittenRule
from viacheck.model.snapshot import HostFile

Manager = Literal["ifupdown", "networkd", "networkmanager", "netplan"]

OWN_NAMES = {"ifupdown": "ifupdown", "networkd": "systemd-networkd", "networkmanager": "NetworkManager",
             "netplan": "netplan"}  # fmt: skip
"""What people call each manager."""
PREDEFINED_TABLES = {"default": 253, "main": 254, "local": 255}


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
class Written:
    """Everything that matters in the files of one manager."""

    manager: Manager
    holdings: tuple[ManagedLink, ...] = ()
    entries: tuple[ConfigEntry, ...] = ()
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
    entries: list[ConfigEntry] = field(default_factory=list)
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
