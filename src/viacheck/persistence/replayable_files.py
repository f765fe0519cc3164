"""A copy of ifupdown's files that can run in a lab: the parts that are not known to be harmless are left out and named.

Every line keeps its number, so that messages name the lines of the host's own files. A stanza stays
if its method only sets addresses and its interface exists; of its options those stay that ifupdown itself turns into
addresses and routes, and the hooks that run only ``ip``; of the scripts those that run only ``ip`` (see
:mod:`viacheck.parsers.shell_allowlist`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from viacheck.model.config_entry import Place
from viacheck.model.snapshot import HostFile
from viacheck.parsers.glob import glob_matches
from viacheck.parsers.shell_allowlist import objection_to_hook, objection_to_script
from viacheck.persistence.ifupdown import (
    HOOKS,
    SCRIPT_FOLDERS,
    LogicalLine,
    keyword,
    logical_lines,
)

FOLDER = "/etc/network/"
"""The folder that a lab has a copy of; a file that is sourced from elsewhere would be this machine's own."""
_METHODS = frozenset({
    ("inet", "loopback"), ("inet", "static"), ("inet", "manual"), ("inet", "dhcp"),
    ("inet6", "loopback"), ("inet6", "static"), ("inet6", "manual"),
})  # fmt: skip
"""Methods that only set addresses, and that end by themselves (interfaces(5))."""
_OPTIONS = frozenset(
    {"address", "netmask", "broadcast", "gateway", "metric", "pointopoint", "scope", "mtu", "hwaddress"}
)
_PLAIN = re.compile(r"[\w.:/@=+ \t-]+", re.ASCII)
"""ifupdown puts the values of options into command lines that a shell runs."""
_PATTERN = re.compile(r"[\w.:@/*-]+", re.ASCII)
_OF_AN_OPTION = re.compile(r"\bIF_[A-Z0-9_]+")
_SHELL = re.compile(r"#![ \t]*/bin/(?:ba|da)?sh((?:[ \t]+-[eux]+)?)[ \t]*")
_MISTAKE = "left out"
"""Stands for a line that ifupdown cannot read; ifupdown cannot read this one either."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of the files that is not in the copy."""

    place: Place
    reason: str
    interface: str | None = None
    """The interface of the stanza, if the whole stanza is left out."""

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ReplayableFiles:
    """The parts of a host's files that may run in a lab."""

    files: tuple[HostFile, ...]
    left_out: tuple[LeftOut, ...]
    methods: dict[str, tuple[str, ...]]
    """By interface, in the order of the files, the methods of the stanzas that stay."""
    hotplugged: bool
    """An interface comes up when it appears, and not by ``ifup -a``."""

    @property
    def interfaces(self) -> frozenset[str]:
        """The devices that ifupdown configures; the part after a colon is only the label of an address."""
        return frozenset(name.partition(":")[0] for name in self.methods)

    @property
    def leased(self) -> tuple[str, ...]:
        """The interfaces that ask for a lease."""
        return tuple(name for name, methods in self.methods.items() if "dhcp" in methods)


@dataclass(slots=True)
class _Copy:
    """Collects the copy while the files are read."""

    devices: Collection[str]
    leasable: Collection[str]
    left_out: list[LeftOut] = field(default_factory=list)
    methods: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hotplugged: bool = False


def replayable_files(files: Sequence[HostFile], devices: Collection[str], leasable: Collection[str]) -> ReplayableFiles:
    """Copy the parts of the files that may run in a lab.

    Args:
        files: ifupdown's files as they are on the host; a snapshot holds only parts, whose effect is not known.
        devices: the host's interfaces.
        leasable: the interfaces that can get a lease in the lab.
    """
    copy = _Copy(devices, leasable)
    texts = [file for file in files if file.exists and file.error is None]
    configured = [file for file in texts if file.path.startswith(FOLDER)]
    scripts = [file for file in configured if file.path.rpartition("/")[0] in SCRIPT_FOLDERS]
    configured = [file for file in configured if file not in scripts]
    templates = {fields[fields.index("inherits") + 1] for file in configured for fields in _inheriting(file.text)}
    for file in configured:
        _find_stanzas(copy, file, templates)
    kept = [HostFile(path=file.path, exists=True, text=_interfaces(copy, file), mode=0o644) for file in configured]
    kept += [runnable for script in scripts if (runnable := _script(copy, script)) is not None]
    return ReplayableFiles(tuple(kept), tuple(copy.left_out), copy.methods, copy.hotplugged)


def _inheriting(text: str) -> list[list[str]]:
    lines = (line.text.split() for line in logical_lines(text))
    return [fields for fields in lines if fields[0] == "iface" and "inherits" in fields[:-1]]


def _find_stanzas(copy: _Copy, file: HostFile, templates: Collection[str]) -> None:
    for line in logical_lines(file.text):
        fields = line.text.split()
        if fields[0] != "iface" or len(fields) < 2:
            continue
        reason = _objection_to_stanza(copy, fields, templates)
        if reason is not None:
            copy.left_out.append(LeftOut(_place(file, line), f"the stanza is left out: {reason}", fields[1]))
        else:
            method = fields[3] if len(fields) > 3 and fields[2] != "inherits" else ""
            copy.methods[fields[1]] = (*copy.methods.get(fields[1], ()), method)


def _objection_to_stanza(copy: _Copy, fields: list[str], templates: Collection[str]) -> str | None:
    name, family, method = fields[1], *(*fields[2:4], "", "")[:2]
    device = name.partition(":")[0]
    if not all(map(_PLAIN.fullmatch, fields)):
        return "its name is not plain text"
    if not method:
        # ifupdown must find this mistake as well.
        return None
    if family != "inherits" and (family, method) not in _METHODS:
        return f"the effect of '{family} {method}' may leave the lab"
    if device not in copy.devices and name not in templates:
        return f"{device} does not exist"
    if method == "dhcp" and name not in copy.leasable:
        return f"{name} has no address or no gateway, so the lab has no lease for it"
    return None


def _place(file: HostFile, line: LogicalLine) -> Place:
    """Return the line without its text: a part that is left out may hold secrets."""
    return Place(file.path, line.number)


def _interfaces(copy: _Copy, file: HostFile) -> str:
    """Return one file of interfaces(5), every line with its number."""
    kept = [""] * len(file.text.split("\n"))
    dropped = {out.place.line for out in copy.left_out if out.place.path == file.path and out.interface is not None}
    asked_for = set(_OF_AN_OPTION.findall(file.text))
    inside: bool | None = None
    """Whether the present stanza stays; None outside every stanza."""
    for line in logical_lines(file.text):
        word, *rest = line.text.split(None, 1)
        value = rest[0] if rest else ""
        if keyword(line) is None:
            if inside is None:
                kept[line.number - 1] = _MISTAKE
            elif inside:
                kept[line.number - 1] = _option(copy, _place(file, line), word, value, asked_for)
            continue
        inside = None
        if word == "iface":
            inside = line.number not in dropped
            kept[line.number - 1] = " ".join(line.text.split()) if inside else ""
        elif word == "auto" or word.startswith("allow-"):
            names = [name for name in value.split() if _is_started(copy, name)]
            copy.hotplugged |= word == "allow-hotplug" and bool(names)
            kept[line.number - 1] = " ".join((word, *names)) if names and _PATTERN.fullmatch(word) else ""
        elif _is_harmless(file, word, value):
            kept[line.number - 1] = f"{word} {value}"
        else:
            inside = False
            copy.left_out.append(LeftOut(_place(file, line), f"'{word}' is left out"))
    return "\n".join(kept)


def _option(copy: _Copy, place: Place, word: str, value: str, asked_for: Collection[str]) -> str:
    """Return an option of a stanza that stays; an option of another program stays if a hook uses its value."""
    if not value:
        return _MISTAKE.split()[0]
    if word in HOOKS:
        reason = objection_to_hook(value)
        if reason is None:
            return f"    {word} {value}"
        copy.left_out.append(LeftOut(place, f"not run: {reason}"))
        return ""
    wanted = word in _OPTIONS or f"IF_{word.upper().replace('-', '_')}" in asked_for
    return f"    {word} {value}" if wanted and _PLAIN.fullmatch(word) and _PLAIN.fullmatch(value) else ""


def _is_started(copy: _Copy, name: str) -> bool:
    physical, _equals, logical = name.partition("=")
    wanted = logical or physical
    if not _PATTERN.fullmatch(name):
        return False
    if physical.startswith("/"):
        return any(glob_matches(interface, physical[1:]) for interface in copy.methods)
    return wanted in copy.methods


def _is_harmless(file: HostFile, word: str, value: str) -> bool:
    if word in ("source", "source-directory"):
        return _stays_inside(file, value)
    return word in ("no-scripts", "no-auto-down") and _PLAIN.fullmatch(value) is not None


def _stays_inside(file: HostFile, patterns: str) -> bool:
    for pattern in patterns.split():
        path = pattern if pattern.startswith("/") else f"{file.path.rpartition('/')[0]}/{pattern}"
        if not _PATTERN.fullmatch(pattern) or not path.startswith(FOLDER) or ".." in path.split("/"):
            return False
    return True


def _script(copy: _Copy, script: HostFile) -> HostFile | None:
    if not script.mode & 0o111:
        return None
    first, *_rest = script.text.split("\n", 1)
    shell = _SHELL.fullmatch(first)
    objection = objection_to_script(script.text) if shell is not None else None
    if shell is None or objection is not None:
        line, reason = (objection.line, objection.reason) if objection is not None else (1, "it is not a shell script")
        copy.left_out.append(LeftOut(Place(script.path, line), f"the script is not run: {reason}"))
        return None
    return HostFile(path=script.path, exists=True, text=f"#!/bin/sh{shell[1]}{script.text[len(first) :]}", mode=0o755)
