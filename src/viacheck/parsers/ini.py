"""Sections, keys and values with their lines, for two dialects: systemd.syntax(7) and GLib's key files.

Both are ini files; they differ in what may be continued and commented, which matters to neither's settings here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from viacheck.model.config_entry import ParseProblem, Place
from viacheck.model.snapshot import HostFile


@dataclass(frozen=True, slots=True)
class Setting:
    """One ``key=value``."""

    key: str
    value: str
    place: Place


@dataclass(slots=True)
class Section:
    """One section; a name that comes again makes another one."""

    name: str
    place: Place
    settings: list[Setting] = field(default_factory=list)

    def all(self, key: str) -> list[Setting]:
        """Every setting of a key; an empty value resets what came before it (systemd.syntax(7))."""
        found: list[Setting] = []
        for setting in self.settings:
            if setting.key == key:
                found = [*found, setting] if setting.value else []
        return found

    def get(self, key: str) -> str | None:
        """The last value of a key."""
        found = self.all(key)
        return found[-1].value if found else None

    def place_of(self, key: str) -> Place:
        """Where a key stands; the section's own line where it does not."""
        found = self.all(key)
        return found[-1].place if found else self.place


def sections(file: HostFile, problems: list[ParseProblem]) -> list[Section]:
    """Read a file; lines that are neither section nor setting are added to the problems and left out."""
    found: list[Section] = []
    lines = file.text.split("\n")
    at = 0
    while at < len(lines):
        number, text = at + 1, lines[at].strip()
        while text.endswith("\\") and at + 1 < len(lines):
            at += 1
            text = text[:-1] + " " + lines[at].strip()
        at += 1
        place = Place(file.path, number, text)
        if not text or text[0] in "#;":
            continue
        if text[0] == "[" and text[-1] == "]":
            found.append(Section(text[1:-1], place))
        elif "=" in text and found:
            key, _equals, value = text.partition("=")
            found[-1].settings.append(Setting(key.strip(), value.strip(), place))
        else:
            problems.append(ParseProblem(file.path, number, "neither a [Section] nor a key=value inside one"))
    return found


def named(found: Iterable[Section], name: str) -> Iterator[Section]:
    """The sections of one name."""
    return (section for section in found if section.name == name)


def is_yes(value: str | None, default: bool) -> bool:
    """A boolean as systemd takes it (systemd.syntax(7)): 1, yes, y, true, t, on and their opposites."""
    if value is None:
        return default
    lowered = value.lower()
    if lowered in ("1", "yes", "y", "true", "t", "on"):
        return True
    return False if lowered in ("0", "no", "n", "false", "f", "off") else default
