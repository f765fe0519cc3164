"""What every sub-command shares: its parser, its way to fail, and the target that it opens."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from viacheck.cli.streams import discard
from viacheck.model.exit_status import UsageError

if TYPE_CHECKING:
    from viacheck.targets.base import Target
    from viacheck.targets.specs import TargetSpec


_REQUIRED = re.compile(r"^the following arguments are required: | is required$")
"""What argparse says of arguments that are not there."""


class CommandLineError(UsageError):
    """An option or argument is wrong."""

    def __init__(self, parser: argparse.ArgumentParser, message: str) -> None:
        super().__init__(message)
        self.prog, self._parser = parser.prog, parser

    def text(self, arguments: Sequence[str]) -> str:
        """Return the error in one line: an option that does not exist, or else what argparse says.

        argparse asks for what is required before it looks at what it does not know, and answers a mistyped word with
        the list of those that it knows.
        """
        message = str(self)
        options = [argument for argument in arguments if argument.startswith("--") and argument != "--"]
        known = options_of(self._parser)
        unknown = [name for name in options if not any(option.startswith(name.partition("=")[0]) for option in known)]
        if unknown and _REQUIRED.search(message):
            return unknown_arguments(unknown, self._parser, self.prog)
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", message)
        near = nearest(choice[1], re.findall(r"[\w-]+", choice[2])) if choice is not None else None
        return f"{message}; did you mean {near}?" if near else message


class CommandFailed(Exception):
    """A command with correct input could not do its work; the message is one line."""


def named_folder(text: str) -> Path:
    """Return the folder that an option names, for argparse: an empty text is the working directory to pathlib."""
    if not text:
        raise argparse.ArgumentTypeError("'' names no folder")
    return Path(text)


class CommandParser(argparse.ArgumentParser):
    """A parser that raises its errors, so that one place prints them, and is itself among the options it returns."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.set_defaults(prog=self.prog, parser=self)

    def error(self, message: str) -> NoReturn:
        """Raise the error instead of printing the usage."""
        raise CommandLineError(self, message)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that a mistyped word resembles most; None when none is near."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return the long options that the help of a parser names."""
    return re.findall(r"(?<![\w-])--[a-z][\w-]*", parser.format_help())


def unknown_arguments(unknown: Sequence[str], parser: argparse.ArgumentParser, prog: str) -> str:
    """Return in one line what is wrong with arguments that a parser does not know, with the nearest option of each."""
    known = options_of(parser)
    mistakes = []
    for argument in unknown:
        word = argument.partition("=")[0]
        kind = "option" if word.startswith("-") else "argument"
        near = nearest(word, known) if kind == "option" else None
        mistakes.append(f"unknown {kind} {word!r}" + (f", did you mean {near}?" if near else ""))
    return f"{'; '.join(mistakes)} ('{prog} --help' shows what is allowed)"


def print_error(prog: str, *lines: str) -> None:
    """Print an error, each line after the name of the command."""
    from reports.text import escape_unprintable

    sys.stdout.flush()
    try:
        sys.stderr.writelines(f"{prog}: {escape_unprintable(line)}\n" for line in lines)
        sys.stderr.flush()
    except OSError:
        # It reaches no reader, but the exit status says it too.
        discard(sys.stderr)


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
