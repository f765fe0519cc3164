"""``viacheck pack``: writes viacheck with its libraries to one file, for hosts where nothing may be installed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reports.text import escape_unprintable
from viacheck.atomic_file import write_file
from viacheck.cli.command import CommandFailed
from viacheck.fleet.pack import PLATFORMS, PackFailed, Platform, build, digest_of
from viacheck.model.exit_status import ExitStatus, UsageError

DEFAULT_FILE = "viacheck.pyz"
PROGRAM_MODE = 0o755


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("-o", "--output", type=Path, default=Path(DEFAULT_FILE), metavar="FILE", help="the file")
    parser.add_argument(
        "--only", metavar="PYTHON-PROCESSOR[,...]",
        help=f"which Pythons and processors it is for (default: {PLATFORMS[0]} to {PLATFORMS[-1]})",
    )  # fmt: skip
    parser.add_argument("--wheelhouse", type=Path, metavar="DIR", help="take the wheels from DIR, without Internet")


def run(options: argparse.Namespace) -> ExitStatus:
    """Write the file.

    Raises:
        UsageError: an option is wrong, or the file cannot be written.
        CommandFailed: a wheel is missing.
    """
    if options.wheelhouse is not None and not options.wheelhouse.is_dir():
        raise UsageError(f"--wheelhouse: {options.wheelhouse} is not a directory")
    try:
        platforms = [Platform.parse(text) for text in options.only.split(",")] if options.only else PLATFORMS
    except ValueError as error:
        raise UsageError(f"--only: {error}") from None
    try:
        packed = build(platforms, options.wheelhouse)
    except PackFailed as error:
        raise CommandFailed(str(error)) from None
    try:
        write_file(options.output, packed, mode=PROGRAM_MODE)
    except OSError as error:
        raise UsageError(f"{options.output}: cannot be written: {error.strerror}") from None
    line = f"{options.output}: {len(packed) / 1e6:.1f} MB, digest {digest_of(packed)}"
    sys.stdout.write(escape_unprintable(line) + "\n")
    return ExitStatus.OK
