"""The configuration that a network manager's files hold about rules and routes, in the same terms for every manager.

A reader turns files into a :class:`ManagerConfig`; each rule and route keeps its place, so that a verdict can name file
and line. The readers never touch the host: they work the same on a bundle and on a live host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from typing import Literal

from viacheck.model.config_entry import ConfigEntry, ParseProblem, Place, WrittenRoute, WrittenRule
from viacheck.model.namespace_state import Link
from viacheck.model.snapshot import HostFile

Manager = Literal["ifupdown", "networkd", "networkmanager", "netplan"]

OWN_NAMES = {"ifupdown": "ifupdown", "networkd": "systemd-networkd", "networkmanager": "NetworkManager",
             "netplan": "netplan"}  # fmt: skip
"""The managers' names in text for people."""
MOST_COMPARISONS = 1_000_000
"""Of an interface with a name, pattern or setting, for one manager: a second of CPU time."""
PREDEFINED_TABLES = {"default": 253, "main": 254, "local": 255}


@dataclass(frozen=True, slots=True)
class ManagedLink:
    """An interface that a manager configures, by its files or by its present state."""

    interface: str
    place: Place
    active: bool = False
    """The manager's own state says that it manages the interface at this moment; else only its files name it."""
    at_boot: bool = True
    """The manager brings the interface up at boot or when it appears."""
    method: str = ""
    """``dhcp``, ``static``, ``manual``, ``loopback`` …, where the manager has such a method."""
    addresses: tuple[str, ...] | None = None
    """Its fixed IPv4 addresses, as written; None where they are not all that decides what the link reaches."""

    def reaches(self, address: str) -> bool:
        """Return whether an address lies in the network of a fixed address; True where that is not known."""
        return self.addresses is None or any(_contains(network, address) for network in self.addresses)


def _contains(network: str, address: str) -> bool:
    try:
        return ip_address(address) in ip_interface(network).network
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerConfig:
    """Everything that the files of one manager say about interfaces, rules and routes."""

    manager: Manager
    links: tuple[ManagedLink, ...] = ()
    entries: tuple[ConfigEntry, ...] = ()
    """In the order in which they run, as far as the files show it."""
    problems: tuple[ParseProblem, ...] = ()

    @property
    def rules(self) -> tuple[WrittenRule, ...]:
        """The configured rules."""
        return tuple(entry for entry in self.entries if isinstance(entry, WrittenRule))

    @property
    def routes(self) -> tuple[WrittenRoute, ...]:
        """The configured routes."""
        return tuple(entry for entry in self.entries if isinstance(entry, WrittenRoute))

    @property
    def active(self) -> bool:
        """The manager manages at least one interface at this moment."""
        return any(link.active for link in self.links)

    def link(self, interface: str) -> ManagedLink | None:
        """Return the manager's link of an interface: the active one, else the one in its files."""
        links = [link for link in self.links if link.interface == interface]
        return next((link for link in links if link.active), links[0] if links else None)

    def configured_link(self, interface: str) -> ManagedLink | None:
        """Return the link in the manager's persistent files that names an interface."""
        links = (link for link in self.links if link.interface == interface and not link.active)
        return next((link for link in links if not link.place.volatile), None)


@dataclass(slots=True)
class ConfigCollector:
    """Collects a :class:`ManagerConfig` while the files of a manager are read."""

    manager: Manager
    links: list[ManagedLink] = field(default_factory=list)
    entries: list[ConfigEntry] = field(default_factory=list)
    problems: list[ParseProblem] = field(default_factory=list)

    def config(self) -> ManagerConfig:
        """Return the collected configuration."""
        return ManagerConfig(
            manager=self.manager,
            links=tuple(self.links),
            entries=tuple(self.entries),
            problems=tuple(self.problems),
        )

    def readable(self, file: HostFile) -> bool:
        """Whether a file has a text to read; the reason why it has none becomes a problem."""
        if file.error is not None:
            self.problems.append(ParseProblem(file.path, 0, file.error))
        return file.exists and file.error is None


def within_bounds(links: Sequence[Link], settings: int, folder: str, problems: list[ParseProblem]) -> Sequence[Link]:
    """Return the interfaces that are matched with the names and patterns of a manager's files.

    Args:
        links: the host's interfaces.
        settings: how many names, patterns and settings the files have, all of which may be for each interface.
        folder: the folder of the files, for the problem.
        problems: gets a line where not all interfaces are matched.
    """
    most = MOST_COMPARISONS // max(settings, 1)
    if len(links) > most:
        reason = f"{settings} settings for {len(links)} interfaces: only the first {most} interfaces are matched"
        problems.append(ParseProblem(folder, 0, reason))
    return links[:most]


def below(files: Sequence[HostFile], *folders: str, suffix: str = "") -> list[HostFile]:
    """Return the files that lie directly in one of the folders, in the order of the folders."""
    return [
        file
        for folder in folders
        for file in files
        if file.exists and file.path.rpartition("/")[0] == folder and file.path.endswith(suffix)
    ]


def winning(files: Sequence[HostFile]) -> list[HostFile]:
    """Return the first file of each name, sorted by name, as systemd and netplan merge their folders."""
    by_name: dict[str, HostFile] = {}
    for file in files:
        by_name.setdefault(file.path.rpartition("/")[2], file)
    return [by_name[name] for name in sorted(by_name)]
