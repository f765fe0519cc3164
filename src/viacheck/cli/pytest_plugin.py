"""The pytest plugin of the command line, loaded by ``-p`` in the process itself and in pytest-xdist's workers.

It loads viacheck's options before pytest looks for paths among the arguments: a value of an option that pytest does not
know yet, such as a site file, would be taken for a path, and the ``conftest.py`` beside it would be imported. It also
runs the first folder of the command line when the caller names no other path. Only pytest knows which arguments are
paths, so this decides after pytest has parsed them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from viacheck.cli.command import unknown_arguments

pytest.register_assert_rewrite("fixtures.expect")
pytest_plugins = ["fixtures.checks", "fixtures.plugin"]


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> Iterator[None]:
    """Refuse unknown options in one line, after a folder of a person's own checks has added its options."""
    parser.prog = "viacheck"
    yield
    _options, unknown = parser.parse_known_and_unknown_args(args)
    if unknown:
        raise pytest.UsageError(unknown_arguments(unknown, parser.optparser, "viacheck run"))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Drop the folder when the caller names paths."""
    if len(config.args) > 1:
        del config.args[0]
