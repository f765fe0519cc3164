"""Reads scripts that managers run when an interface comes up or goes: ifupdown's if-*.d, NetworkManager's dispatcher.

Conditions are not evaluated, and variables are filled in where the script itself gives them a plain value.
"""

from __future__ import annotations

import re

from viacheck.model.config_entry import ParseProblem, Phase, Place, TableNumberOf
from viacheck.model.snapshot import HostFile
from viacheck.parsers.ip_command import assignments, entries, ip_commands
from viacheck.parsers.shell import ShellError
from viacheck.persistence.manager_config import Reading


def read_script(
    file: HostFile, reading: Reading, phase: Phase, table_number: TableNumberOf, *, sourced: bool = False
) -> None:
    """Add what a script's commands install and take away; one that may not be executed is not run by any manager.

    ``sourced``: another script takes it in, which asks for no such permission.
    """
    if not reading.readable(file) or not (sourced or file.mode & 0o111):
        return
    variables: dict[str, str] = {}
    lines = file.text.split("\n")
    at = 0
    while at < len(lines):
        first, text = at, lines[at]
        while text.endswith("\\") and at + 1 < len(lines):
            at += 1
            text = text[:-1] + lines[at]
        at += 1
        variables |= dict(assignments(text))
        place = Place(file.path, first + 1, " ".join(text.split()))
        try:
            reading.entries += entries(ip_commands(text, variables), place, None, phase, table_number)
        except ShellError as error:
            # Quotes that span lines are common in scripts and no mistake; only what was to change routing matters, and
            # what a distribution's own hooks make of a lease in the main table does not.
            if "ip " in text and not (sourced and not re.search(r"\b(table|rule)\b", text)):
                reading.problems.append(ParseProblem(place.path, place.line, str(error)))
