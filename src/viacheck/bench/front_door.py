"""Whole runs through the front door, as somebody at a terminal has them: the start of Python is in every figure.

Python keeps compiled modules between starts unless it is told not to; here they are kept in a folder of the benchmark's
own, which a run that does not count fills.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from viacheck.bench.figures import BenchFailed
from viacheck.host.namespace import Namespace
from viacheck.installation import ROOT

TIMEOUT = 300.0


@cache
def _compiled() -> tempfile.TemporaryDirectory[str]:
    """Where compiled modules are kept until this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="viacheck-bench-")
    with report_folder() as report:
        argv = [str(ROOT / "viacheck"), "--lab", "nat", "--report-dir", str(report)]
        environment = _own() | {"PYTHONPYCACHEPREFIX": folder.name}
        subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, check=False, timeout=TIMEOUT)
    return folder


def _own() -> dict[str, str]:
    """The environment without what changes how Python starts."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _environment() -> dict[str, str]:
    return _own() | {"PYTHONPYCACHEPREFIX": _compiled().name}


@contextmanager
def report_folder() -> Iterator[Path]:
    """A folder for a run's report, which goes with the block."""
    with tempfile.TemporaryDirectory(prefix="viacheck-bench-") as folder:
        yield Path(folder)


def run(*arguments: str, namespace: Namespace | None = None) -> float:
    """Seconds that ``./viacheck`` takes with these arguments, here or inside a namespace.

    Raises:
        BenchFailed: when it does not exit 0, with the last line that it said.
    """
    environment = _environment()
    argv = [str(ROOT / "viacheck"), *arguments]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            argv, text=True, env=environment, cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    begin = time.perf_counter()
    process = namespace.call(start) if namespace is not None else start()
    try:
        said, _ = process.communicate(timeout=TIMEOUT)
    except BaseException:
        process.kill()
        process.wait()
        raise
    took = time.perf_counter() - begin
    if process.returncode != 0:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "nothing said")
        raise BenchFailed(f"./viacheck {' '.join(arguments[:2])}: exit {process.returncode}: {last.strip('= ')}")
    return took
