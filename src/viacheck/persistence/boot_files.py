"""Finds rules and routes that the host sets without a network manager's own files.

These are rc.local, systemd units, scripts of networkd-dispatcher, the rule- and route- files of RHEL's network-scripts,
and the scripts that they run. A line that runs at boot alone does not bring back a route that its interface lost.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from viacheck.model.config_entry import Place, TableNumberOf, WrittenRoute, WrittenRule
from viacheck.model.snapshot import HostFile
from viacheck.parsers.ip_command import entries, ip_commands
from viacheck.parsers.shell import ShellError, first_command
from viacheck.persistence.hook_scripts import read_script
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
CALLED_FROM = ("/usr/local/", "/opt/", "/etc/")
"""Where scripts lie that an operator wrote."""
UNIT_KEYS = ("ExecStart", "ExecStartPost", "WantedBy", "RequiredBy", "Type")
_EXIT = re.compile(r"\s*exit\b")
_DEVICE = re.compile(r"/sys-subsystem-net-devices-(.+)\.device\.(?:wants|requires)/")
MOST_CALLS = 2
"""How many calls of one script are read."""
_CALLED = re.compile(r"/[\w./+-]+")

Occasion = Literal["boot", "interface"]


@dataclass(slots=True)
class BootFiles:
    """The rules and routes of these files, by the occasion on which they are set."""

    entries: dict[Occasion, list[WrittenRule | WrittenRoute]] = field(
        default_factory=lambda: {"interface": [], "boot": []}
    )
    ineffective: list[tuple[Place, str]] = field(default_factory=list)
    """The files that never run, each with the reason."""


def called_scripts(line: str) -> Iterator[str]:
    """Yield the scripts of an operator that the commands of a line run."""
    if "/" not in line:
        # Most lines name no path, and need no tokens: a quarter of the time that a host's files take.
        return
    for piece in re.split(r"&&|\|\||[;&|]", line):
        try:
            words = first_command(piece)
        except ShellError:
            continue
        while words and words[0] in ("sh", "bash", "/bin/sh", "/bin/bash", "exec", "."):
            words = words[1:]
        if words and _CALLED.fullmatch(words[0]) and words[0].startswith(CALLED_FROM):
            yield words[0]


def read(files: Sequence[HostFile], table_number: TableNumberOf) -> BootFiles:
    """Read the files.

    Args:
        files: the host's files.
        table_number: the number of a table's name, as iproute2 knows it.
    """
    result, by_path = BootFiles(), {file.path: file for file in files if file.exists and file.error is None}
    reader = _Reader(by_path, table_number, result)
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
    calls: Counter[tuple[str, Occasion]] = field(default_factory=Counter)

    def script(self, file: HostFile, occasion: Occasion, otherwise: str, *, depth: int = 1) -> None:
        """Read a script, and those that it runs."""
        collector = ConfigCollector("ifupdown")
        read_script(file, collector, "up", self.table_number, sourced=True)
        written = [entry for entry in collector.entries if isinstance(entry, WrittenRule | WrittenRoute)]
        if written and not file.mode & 0o111:
            self.result.ineffective.append((written[0].place, otherwise))
            return
        self.result.entries[occasion] += written
        for line in file.text.split("\n"):
            for path in called_scripts(line):
                if depth and path in self.files and self._may_read(path, occasion):
                    self.script(self.files[path], occasion, "it is not executable", depth=depth - 1)

    def unit(self, unit: HostFile) -> None:
        """Read what a systemd unit starts (systemd.service(5))."""
        name = unit.path.rpartition("/")[2]
        enabled = [path for path in self.files if path.endswith((f".wants/{name}", f".requires/{name}"))]
        device = any(_DEVICE.search(path) for path in enabled)
        occasion: Occasion = "interface" if device else "boot"
        for number, line in enumerate(unit.text.split("\n"), 1):
            key, equals, value = line.strip().partition("=")
            if not equals or key.strip() not in ("ExecStart", "ExecStartPost"):
                continue
            place, command = Place(unit.path, number, line.strip()), _unwrapped(value.strip().lstrip("-+!:@"))
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
            self.result.entries[occasion] += written
            for script in scripts:
                if self._may_read(script.path, occasion):
                    self.script(script, occasion, "the script is not executable")

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


def _unwrapped(command: str) -> str:
    """Return what ``/bin/sh -c '…'`` runs; another command unchanged."""
    match = re.fullmatch(r"(?:/usr)?(?:/bin/)?(?:ba)?sh\s+-\w*c\s+(['\"])(.*)\1", command)
    return match[2] if match is not None else command
