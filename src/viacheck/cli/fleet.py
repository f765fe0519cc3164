"""``viacheck fleet``: one report of many hosts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from reports.fleet_page import render_fleet
from reports.fleet_report import INDEX, HostSummary, cause_groups, summarise
from reports.text import clip, counted, escape_unprintable, one_line
from viacheck.atomic_file import write_file
from viacheck.model.exit_status import ExitStatus, UsageError
from viacheck.private_folder import FILE_MODE

SENTENCE_SHOWN = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the sub-commands and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    report = actions.add_parser("report", help="make one report of results that are there")
    report.add_argument("folder", type=Path, metavar="DIR", help="the folder of the results: */result.json, NAME.json")


def run(options: argparse.Namespace) -> ExitStatus:
    """Make the report; return FAILED when a host is not good.

    Raises:
        UsageError: when there is no result, or the report cannot be written.
    """
    return report_of(options.folder)


def report_of(folder: Path, notes: Sequence[str] = ()) -> ExitStatus:
    """Write the report of all results below a folder, and print a line for each host that is not good.

    Raises:
        UsageError: when there is no result, or the report cannot be written.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: is not a directory")
    hosts = summarise(folder)
    if not hosts:
        raise UsageError(f"{folder}: holds no result (*/result.json, or NAME.json)")
    index = folder / INDEX
    try:
        write_file(index, render_fleet(hosts, datetime.now().astimezone(), notes), mode=FILE_MODE)
    except OSError as error:
        raise UsageError(f"{index}: cannot be written: {error.strerror}") from None
    sys.stdout.writelines(f"{escape_unprintable(line)}\n" for line in fleet_summary(hosts, notes))
    sys.stdout.write(f"report: {escape_unprintable(str(index))}\n")
    return ExitStatus.OK if all(host.verdict == "pass" for host in hosts) else ExitStatus.FAILED


def fleet_summary(hosts: Sequence[HostSummary], notes: Sequence[str] = ()) -> list[str]:
    """Return the lines of the console: hosts that are not good, then the diagnoses."""
    good = sum(host.verdict == "pass" for host in hosts)
    lines = [
        f"{host.verdict:<13} {host.name}: {clip(one_line(host.sentence), SENTENCE_SHOWN)}"
        for host in hosts
        if host.verdict != "pass"
    ]
    lines += [f"{group.code} on {counted(len(group.hosts), 'host')} ({group.verdict})" for group in cause_groups(hosts)]
    return [*lines, *notes, f"{good} of {counted(len(hosts), 'host')} pass"]
