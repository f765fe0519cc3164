"""Sections, keys and values with their lines, for two dialects: systemd.syntax(7) and GLib's key files.

Both are ini files; they differ in continuation lines and comments, which does not affect the settings that are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from viacheck.model.config_entry import ParseProblem, Place
from viacheck.model.snapshot import HostFile


@dataclass(frozen=True, slots=True)
class Setting:
    """A line ``key=value``."""

    key: str
    value: str
    place: Place


@dataclass(slots=True)
class Section:
    """A section; a name that stands twice makes two sections."""

    name: str
    place: Place
    settings: list[Setting] = field(default_factory=list)

    def all(self, key: str) -> list[Setting]:
        """Return every setting of a key; an empty value resets the settings before it (systemd.syntax(7))."""
        settings: list[Setting] = []
        for setting in self.settings:
            if setting.key == key:
                settings = [*settings, setting] if setting.value else []
        return settings

    def get(self, key: str) -> str | None:
        """Return the last value of a key; None when it is not set."""
        settings = self.all(key)
        return settings[-1].value if settings else None

    def place_of(self, key: str) -> Place:
        """Return the line of a key; the section's own line when the key is not set."""
        settings = self.all(key)
        return settings[-1].place if settings else self.place


def sections(file: HostFile, problems: list[ParseProblem]) -> list[Section]:
    """Return the sections of a file; lines that are neither section nor setting are added to the problems."""
    read: list[Section] = []
    for number, text in _logical_lines(file.text):
        place = Place(file.path, number, text)
        if not text:
            continue
        if text[0] == "[" and text[-1] == "]":
            read.append(Section(text[1:-1], place))
        elif "=" in text and read:
            key, _equals, value = text.partition("=")
            read[-1].settings.append(Setting(key.strip(), value.strip(), place))
        else:
            problems.append(ParseProblem(file.path, number, "not a [Section], and not a key=value inside a section"))
    return read


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, continued lines joined; a comment does not continue, and may stand between."""
    first, joined = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped[:1] in ("#", ";"):
            continue
        first, joined = first or number, joined + stripped
        if joined.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        yield first, joined
        first, joined = 0, ""
    if joined:
        yield first, joined


def named(all_sections: Iterable[Section], name: str) -> Iterator[Section]:
    """Return the sections of a name."""
    return (section for section in all_sections if section.name == name)


def is_yes(value: str | None, default: bool) -> bool:
    """Return a boolean as systemd reads it (systemd.syntax(7)): 1, yes, y, true, t, on and their opposites."""
    if value is None:
        return default
    lowered = value.lower()
    if lowered in ("1", "yes", "y", "true", "t", "on"):
        return True
    return False if lowered in ("0", "no", "n", "false", "f", "off") else default
