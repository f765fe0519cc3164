"""The files of a run, each written atomically, and the link to the latest run."""

from __future__ import annotations

import os
from pathlib import Path

from reports.junit import junit
from viacheck.atomic_file import write_file
from viacheck.model.exit_status import UsageError
from viacheck.model.result import RunResult
from viacheck.model.result_json import result_json
from viacheck.model.saved_result import ResultRefused, read_result
from viacheck.private_folder import make_private_folder
from viacheck.user_file import read_file

RESULT, REPORT, JUNIT, LATEST = "result.json", "report.html", "junit.xml", "latest"
CAPTURES, BUNDLE = "captures", "bundle.tar.gz"


class ResultUnreadable(UsageError):
    """A saved result cannot be used; the message says in one line which file and why."""


def write_outcome(outcome: RunResult, directory: Path, page: str | None = None, saved: bytes | None = None) -> Path:
    """Write result.json, junit.xml and report.html into a report directory, and create it if it is missing.

    The directory must be this user's own and no link; the files are closed to other users.

    Args:
        outcome: the run's result.
        directory: the report directory.
        page: the page of the outcome; None: it is rendered here.
        saved: the octets of result.json; None: they are made here.

    Returns:
        The path of report.html.

    Raises:
        OSError: when the directory cannot be written to.
    """
    write_result(outcome, directory, saved)
    write_file(directory / JUNIT, junit(outcome), private=True)
    report = directory / REPORT
    if page is None:
        # Imported here because it takes 70 ms, which a worker that writes captures alone need not spend.
        from reports.report_page import render

        page = render(outcome)
    write_file(report, page, private=True)
    return report


def write_result(outcome: RunResult, directory: Path, saved: bytes | None = None) -> Path:
    """Write result.json alone, as :func:`write_outcome` does, and return its path."""
    make_private_folder(directory)
    result = directory / RESULT
    write_file(result, saved if saved is not None else result_json(outcome), private=True)
    return result


def link_latest(directory: Path) -> Path | None:
    """Point ``latest``, beside a report directory, to it, and return the link.

    A file or folder of that name is not touched. Then, and where links are not supported, return None: the report is
    complete without the link.
    """
    link = directory.with_name(LATEST)
    if link == directory or (link.exists() and not link.is_symlink()):
        return None
    temporary = link.with_name(f".{LATEST}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(directory.name)
        temporary.replace(link)
    except OSError:
        temporary.unlink(missing_ok=True)
        return None
    return link


def read_outcome(path: Path) -> RunResult:
    """Load a saved result.json.

    Raises:
        ResultUnreadable: when it is missing, is not JSON, or does not follow viacheck.result/1.
    """
    try:
        return read_result(read_file(path))
    except OSError as error:
        raise ResultUnreadable(f"{path}: cannot be read: {error.strerror}") from None
    except ResultRefused as error:
        raise ResultUnreadable(f"{path}: not a result of viacheck.result/1: {error}") from None
