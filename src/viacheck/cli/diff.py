"""``viacheck diff``: prints what changed in verdicts and in the host's state between two runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reports.report_files import read_outcome
from reports.run_diff import differences
from reports.text import escape_unprintable
from viacheck.atomic_file import write_file
from viacheck.bundle.reader import bundle_outcome, is_archive, read_bundles
from viacheck.model.exit_status import ExitStatus, UsageError
from viacheck.model.result import RunResult
from viacheck.private_folder import FILE_MODE


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("before", type=Path, metavar="BEFORE", help="a result.json or a bundle")
    parser.add_argument("after", type=Path, metavar="AFTER", help="a later result.json or bundle")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page as well")


def run(options: argparse.Namespace) -> ExitStatus:
    """Compare two results; return OK when they are the same, FAILED when they differ.

    Raises:
        UsageError: when a result cannot be read or the page cannot be written.
    """
    before, after = _read(options.before), _read(options.after)
    changed = differences(before, after)
    for path, outcome in ((options.before, before), (options.after, after)):
        if not outcome.results:
            _print(f"{path}: holds no verdicts, so only the state is compared")
    for difference in changed:
        _print(str(difference))
    if not changed:
        verdicts = "the same verdicts, and " if before.results and after.results else ""
        _print(f"no change: {verdicts}the same state")
    if options.html is not None:
        from reports.run_diff_page import render

        try:
            write_file(options.html, render(before, after, changed), mode=FILE_MODE)
        except OSError as error:
            raise UsageError(f"{options.html}: cannot be written: {error.strerror}") from None
    return ExitStatus.FAILED if changed else ExitStatus.OK


def _read(path: Path) -> RunResult:
    """Return the outcome in a result.json or in a bundle."""
    return bundle_outcome(read_bundles(path)) if is_archive(path) else read_outcome(path)


def _print(line: str) -> None:
    sys.stdout.write(escape_unprintable(line) + "\n")
