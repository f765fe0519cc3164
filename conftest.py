"""Makes viacheck's options and fixtures known to pytest, for the checks as for the harness's own tests."""

from __future__ import annotations

from functools import partial
from typing import NoReturn

import pytest

from viacheck.cli.command import unknown_arguments

pytest.register_assert_rewrite("fixtures.expect")
pytest_plugins = ["fixtures.checks", "fixtures.plugin"]
_UNKNOWN = "unrecognized arguments: "


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say in one line what is wrong with the command line where pytest was started without the ``viacheck`` command."""
    if parser.prog != "viacheck":
        parser.optparser.error = partial(_refuse, parser)  # type: ignore[method-assign]


def _refuse(parser: pytest.Parser, message: str) -> NoReturn:
    if message.startswith(_UNKNOWN):
        message = unknown_arguments(message.removeprefix(_UNKNOWN).split(), parser.optparser, "pytest")
    raise pytest.UsageError(message)
