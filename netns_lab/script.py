"""A user's own commands for a lab's host, before they run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Script:
    """Commands to run on a lab's host: a shell script."""

    name: str
    """The name in messages: the file's, or the remedy's."""
    text: str
    folder: str = "/"
    """The folder of the file, in which the commands run."""
