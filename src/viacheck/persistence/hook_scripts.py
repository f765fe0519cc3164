"""Reads scripts that managers run when an interface comes up or goes down: if-*.d of ifupdown, the dispatcher's.

Conditions are not evaluated. Variables are expanded where the script itself gives them a plain value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from viacheck.model.config_entry import ParseProblem, Phase, Place, TableNumberOf
from viacheck.model.snapshot import HostFile
from viacheck.parsers.ip_command import assignments, entries, ip_commands
from viacheck.parsers.shell import ShellError, first_command
from viacheck.persistence.manager_config import ConfigCollector

CALLED_FROM = ("/usr/local/", "/opt/", "/etc/")
"""Where scripts lie that an operator wrote."""
_BEFORE_SCRIPT = frozenset(
    {"sh", "bash", "/bin/sh", "/bin/bash", "exec", ".", "if", "then", "else", "elif", "do", "!", "{"}
)
"""What may stand before the script that a command runs: a shell, or a keyword of sh(1)."""
_CALLED = re.compile(r"/[\w./+-]+")


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
        while words and words[0] in _BEFORE_SCRIPT:
            words = words[1:]
        if words and _CALLED.fullmatch(words[0]) and words[0].startswith(CALLED_FROM):
            yield words[0]


def read_scripts(
    scripts: Iterable[HostFile], files: Sequence[HostFile], collector: ConfigCollector, phase: Phase,
    table_number: TableNumberOf,
) -> None:  # fmt: skip
    """Read scripts that a manager runs, each with the scripts that it runs itself; the arguments of read_script()."""
    by_path = {file.path: file for file in files if file.exists}
    for script in scripts:
        read_script(script, collector, phase, table_number)
        if not collector.readable(script) or not script.mode & 0o111:
            continue
        for called in dict.fromkeys(path for line in script.text.split("\n") for path in called_scripts(line)):
            if called in by_path:
                read_script(by_path[called], collector, phase, table_number)


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
