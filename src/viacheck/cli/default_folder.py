"""A pytest plugin: runs the first folder of the command line when the caller names no other path.

Only pytest knows which arguments are paths and which are values of options, so this decides after it has parsed them.
The folder is always named, or pytest would import a ``conftest.py`` of the caller's directory. The plugin is loaded by
``-p``, so that pytest-xdist's workers, which parse the same command line, decide the same.
"""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Drop the folder when the caller names paths."""
    if len(config.args) > 1:
        del config.args[0]
