"""``viacheck export``: prints a saved result in the format of another tool."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reports.baseline import compare_with_baseline, worse_text
from reports.export.formats import FORMATS, export
from reports.export.nagios import ServiceState, service_state, unknown
from reports.report_files import read_outcome
from reports.text import escape_unprintable
from viacheck.atomic_file import DEFAULT_MODE, write_file
from viacheck.model.exit_status import ExitStatus, UsageError
from viacheck.private_folder import FILE_MODE


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("result", type=Path, metavar="RESULT.json", help="the result.json of a run")
    parser.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        help="; ".join(f"{name}: {f.summary}" for name, f in FORMATS.items()),
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the file (default: standard output)")
    parser.add_argument(
        "--baseline", type=Path, metavar="RESULT.json",
        help="an accepted result: say what got worse or better since, and exit 1 if something got worse",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Write the result in the format; return the plugin's state for Nagios, else FAILED if something got worse.

    Raises:
        UsageError: when a result cannot be read or the file cannot be written.
    """
    try:
        outcome = read_outcome(options.result)
    except UsageError as error:
        if options.format != "nagios":
            raise
        # A monitoring system shows standard output, and knows no exit status beyond 3.
        sys.stdout.write(unknown(str(error)))
        return ServiceState.UNKNOWN
    accepted = read_outcome(options.baseline) if options.baseline is not None else None
    text = export(outcome, options.format)
    if options.output is None:
        sys.stdout.write(text)
    else:
        try:
            write_file(options.output, text, mode=DEFAULT_MODE if FORMATS[options.format].public else FILE_MODE)
        except OSError as error:
            raise UsageError(f"{options.output}: cannot be written: {error.strerror}") from None
    if options.format == "nagios":
        return service_state(outcome)
    if accepted is None:
        return ExitStatus.OK
    shifts = compare_with_baseline(accepted, outcome)
    sys.stderr.writelines(f"{escape_unprintable(line)}\n" for line in worse_text(shifts))
    return ExitStatus.FAILED if any(shift.is_worse for shift in shifts) else ExitStatus.OK
