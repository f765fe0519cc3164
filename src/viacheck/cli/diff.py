"""``./viacheck diff A B``: what changed in verdicts and in the host's state between two runs, in words."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from reports.report_files import ResultUnreadable, read_outcome
from reports.run_diff import differences
from reports.run_diff_page import render
from reports.text import escape_unprintable
from viacheck.atomic_file import write_file
from viacheck.bundle.reader import BundleUnreadable, is_archive, read_bundle
from viacheck.model.result import Outcome

SAME, DIFFERENT, USAGE_ERROR = 0, 1, 4


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"viacheck diff: {escape_unprintable(message)}\n")


def main(argv: list[str]) -> int:
    """Compare two results; returns 0 when they are the same, 1 when they differ, 4 when one cannot be read."""
    parser = _Arguments(prog="./viacheck diff", description="What changed between two runs.")
    parser.add_argument("before", type=Path, help="a result.json, or a bundle")
    parser.add_argument("after", type=Path, help="a later one")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page as well")
    options = parser.parse_args(argv)
    try:
        before, after = _read(options.before), _read(options.after)
    except (ResultUnreadable, BundleUnreadable) as error:
        parser.error(str(error))
    found = differences(before, after)
    for path, outcome in ((options.before, before), (options.after, after)):
        if not outcome.results:
            sys.stdout.write(escape_unprintable(f"{path}: holds no verdicts, so the state alone is compared") + "\n")
    for one in found:
        sys.stdout.write(escape_unprintable(str(one)) + "\n")
    if not found:
        verdicts = "the same verdicts, and " if before.results and after.results else ""
        sys.stdout.write(f"nothing changed: {verdicts}the same state\n")
    if options.html is not None:
        try:
            write_file(options.html, render(before, after, found))
        except OSError as error:
            parser.error(f"{options.html}: cannot be written: {error.strerror}")
    return DIFFERENT if found else SAME


def _read(path: Path) -> Outcome:
    """A saved result, or what a bundle holds of one."""
    return read_bundle(path).outcome() if is_archive(path) else read_outcome(path)
