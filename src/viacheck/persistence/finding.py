"""What is found wrong with what is written down: file, line, code, what happens, and what to write instead."""

from __future__ import annotations

from dataclasses import dataclass

from viacheck.model.config_entry import Place


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with what is written."""

    code: str
    place: Place
    sentence: str
    replacement: str = ""
    """What to write in place of the line."""
    breaks: bool = True
    """It will not run twice, or not come back; else it works and will hurt."""
    by_line: bool = True
    """The replacement is for this line alone; else for what the line belongs to."""
    file: str = ""
    """A new file that the replacement is for; the line stays as it is."""
    then: tuple[str, ...] = ()
    """What makes the manager read that file."""

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}"
