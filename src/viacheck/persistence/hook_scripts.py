"""Reads scripts that managers run when an interface comes up or goes down: if-*.d of ifupdown, the dispatcher's.

Conditions are not evaluated. Variables are expanded where the script itself gives them a plain value.
"""

from __future__ import annotations

import re

from viacheck.model.config_entry import ParseProblem, Phase, Place, TableNumberOf
from viacheck.model.snapshot import HostFile
from viacheck.parsers.ip_command import assignments, entries, ip_commands
from viacheck.parsers.shell import ShellError
from viacheck.persistence.manager_config import ConfigCollector


def read_script(
    file: HostFile, collector: ConfigCollector, phase: Phase, table_number: TableNumberOf, *, sourced: bool = False
) -> None:
    """Add the rules and routes that a script's commands install and remove.

    Args:
        file: the script; no manager runs one that is not executable.
        collector: where the entries and problems are added.
        phase: when the manager runs the script.
        table_number: the number of a table's name, as iproute2 knows it.
        sourced: another script sources it, which needs no execute permission.
    """
    if not collector.readable(file) or not (sourced or file.mode & 0o111):
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
            collector.entries += entries(ip_commands(text, variables), place, None, phase, table_number)
        except ShellError as error:
            # Quotes that span lines are common in scripts and are not a mistake. Only a command that changes routing
            # matters, and a distribution's own lease hooks change the main table only.
            if "ip " in text and not (sourced and not re.search(r"\b(table|rule)\b", text)):
                collector.problems.append(ParseProblem(place.path, place.line, str(error)))
