"""``viacheck report``: renders a saved result again, on any machine and with any later version."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reports.console import colour_wanted, summary
from reports.report_files import REPORT, read_outcome
from reports.report_page import render
from reports.text import columns_of
from viacheck.atomic_file import write_file
from viacheck.model.exit_status import ExitStatus, UsageError
from viacheck.private_folder import FILE_MODE


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("result", type=Path, metavar="RESULT.json", help="the result.json of an earlier run")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=f"the page (default: {REPORT} beside the result)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="write the page and print nothing")


def run(options: argparse.Namespace) -> ExitStatus:
    """Write the page and print the summary.

    Raises:
        UsageError: when the result cannot be read or the page cannot be written.
    """
    output: Path = options.output or options.result.with_name(REPORT)
    outcome = read_outcome(options.result)
    try:
        write_file(output, render(outcome), mode=FILE_MODE)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror}") from None
    if not options.quiet:
        sys.stdout.write(summary(outcome, output, colour=colour_wanted(sys.stdout), width=columns_of(sys.stdout)))
    return ExitStatus.OK
