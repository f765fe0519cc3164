"""What every sub-command shares: its parser, its way to fail, and the target that it opens."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from viacheck.model.exit_status import UsageError

if TYPE_CHECKING:
    from viacheck.targets.base import Target
    from viacheck.targets.specs import TargetSpec


class CommandLineError(UsageError):
    """An option or argument is wrong."""

    def __init__(self, prog: str, message: str) -> None:
        super().__init__(message)
        self.prog = prog


class CommandFailed(Exception):
    """A command with correct input could not do its work; the message is one line."""


class CommandParser(argparse.ArgumentParser):
    """A parser that raises its errors, so that one place prints them, and returns ``prog`` among the options."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.set_defaults(prog=self.prog)

    def error(self, message: str) -> NoReturn:
        """Raise the error instead of printing the usage."""
        raise CommandLineError(self.prog, message)


def print_error(prog: str, *lines: str) -> None:
    """Print an error, each line after the name of the command."""
    from reports.text import escape_unprintable

    sys.stdout.flush()
    sys.stderr.writelines(f"{prog}: {escape_unprintable(line)}\n" for line in lines)


@contextmanager
def lab_failures() -> Iterator[None]:
    """Turn the errors of opening a lab into :class:`CommandFailed`."""
    from viacheck.targets.specs import TargetNotOpened, TargetUnavailable

    try:
        yield
    except (TargetUnavailable, TargetNotOpened) as error:
        raise CommandFailed(str(error)) from error


@contextmanager
def lab_events() -> Iterator[None]:
    """Turn the errors of an event in a lab into :class:`CommandFailed`."""
    from viacheck.disruption.controls import EventFailed

    try:
        yield
    except EventFailed as error:
        raise CommandFailed(str(error)) from error


@contextmanager
def opened(spec: TargetSpec) -> Iterator[Target]:
    """Open a target for the time of a block.

    Raises:
        CommandFailed: when a lab cannot be opened.
    """
    with lab_failures():
        target = spec.open()
    try:
        yield target
    finally:
        target.close()
