"""Render a saved run again: ``python -m reports result.json [-o report.html]``.

The page needs nothing but the saved result, so a report can be made anew on another machine or by a later version.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from reports.console import colour_wanted, summary
from reports.report_files import REPORT, ResultUnreadable, read_outcome
from reports.report_page import render
from reports.text import escape_unprintable
from viacheck.atomic_file import write_file

USAGE_ERROR = 4


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {escape_unprintable(message)}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Render one result and print its summary; returns the exit status (0, or 4 for a file that cannot be used)."""
    parser = _Parser(prog="python -m reports", description="Render a saved result.json as a page, once more.")
    parser.add_argument("result", type=Path, help="a result.json of an earlier run")
    parser.add_argument("-o", "--output", type=Path, help=f"the page (default: {REPORT} beside the result)")
    parser.add_argument("-q", "--quiet", action="store_true", help="write the page and print nothing")
    options = parser.parse_args(arguments)
    output: Path = options.output or options.result.with_name(REPORT)
    try:
        outcome = read_outcome(options.result)
        write_file(output, render(outcome))
    except ResultUnreadable as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{output}: cannot be written: {error.strerror}")
    if not options.quiet:
        sys.stdout.write(summary(outcome, output, colour=colour_wanted(sys.stdout)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
