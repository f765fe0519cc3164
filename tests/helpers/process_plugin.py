"""A plugin of a run of checks: writes down which process runs each test, and kills one where that is asked for."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

PLUGIN = ("-p", __name__)
WRITTEN_TO, KILLED_AT = "VIACHECK_TEST_PROCESSES", "VIACHECK_TEST_KILLED_AT"
"""Variables of the environment: the file, and a part of the id of the test that kills its process."""


def pytest_runtest_call(item: pytest.Item) -> None:
    with open(os.environ[WRITTEN_TO], "a") as file:
        file.write(f"{os.getpid()} {item.nodeid}\n")
    killed_at = os.environ.get(KILLED_AT)
    if killed_at is not None and killed_at in item.nodeid:
        os.kill(os.getpid(), signal.SIGKILL)


def ran_by_process(file: Path) -> dict[int, list[str]]:
    """Return the ids of the tests that each process ran, in their order."""
    found: dict[int, list[str]] = {}
    for line in file.read_text().splitlines():
        process, _, test = line.partition(" ")
        found.setdefault(int(process), []).append(test)
    return found
