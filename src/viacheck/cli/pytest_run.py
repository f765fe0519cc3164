"""Starts pytest on the checks, on the harness's own tests, or on a person's own checks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from viacheck.installation import IS_CHECKOUT, ROOT


class DefaultFolder:
    """Runs the first folder of the command line when pytest finds no other path there.

    Only pytest knows which arguments are paths and which are values of options, so this decides after it has parsed
    them. The folder is always named, or pytest would import a ``conftest.py`` of the caller's directory.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> None:
        """Drop the folder when the caller names paths."""
        if len(config.args) > 1:
            del config.args[0]


def run_pytest(folder: Path, arguments: list[str]) -> int:
    """Run pytest with viacheck's own configuration; return the exit status."""
    configuration = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    if not (IS_CHECKOUT and os.access(ROOT, os.W_OK)):
        configuration += ["-p", "no:cacheprovider"]
    return int(pytest.main([*configuration, str(folder), *arguments], plugins=[DefaultFolder()]))
