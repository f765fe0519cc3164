"""Starts pytest on the checks, on the harness's own tests, or on a person's own checks."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from viacheck.cli.streams import discard
from viacheck.installation import CHECKS, IS_CHECKOUT, ROOT
from viacheck.model.exit_status import ExitStatus

TEST_PLUGINS = ("-p", "no:hypothesispytest", "-p", "no:unraisableexception", "-p", "no:xdist")
"""Plugins that only the harness's own tests use, beside which a run of checks would take longer.

A run of checks is shared among processes by the harness itself (fixtures.shared_run).

pytest's own plugin for errors in destructors collects garbage five times at the end of each process, which took 7 % of
the default run's CPU time. Without it, Python prints such an error at once.
"""


def run_pytest(folder: Path, arguments: list[str]) -> int:
    """Run pytest with viacheck's own configuration; return the exit status."""
    # What is imported and collected stays to the end: to search it for cyclic garbage takes 5 % of a start's CPU time.
    # The plugin enables the search again.
    gc.disable()
    configuration = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    if folder == CHECKS:
        # First of all: which plugins there are decides which options there are.
        configuration += TEST_PLUGINS
    configuration += ["-p", "viacheck.cli.pytest_plugin"]
    if not (IS_CHECKOUT and os.access(ROOT, os.W_OK)):
        configuration += ["-p", "no:cacheprovider"]
    interrupts = _Interrupts()
    try:
        status = pytest.main([*configuration, str(folder), *arguments], plugins=[interrupts])
    except OSError as error:
        if not isinstance(error.__context__, pytest.UsageError):
            raise
        # What is wrong cannot be said, but the exit status says it too.
        discard(sys.stderr)
        return ExitStatus.USAGE
    finally:
        gc.enable()
    if status == pytest.ExitCode.INTERRUPTED and interrupts.arrived:
        # Before the session began: nothing has said it yet.
        raise KeyboardInterrupt
    return int(status)


class _Interrupts:
    """Notes an interrupt: pytest's status for it is also that of a run that a plugin stops. pytest calls its hook."""

    arrived = False

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Note it; a person may also refuse to begin, and pytest stops by an interrupt where a file has an error."""
        stopped = isinstance(excinfo.value, pytest.Session.Interrupted)
        self.arrived = isinstance(excinfo.value, KeyboardInterrupt) and not stopped
