"""Workers of pytest-xdist that share the test modules: they are imported once, before the workers are forked.

Each worker collects all tests. In a Python of its own it would import them, and rewrite their assertions where no
cache holds them yet, as on a fresh checkout: that takes more CPU time than most test files.
"""

from __future__ import annotations

import contextlib
from importlib import import_module
from pathlib import Path

import pytest

from fixtures.forked_workers import fork_workers
from tests.helpers.paths import ROOT


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
