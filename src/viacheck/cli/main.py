"""The ``viacheck`` command: the checks when no sub-command is named, or one of the sub-commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from viacheck.installation import CHECKS, IS_CHECKOUT, ROOT, add_to_import_path

COMMANDS = {
    "site": "write a draft site.toml, or print its JSON Schema",
    "shell": "open a root shell on a lab's host",
    "explain": "show where a packet goes, and why",
    "diff": "show what changed between two runs",
    "collect": "write a bundle of this host: its state, for someone without access to it",
    "collect-script": "print a shell script that collects the same without viacheck",
    "restore": "restore this host's network after an interrupted run",
    "docs": "write the tables of docs/ from the code",
    "bench": "measure the parts of a run",
}
_DECIDED_ELSEWHERE = ("PYTHONPATH", "PYTEST_ADDOPTS", "PYTEST_PLUGINS", "LD_PRELOAD")
"""Variables of the caller that would change which code runs; viacheck runs as root."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks or one sub-command; return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name in _DECIDED_ELSEWHERE:
        os.environ.pop(name, None)
    add_to_import_path()
    if arguments and arguments[0] in COMMANDS:
        run: Callable[[list[str]], int] = import_module(f"viacheck.cli.{arguments[0].replace('-', '_')}").main
        return run(arguments[1:])
    if arguments and arguments[0] == "tests" and IS_CHECKOUT:
        return _run_pytest(ROOT / "tests", arguments[1:])
    return _run_pytest(CHECKS, arguments)


def _run_pytest(folder: os.PathLike[str], arguments: list[str]) -> int:
    """Run pytest with this checkout's configuration, on a folder unless the arguments name tests of their own."""
    import pytest

    own = any(_is_test_path(argument.partition("::")[0]) for argument in arguments)
    cache = [] if os.access(ROOT, os.W_OK) else ["-p", "no:cacheprovider"]
    paths = [] if own else [str(folder)]
    return int(pytest.main(["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), *cache, *paths, *arguments]))


def _is_test_path(argument: str) -> bool:
    """Whether an argument names a test file, or a folder by its path: a bare word may be an option's value."""
    return os.path.isfile(argument) if argument.endswith(".py") else "/" in argument and os.path.isdir(argument)


if __name__ == "__main__":
    sys.exit(main())
