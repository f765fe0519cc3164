"""Workers of pytest-xdist that are forked from this process: each shares what it has imported, test modules included.

Each worker collects all tests. In a Python of its own it would import them, and rewrite their assertions where no
cache holds them yet, as on a fresh checkout: that takes more CPU time than most test files. The workers are forked
before pytest is configured: there is no thread yet, no report folder and no handler of a signal.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import pytest
from execnet import gateway_base, gateway_io

from fixtures.shared_run import load_all
from tests.helpers.paths import ROOT

EXECUTION_MODEL = "main_thread_only"
"""xdist's choice for its workers: tests run in the main thread."""


def fork_test_workers(count: int, folder: Path) -> None:
    """Import the test modules below a folder of this checkout, and fork the workers that execnet will start.

    A module that cannot be imported is left to the workers, whose collection reports it.
    """
    for path in sorted(folder.rglob("test_*.py")):
        # The name that pytest gives a module by --import-mode=importlib.
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        with contextlib.suppress(Exception, pytest.skip.Exception):
            import_module(name)
    fork_workers(count)


@dataclass(frozen=True)
class _Worker:
    """A forked process that waits for execnet at its standard input."""

    process: int
    stdin: int
    stdout: int


def fork_workers(count: int) -> None:
    """Fork workers for the next ``count`` that execnet starts; where a thread exists, leave them to execnet."""
    load_all()
    if threading.active_count() > 1:
        return
    # A worker's garbage collector need not look at what was imported, and so copies none of its pages.
    gc.freeze()
    sys.stdout.flush()
    sys.stderr.flush()
    waiting: list[_Worker] = []
    for number in range(count):
        (read_stdin, stdin), (stdout, write_stdout) = os.pipe(), os.pipe()
        process = os.fork()
        if process == 0:
            # An end that stays open in another worker would hide this process' end from the others.
            for descriptor in (stdin, stdout, *(end for other in waiting for end in (other.stdin, other.stdout))):
                os.close(descriptor)
            _serve(number, read_stdin, write_stdout)
        os.close(read_stdin)
        os.close(write_stdout)
        waiting.append(_Worker(process, stdin, stdout))
    gc.unfreeze()
    gateway_io.Popen2IOMaster = _class_of(waiting)  # type: ignore[misc]


def _class_of(waiting: list[_Worker]) -> type[gateway_io.Popen2IOMaster]:
    class ForkedWorker(gateway_io.Popen2IOMaster):
        """Takes the place of the class by which execnet starts a Python; see there."""

        def __init__(self, args: list[str], execmodel: Any) -> None:
            self._forked = waiting.pop(0) if waiting else None
            if self._forked is None:
                super().__init__(args, execmodel)
                return
            stdin, stdout = os.fdopen(self._forked.stdin, "wb"), os.fdopen(self._forked.stdout, "rb")
            gateway_base.Popen2IO.__init__(self, stdin, stdout, execmodel=execmodel)

        def wait(self) -> int | None:
            if self._forked is None:
                return super().wait()
            try:
                return os.waitstatus_to_exitcode(os.waitpid(self._forked.process, 0)[1])
            except OSError:
                return None

        def kill(self) -> None:
            if self._forked is None:
                super().kill()
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._forked.process, signal.SIGKILL)

    return ForkedWorker


def _serve(number: int, stdin: int, stdout: int) -> NoReturn:
    """Do as the program that execnet sends to a new Python (gateway_bootstrap.bootstrap_import), and end."""
    status = 1
    try:
        for descriptor, standard in ((stdin, 0), (stdout, 1)):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        sys.argv = ["-c"]
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        program = BytesIO()
        while (octet := os.read(0, 1)) not in (b"\n", b""):
            program.write(octet)
        if program.getvalue():
            os.write(1, b"1")
            model = gateway_base.get_execmodel(EXECUTION_MODEL)
            # The protocol IO has two methods of the end that starts the process, which this end has not.
            gateway_base.serve(gateway_base.init_popen_io(model), id=f"gw{number}-worker")  # type: ignore[arg-type]
        status = 0
    finally:
        # The frames of pytest's own run, in which this process was forked, are never left.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
