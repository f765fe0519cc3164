"""The one file as ``viacheck pack`` writes it, made once for all tests that start it."""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.front_door import VIACHECK

HERE = f"3.{sys.version_info.minor}-{platform.machine()}"
"""The Python and the processor of the tests, as ``--only`` names them."""
OTHER = "aarch64" if platform.machine() == "x86_64" else "x86_64"
"""The other processor."""
PACKED = sorted({HERE, f"3.11-{platform.machine()}", f"3.14-{platform.machine()}", f"3.14-{OTHER}"})
"""What the tests' file is for: this Python, bookworm's and forky's, and the other processor. pip takes 3 s of CPU time
for each of them."""


def packed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file, for the platforms of :data:`PACKED`; the workers of pytest-xdist share it."""
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    path = session / "viacheck.pyz"
    with open(session / "viacheck.pyz.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            # A minute and more on a busy machine: the package index is asked for each Python and processor.
            done = subprocess.run(
                [*VIACHECK, "pack", "--only", ",".join(PACKED), "-o", path], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
    return path
