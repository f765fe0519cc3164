"""Reads the configuration of NetworkManager: connection profiles (key files), its state of devices, dispatcher scripts.

nm-settings-keyfile(5): rules are routing-ruleN in [ipv4], routes routeN with routeN_options, and route-table moves
every route of the profile. NetworkManager refuses a rule without a priority, takes tables by number only, and ignores a
profile that is readable by others than its owner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from viacheck.model.address_family import Family
from viacheck.model.config_entry import ParseProblem, Phase, Place, TableNumberOf, WrittenRoute, WrittenRule
from viacheck.model.namespace_state import Link
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import HostFile
from viacheck.parsers.glob import glob_matches
from viacheck.parsers.ini import Section, named, sections
from viacheck.parsers.ip_command import IPCommand, rule_of
from viacheck.persistence.hook_scripts import read_scripts
from viacheck.persistence.manager_config import (
    PREDEFINED_TABLES,
    ConfigCollector,
    ManagedLink,
    ManagerConfig,
    below,
    winning,
    within_bounds,
)
from viacheck.persistence.networkd import number, prefix

PROFILE_FOLDERS = tuple(f"{root}/NetworkManager/system-connections" for root in ("/etc", "/run", "/usr/lib"))
STATE_FOLDER = "/run/NetworkManager/devices"
_DISPATCHED: dict[str, Phase] = {"": "up", "/pre-up.d": "up", "/no-wait.d": "up", "/pre-down.d": "down"}
DISPATCHER_FOLDERS: dict[str, Phase] = {
    f"{root}/NetworkManager/dispatcher.d{part}": phase
    for root in ("/etc", "/usr/lib")
    for part, phase in _DISPATCHED.items()
}


class EntryRefused(ValueError):
    """NetworkManager itself refuses the entry; the message says why."""


FAMILIES: dict[str, Family] = {"ipv4": 4, "ipv6": 6}


def read(files: Sequence[HostFile], links: Sequence[Link], table_number: TableNumberOf) -> ManagerConfig:
    """Read the configuration of the given links.

    Args:
        files: the host's files; those of other managers are ignored.
        links: the host's interfaces.
        table_number: the number of a table's name in a dispatcher script.
    """
    collector = ConfigCollector("networkmanager")
    profiles = [(file, profile) for file in winning(below(files, *PROFILE_FOLDERS))
                if (profile := _profile(file, collector)) is not None]  # fmt: skip
    in_use = _state(files, links, collector)
    settings = sum(
        len(section.settings) + (section.get("interface-name") or "").count(";")
        for _file, profile in profiles
        for section in profile
    )
    for link in within_bounds(links, settings, PROFILE_FOLDERS[0], collector.problems):
        for file, profile in profiles:
            connection = next(named(profile, "connection"), None)
            uuid = connection.get("uuid") if connection else None
            if (uuid is not None and (link.name, uuid) in in_use) or _names(profile, link):
                _settings(file, profile, link, collector)
    for folder, phase in DISPATCHER_FOLDERS.items():
        scripts = sorted(below(files, folder), key=lambda file: file.path)
        read_scripts(scripts, files, collector, phase, table_number)
    return collector.config()


def _profile(file: HostFile, collector: ConfigCollector) -> list[Section] | None:
    if file.path.endswith((".rpmnew", ".bak", "~")) or not collector.readable(file):
        return None
    if file.mode & 0o077:
        reason = f"NetworkManager ignores it: its mode is {file.mode:o}, and only its owner may read it (600)"
        collector.problems.append(ParseProblem(file.path, 0, reason))
        return None
    profile = sections(file, collector.problems)
    invalid = next(_invalid(profile), None)
    if invalid is not None:
        collector.problems.append(ParseProblem(file.path, 0, f"NetworkManager ignores it: {invalid}"))
        return None
    return profile


def _invalid(profile: Sequence[Section]) -> Iterator[str]:
    """Yield why NetworkManager refuses a whole profile (nm-settings(5): ipv4.method, ipv6.method)."""
    for name in FAMILIES:
        own = list(named(profile, name))
        methods = [method for section in own if (method := section.get("method"))]
        if own and not methods:
            yield f"[{name}] has no method"
        keys = [setting.key for section in own for setting in section.settings if setting.value]
        if methods[-1:] == ["manual"] and not any(re.fullmatch(r"address(es)?\d*", key) for key in keys):
            yield f"[{name}] has method=manual, and no address"
        if methods[-1:] == ["disabled"] and any(re.fullmatch(r"(address(es)?|route)\d*", key) for key in keys):
            yield f"[{name}] has method=disabled, and addresses or routes"


def _state(files: Sequence[HostFile], links: Sequence[Link], collector: ConfigCollector) -> set[tuple[str, str | None]]:
    by_index = {str(link.index): link for link in links}
    in_use: set[tuple[str, str | None]] = set()
    for file in below(files, STATE_FOLDER):
        link = by_index.get(file.path.rpartition("/")[2])
        if link is None or not collector.readable(file):
            continue
        for section in named(sections(file, collector.problems), "device"):
            if section.get("managed") in ("true", "1"):
                collector.links.append(ManagedLink(link.name, section.place, active=True))
                in_use.add((link.name, section.get("connection-uuid")))
    return in_use


def _names(profile: Sequence[Section], link: Link) -> bool:
    names = [section.get("interface-name") for section in named(profile, "connection")]
    matches = [section.get("interface-name") or "" for section in named(profile, "match")]
    patterns = [pattern for value in matches for pattern in value.split(";")]
    return link.name in names or any(glob_matches(link.name, pattern) for pattern in patterns if pattern)


def profile_of(files: Sequence[HostFile], links: Sequence[Link], interface: str) -> Place | None:
    """Return the file of an interface's profile: of the one in use, else of the first that names the interface."""
    collector = ConfigCollector("networkmanager")
    in_use = _state(files, links, collector)
    by_name = None
    for file in winning(below(files, *PROFILE_FOLDERS)):
        profile = _profile(file, collector)
        if profile is None:
            continue
        connection = next(named(profile, "connection"), None)
        uuid = connection.get("uuid") if connection else None
        if uuid is not None and (interface, uuid) in in_use:
            return Place(file.path, 1)
        link = next((link for link in links if link.name == interface), None)
        if link is not None and _names(profile, link):
            by_name = by_name or Place(file.path, 1)
    return by_name


@dataclass(frozen=True, slots=True)
class ProfileLines:
    """The places in a profile where lines can be added or replaced."""

    path: str
    sections: tuple[Section, ...]

    def end_of(self, name: str) -> int:
        """Return the number of the last line of a section, which is there in every profile."""
        own = list(named(self.sections, name))
        return max((place.line for section in own for place in (section.place, *_places(section))), default=0)

    def line_of(self, name: str, key: str) -> int | None:
        """Return the number of the line of a key; None without such a line."""
        places = (setting.place.line for section in named(self.sections, name) for setting in section.all(key))
        return next(places, None)

    def last_number(self, key: str) -> int:
        """Return the highest number of the keys ``key1``, ``key2`` … in [ipv4]; 0 without any."""
        keys = (setting.key for section in named(self.sections, "ipv4") for setting in section.settings)
        return max((int(match[1] or 0) for name in keys if (match := re.fullmatch(rf"{key}(\d*)", name))), default=0)


def _places(section: Section) -> Iterator[Place]:
    return (setting.place for setting in section.settings)


def profile_lines(files: Sequence[HostFile], path: str) -> ProfileLines | None:
    """Return the lines of a profile; None where a section [ipv4] is missing."""
    for file in files:
        if file.path == path and file.exists and file.error is None:
            profile = ProfileLines(path, tuple(sections(file, [])))
            return profile if profile.end_of("ipv4") else None
    return None


def _settings(file: HostFile, profile: Sequence[Section], link: Link, collector: ConfigCollector) -> None:
    connection = next(named(profile, "connection"), None)
    automatic = connection is None or connection.get("autoconnect") not in ("false", "0")
    method = next((section.get("method") for section in named(profile, "ipv4")), None) or ""
    place = connection.place_of("interface-name") if connection else Place(file.path, 1)
    method = {"auto": "dhcp", "manual": "static"}.get(method, method)
    collector.links.append(ManagedLink(link.name, place, at_boot=automatic, method=method))
    for name, family in FAMILIES.items():
        for section in named(profile, name):
            for entry in profile_entries(section, family, link, collector):
                collector.entries.append(entry)


def profile_entries(
    section: Section, family: Family, link: Link, collector: ConfigCollector
) -> Iterator[WrittenRule | WrittenRoute]:
    """Yield the rules and routes of a section [ipv4] or [ipv6] (nm-settings-keyfile(5))."""
    default_table = section.get("route-table") or "main"
    for setting in section.settings:
        try:
            if re.fullmatch(r"routing-rule\d*", setting.key):
                yield _rule(setting.value, setting.place, family, link)
            elif re.fullmatch(r"route\d*", setting.key):
                options = section.get(f"{setting.key}_options") or ""
                yield _route(setting.value, options, setting.place, family, link, default_table)
        except ValueError as error:
            place, refused = setting.place, isinstance(error, EntryRefused)
            collector.problems.append(ParseProblem(place.path, place.line, str(error), refused))
    if section.get("route-table") and section.get("never-default") not in ("true", "1"):
        yield from _default(section, family, link, default_table)


def _rule(value: str, place: Place, family: Family, link: Link) -> WrittenRule:
    arguments = tuple(value.split())
    command = IPCommand("rule", "add", family, arguments, failure_tolerated=False, guarded=False)
    rule, table = rule_of(command, lambda name: number(name, PREDEFINED_TABLES))
    has_priority = any(keyword in ("priority", "order", "pref", "preference") for keyword in arguments)
    if not has_priority:
        raise EntryRefused("a routing-rule without a priority, which NetworkManager refuses")
    return WrittenRule(place=place, interface=link.name, rule=rule, table=table, has_priority=True)


def _route(value: str, options: str, place: Place, family: Family, link: Link, default_table: str) -> WrittenRoute:
    destination, gateway, metric = (*(part.strip() for part in value.split(",")), "", "")[:3]
    settings = dict(option.partition("=")[::2] for option in options.split(",") if "=" in option)
    table, kind = settings.get("table", default_table), settings.get("type", "unicast")
    if not destination:
        raise ValueError("a route without a destination")
    # An older form has the gateway 0.0.0.0 for a route without a gateway.
    gateway = "" if gateway in ("0.0.0.0", "::") else gateway  # noqa: S104
    route = Route(
        family=family,
        table=number(table, PREDEFINED_TABLES) or 0,
        destination=prefix(destination) or ("::/0" if family == 6 else "0.0.0.0/0"),
        type=kind,
        nexthops=(Nexthop(gateway=gateway or None, interface=link.name),) if kind == "unicast" else (),
        metric=int(metric) if metric else 0,
    )
    return WrittenRoute(place=place, interface=link.name, route=route, table=table)


def _default(section: Section, family: Family, link: Link, table: str) -> Iterator[WrittenRoute]:
    """Return the default route of the profile's gateway, or its lease, in the table of route-table."""
    gateway = section.get("gateway")
    for setting in section.settings:
        # 'address1=10.0.0.2/24,10.0.0.1' names the gateway as well.
        if re.fullmatch(r"address(es)?\d*", setting.key) and "," in setting.value:
            gateway = gateway or setting.value.split(",")[1].strip()
    leased = section.get("method") == "auto"
    if gateway or leased:
        route = Route(
            family=family, table=number(table, PREDEFINED_TABLES) or 0,
            destination="::/0" if family == 6 else "0.0.0.0/0",
            nexthops=(Nexthop(gateway=gateway, interface=link.name),),
        )  # fmt: skip
        yield WrittenRoute(
            place=section.place_of("route-table"), interface=link.name, route=route, table=table,
            gateway_computed=gateway is None,
        )  # fmt: skip
