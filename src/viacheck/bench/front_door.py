"""Whole runs through the command line, as a person at a terminal starts them: each figure includes Python's start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from viacheck.bench.figures import BenchFailed
from viacheck.host.namespace import Namespace
from viacheck.installation import IS_CHECKOUT, ROOT

TIMEOUT = 300.0
VIACHECK = (str(ROOT / "viacheck"),) if IS_CHECKOUT else (sys.executable, "-I", "-m", "viacheck.cli.main")
"""The command that a person types: the launcher of a checkout, or the installed command."""


@contextmanager
def report_folder() -> Iterator[Path]:
    """Make a folder for a run's report, and remove it at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="viacheck-bench-") as folder:
        yield Path(folder)


def run(*arguments: str, namespace: Namespace | None = None) -> float:
    """Return the seconds that viacheck takes with these arguments, here or inside a namespace.

    Raises:
        BenchFailed: when the exit status is not 0.
    """
    return seconds([*VIACHECK, *arguments], namespace)


def seconds(argv: Sequence[str], namespace: Namespace | None = None) -> float:
    """Return the seconds that a command takes.

    Raises:
        BenchFailed: when the exit status is not 0, with the last line of the output.
    """

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            argv, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    begin = time.perf_counter()
    process = namespace.call(start) if namespace is not None else start()
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except BaseException:
        process.kill()
        process.wait()
        raise
    duration = time.perf_counter() - begin
    if process.returncode != 0:
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
        raise BenchFailed(f"{' '.join(argv[:3])}: exit {process.returncode}: {last.strip('= ')}")
    return duration
