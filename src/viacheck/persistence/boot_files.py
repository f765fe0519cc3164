"""Finds rules and routes that the host sets without a network manager's own files.

These are rc.local, systemd units, crontabs, scripts of networkd-dispatcher, the rule- and route- files of RHEL's
network-scripts, and the scripts that they run. A line that runs at boot alone does not bring back a route that its
interface lost.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from viacheck.model.config_entry import Place, TableNumberOf, WrittenRoute, WrittenRule
from viacheck.model.snapshot import HostFile
from viacheck.parsers.ip_command import entries, ip_commands
from viacheck.parsers.shell import ShellError
from viacheck.persistence import crontabs
from viacheck.persistence.hook_scripts import called_scripts, read_script
from viacheck.persistence.manager_config import ConfigCollector

RC_LOCAL = "/etc/rc.local"
UNIT_FOLDERS = ("/etc/systemd/system", "/usr/local/lib/systemd/system")
NETWORKD_DISPATCHER = tuple(
    f"{root}/networkd-dispatcher/{state}.d"
    for root in ("/etc", "/usr/lib")
    for state in ("routable", "configured", "degraded", "carrier")
)
"""Scripts that networkd-dispatcher runs when a link has come that far (networkd-dispatcher(8))."""
NETWORK_SCRIPTS = "/etc/sysconfig/network-scripts"
"""RHEL: rule-IFACE and route-IFACE hold the arguments of ``ip rule add`` and ``ip route add``."""
UNIT_KEYS = ("ExecStart", "ExecStartPost", "WantedBy", "RequiredBy", "Type", "Before", "Wants")
NETWORK_PRE = "network-pre.target"
"""Every network manager starts after it, once something wants it (systemd.special(7))."""
BY_SHELL = re.compile(
    r"""(?P<before>[-+!:@]*(?:/usr)?(?:/bin/)?(?:ba)?sh\s+-\w*c\s+)(?P<quote>['"])(?P<commands>[^'"]*)(?P=quote)"""
)
"""A command of a unit that a shell runs, after the modifiers of systemd.service(5)."""
_EXIT = re.compile(r"\s*exit\b")
_DEVICE = re.compile(r"/sys-subsystem-net-devices-(.+)\.device\.(?:wants|requires)/")
MOST_CALLS = 2
"""How many calls of one script are read."""

Occasion = Literal["boot", "interface"]


@dataclass(slots=True)
class BootFiles:
    """The rules and routes of these files, by the occasion on which they are set."""

    entries: dict[Occasion, list[WrittenRule | WrittenRoute]] = field(
        default_factory=lambda: {"interface": [], "boot": []}
    )
    ineffective: list[tuple[Place, str]] = field(default_factory=list)
    """The files that never run, each with the reason."""
    by_cron: list[Place] = field(default_factory=list)
    """The lines of crontabs that set rules or routes."""


def enabling_links(unit: str, paths: Iterable[str]) -> Iterator[str]:
    """Yield the links that start a unit, or an instance of a template: of ``x@eth0`` for ``x@`` (systemd.unit(5))."""
    name, at, rest = unit.partition("@")
    instance = re.escape(unit) if not at or rest.partition(".")[0] else rf"{re.escape(name)}@[^/]*{re.escape(rest)}"
    link = re.compile(rf".*\.(?:wants|requires)/{instance}")
    return (path for path in paths if link.fullmatch(path))


def read(files: Sequence[HostFile], table_number: TableNumberOf, managers_unit: str | None = None) -> BootFiles:
    """Read the files.

    Args:
        files: the host's files.
        table_number: the number of a table's name, as iproute2 knows it.
        managers_unit: the unit that configures the uplink at boot; None if it is not known.
    """
    result, by_path = BootFiles(), {file.path: file for file in files if file.exists and file.error is None}
    reader = _Reader(by_path, table_number, result, managers_unit)
    rc_local = by_path.get(RC_LOCAL)
    if rc_local is not None:
        reader.script(_before_exit(rc_local), "boot", "the file is not executable, so it never runs")
    for path, file in by_path.items():
        folder, _slash, name = path.rpartition("/")
        if folder in NETWORKD_DISPATCHER:
            reader.script(file, "interface", "the script is not executable, so it never runs")
        elif folder in UNIT_FOLDERS and name.endswith(".service"):
            reader.unit(file)
        elif folder == NETWORK_SCRIPTS and name.startswith(("rule-", "route-")):
            reader.network_script(file)
    # One that runs pipework too is there twice, each time with other lines.
    for file in files:
        if file.exists and file.error is None and crontabs.is_crontab(file.path):
            reader.crontab(file, crontabs.not_run(file, files))
    return result


def _before_exit(file: HostFile) -> HostFile:
    lines = file.text.split("\n")
    end = next((number for number, line in enumerate(lines) if _EXIT.match(line)), len(lines))
    return HostFile(path=file.path, exists=True, text="\n".join(lines[:end]), mode=file.mode)


@dataclass(slots=True)
class _Reader:
    files: dict[str, HostFile]
    table_number: TableNumberOf
    result: BootFiles
    managers_unit: str | None
    early: str | None = None
    """The unit that configures the uplink, while a unit is read that runs before it."""
    calls: Counter[tuple[str, Occasion]] = field(default_factory=Counter)

    def script(self, file: HostFile, occasion: Occasion, otherwise: str, *, depth: int = 1) -> None:
        """Read a script, and those that it runs."""
        collector = ConfigCollector("ifupdown")
        read_script(file, collector, "up", self.table_number, sourced=True)
        written = [entry for entry in collector.entries if isinstance(entry, WrittenRule | WrittenRoute)]
        called = [
            (Place(file.path, number, line.strip()), path)
            for number, line in enumerate(file.text.split("\n"), 1)
            for path in called_scripts(line)
            if path in self.files
        ]
        if not file.mode & 0o111:
            places = [*(entry.place for entry in written), *(place for place, _ in called)]
            self.result.ineffective += [(place, otherwise) for place in places[:1]]
            return
        self._keep(written, occasion)
        for _, path in called:
            if depth and self._may_read(path, occasion):
                self.script(self.files[path], occasion, "it is not executable", depth=depth - 1)

    def unit(self, unit: HostFile) -> None:
        """Read what a systemd unit starts (systemd.service(5))."""
        enabled = list(enabling_links(unit.path.rpartition("/")[2], self.files))
        device = any(_DEVICE.search(path) for path in enabled)
        occasion: Occasion = "interface" if device else "boot"
        self.early = self._follows(unit) if occasion == "boot" else None
        for number, line in enumerate(unit.text.split("\n"), 1):
            key, equals, value = line.strip().partition("=")
            if not equals or key.strip() not in ("ExecStart", "ExecStartPost"):
                continue
            shell = BY_SHELL.fullmatch(value.strip())
            command = shell["commands"] if shell is not None else value.strip().lstrip("-+!:@")
            place = Place(unit.path, number, line.strip())
            try:
                typed = list(entries(ip_commands(command), place, None, "up", self.table_number))
            except ShellError:
                continue
            written = [entry for entry in typed if isinstance(entry, WrittenRule | WrittenRoute)]
            scripts = [self.files[path] for path in called_scripts(command) if path in self.files]
            if not enabled:
                if written or scripts:
                    self.result.ineffective.append((place, "the unit is not enabled (systemctl enable)"))
                continue
            self._keep(written, occasion)
            for script in scripts:
                if self._may_read(script.path, occasion):
                    self.script(script, occasion, "the script is not executable")
        self.early = None

    def crontab(self, file: HostFile, not_run: str | None) -> None:
        """Read what a crontab runs at boot; ``not_run`` is why cron runs none of it."""
        for line in crontabs.reboot_lines(file):
            try:
                typed = list(entries(ip_commands(line.command), line.place, None, "up", self.table_number))
            except ShellError:
                continue
            written = [entry for entry in typed if isinstance(entry, WrittenRule | WrittenRoute)]
            scripts = [self.files[path] for path in called_scripts(line.command) if path in self.files]
            reason = not_run or (None if line.user == "root" else "the line does not run as root")
            if reason is not None:
                if written or scripts:
                    self.result.ineffective.append((line.place, reason))
                continue
            self._keep(written, "boot")
            for script in scripts:
                if self._may_read(script.path, "boot"):
                    self.script(script, "boot", "the script is not executable")
            if written or scripts:
                self.result.by_cron.append(line.place)

    def _follows(self, unit: HostFile) -> str | None:
        """Return what a unit runs before, if the uplink has no address then (Before= of systemd.unit(5))."""
        names: dict[str, list[str]] = {}
        for line in unit.text.split("\n"):
            key, _equals, value = line.strip().partition("=")
            names.setdefault(key.strip(), []).extend(value.split())
        before = names.get("Before", [])
        if self.managers_unit in before:
            return self.managers_unit
        return NETWORK_PRE if NETWORK_PRE in before and NETWORK_PRE in names.get("Wants", []) else None

    def _keep(self, written: Sequence[WrittenRule | WrittenRoute], occasion: Occasion) -> None:
        for entry in written:
            if self.early is not None and isinstance(entry, WrittenRoute) and entry.route.nexthops:
                reason = f"its unit runs before {self.early}, when no interface has an address: the kernel refuses it"
                self.result.ineffective.append((entry.place, reason))
            else:
                self.result.entries[occasion].append(entry)

    def _may_read(self, path: str, occasion: Occasion) -> bool:
        """Count the calls of a script. A script that is called twice may add a rule twice; more calls show no more."""
        self.calls[path, occasion] += 1
        return self.calls[path, occasion] <= MOST_CALLS

    def network_script(self, file: HostFile) -> None:
        """Read a rule- or route- file: each line holds the arguments of ``ip rule add`` or ``ip route add``."""
        kind, _dash, interface = file.path.rpartition("/")[2].partition("-")
        for number, line in enumerate(file.text.split("\n"), 1):
            text = line.strip()
            if not text or text.startswith("#") or "=" in text:
                continue
            command = f"ip {kind} add {text}" + (f" dev {interface}" if kind == "route" and " dev " not in text else "")
            place = Place(file.path, number, text)
            try:
                lines = list(entries(ip_commands(command), place, interface, "up", self.table_number))
            except ShellError:
                continue
            self.result.entries["interface"] += [
                entry for entry in lines if isinstance(entry, WrittenRule | WrittenRoute)
            ]
