"""The pytest plugin of the command line, loaded by ``-p``.

It loads viacheck's options before pytest looks for paths among the arguments: a value of an option that pytest does not
know yet, such as a site file, would be taken for a path, and the ``conftest.py`` beside it would be imported. It also
runs the first folder of the command line when the caller names no other path. Only pytest knows which arguments are
paths, so this decides after pytest has parsed them.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from _pytest.mark.expression import Expression

from viacheck.cli.command import unknown_arguments

pytest.register_assert_rewrite("fixtures.expect")
pytest_plugins = ["fixtures.checks", "fixtures.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say in one line what is wrong with an option's value: pytest adds its usage and its files."""
    parser.optparser.error = _refuse_option  # type: ignore[method-assign]


def _refuse_option(message: str) -> NoReturn:
    text = re.sub(r"invalid \w+ value", "invalid value", message.removeprefix("argument "))
    raise pytest.UsageError(f"{text} ('viacheck run --help' shows what is allowed)")


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
    """Drop the folder when the caller names paths, and refuse here what pytest refuses below its header."""
    if len(config.args) > 1:
        del config.args[0]
    for path in config.args if not config.option.pyargs else ():
        if not Path(config.invocation_params.dir, path.partition("::")[0]).exists():
            raise pytest.UsageError(f"file or directory not found: {path}")
    for option, expression in (("-k", config.option.keyword), ("-m", config.option.markexpr)):
        try:
            Expression.compile(expression or "a")
        except SyntaxError as error:
            raise pytest.UsageError(f"{option} {expression!r}: {error.msg} (at column {error.offset})") from None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop() -> Iterator[None]:
    """Search for cyclic garbage from now on, but not among what was imported and collected (see pytest_run)."""
    gc.freeze()
    gc.enable()
    return (yield)
