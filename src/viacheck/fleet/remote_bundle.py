"""Brings a bundle from a host on which only the collect script may run, and judges it on this machine.

Each bundle is judged by a process of its own: a bundle is data from outside, and one that takes too long is ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reports.report_files import BUNDLE, RESULT
from viacheck.atomic_file import write_file
from viacheck.fleet.inventory import FleetHost
from viacheck.fleet.remote_host import (
    INTERRUPTED,
    HostNotJudged,
    RemoteCollection,
    SSHConnections,
    answer_of,
    result_of,
)
from viacheck.model.result import RunResult
from viacheck.private_folder import make_private_folder
from viacheck.user_file import read_file


def _one_for_each_core() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True)
class BundleJudge:
    """Judges hosts by their bundles."""

    collection: RemoteCollection
    connections: SSHConnections
    options: Sequence[str] = ()
    """Options of the run."""
    _free_core: threading.BoundedSemaphore = field(default_factory=_one_for_each_core)

    def __call__(self, host: FleetHost, site: str, folder: Path) -> RunResult:
        """Bring the bundle of a host to its folder, and return the result.

        Raises:
            HostNotJudged: the host sent none, or one that cannot be judged.
        """
        bundle = folder / BUNDLE
        sent = answer_of(host, site, self.collection, self.connections)
        try:
            make_private_folder(folder.parent)
            make_private_folder(folder)
            write_file(bundle, sent, private=True)
        except OSError as error:
            raise HostNotJudged(f"{error.filename or bundle}: cannot be written: {error.strerror}") from None
        with self._free_core, tempfile.TemporaryDirectory(prefix="viacheck-fleet-") as report:
            return self._judged(bundle, Path(report))

    def _judged(self, bundle: Path, report: Path) -> RunResult:
        argv = [sys.executable, "-I", "-m", "viacheck.cli.main", "--bundle", str(bundle.absolute()), "-q",
                *self.options, "--result-only", "--report-dir", str(report)]  # fmt: skip
        if self.connections.stopped.is_set():
            raise HostNotJudged(INTERRUPTED)
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        with self.connections.opened(process):
            try:
                _, errors = process.communicate(timeout=self.collection.seconds)
            except subprocess.TimeoutExpired:
                raise HostNotJudged(f"its bundle was not judged within {self.collection.seconds:g} s") from None
        if self.connections.stopped.is_set():
            raise HostNotJudged(INTERRUPTED)
        try:
            return result_of(read_file(report / RESULT))
        except OSError:
            lines = [line for line in map(str.strip, errors.decode(errors="replace").splitlines()) if line]
            raise HostNotJudged(
                *(lines[:1] or [f"judging its bundle ended with status {process.returncode}"])
            ) from None
