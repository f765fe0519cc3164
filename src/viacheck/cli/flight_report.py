"""The report of a flight record, written when the watch has ended.

This module is loaded before the watch begins: it runs for days, and an upgrade may replace the program's files
meanwhile.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from reports.console import colour_wanted, summary
from reports.report_files import BUNDLE, write_outcome
from reports.report_page import render
from reports.text import columns_of
from viacheck.bundle.manifest import Redaction
from viacheck.bundle.writer import Case, write_bundle
from viacheck.flight_recorder.flight_result import flight_result
from viacheck.flight_recorder.flight_start import FlightStart
from viacheck.flight_recorder.flight_summary import summarize
from viacheck.flight_recorder.record_file import read_lines
from viacheck.model.exit_status import ExitStatus, UsageError
from viacheck.model.result import exit_status


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Make an error of a record that cannot be read a usage error."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None


def write_flight_report(folder: Path, start: FlightStart, directory: Path, redact: Redaction) -> ExitStatus:
    """Write report and bundle of a record, and print the summary.

    Args:
        folder: the record's.
        start: how the watch began.
        directory: where the report goes.
        redact: the redaction of the bundle.

    Raises:
        UsageError: the record cannot be read, or the report cannot be written.
    """
    with readable(folder):
        outcome = flight_result(start, summarize(read_lines(folder), start.uplink))
    assert start.target.snapshot is not None, "a host that is watched has a snapshot"
    case = Case(
        version=start.version, intents={start.agent: start.target.intent},
        snapshots={start.agent: start.target.snapshot}, commands=start.commands,
        outcome=outcome, render=render,
    )  # fmt: skip
    try:
        report = write_outcome(outcome, directory)
        write_bundle(directory / BUNDLE, case, redact, private=True)
    except OSError as error:
        raise UsageError(f"{error.filename or directory}: cannot be written: {error.strerror}") from None
    sys.stdout.write(summary(outcome, report, colour=colour_wanted(sys.stdout), width=columns_of(sys.stdout)))
    return exit_status(outcome)
