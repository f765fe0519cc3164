"""A fault of a line in a manager's file: file, line, code, consequence, and the line to write instead."""

from __future__ import annotations

from dataclasses import dataclass

from viacheck.model.config_entry import Place


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of the configuration."""

    code: str
    """The diagnosis code."""
    place: Place
    sentence: str
    replacement: str = ""
    """The text to write in place of the line."""
    breaks: bool = True
    """The line cannot run twice, or its entry does not come back; else it works now and is at risk."""
    by_line: bool = True
    """The replacement is for this line alone; else for the section that the line belongs to."""
    file: str = ""
    """A new file that the replacement is for; the line stays as it is."""
    reload: tuple[tuple[str, ...], ...] = ()
    """The commands, as argument lists, that make the manager read that file."""

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}"
