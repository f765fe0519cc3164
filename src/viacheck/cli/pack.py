"""``viacheck pack``: writes viacheck with its libraries to one file, or to a Debian package around that file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reports.text import escape_unprintable
from viacheck.atomic_file import DEFAULT_MODE, write_file
from viacheck.cli.command import CommandFailed
from viacheck.fleet.deb import build_deb, default_name
from viacheck.fleet.pack import PLATFORMS, PackFailed, Platform, build, digest_of
from viacheck.model.exit_status import ExitStatus, UsageError

DEFAULT_FILE = "viacheck.pyz"
PROGRAM_MODE = 0o755


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=f"the file (default: {DEFAULT_FILE}, or Debian's usual name)"
    )
    parser.add_argument(
        "--deb", action="store_true", help="write a Debian package, with a timer that judges this host read-only"
    )
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
        content = build_deb(packed, platforms) if options.deb else packed
    except PackFailed as error:
        raise CommandFailed(str(error)) from None
    output = options.output or Path(default_name(platforms) if options.deb else DEFAULT_FILE)
    try:
        write_file(output, content, mode=DEFAULT_MODE if options.deb else PROGRAM_MODE)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror}") from None
    line = f"{output}: {len(content) / 1e6:.1f} MB, digest {digest_of(packed)}"
    sys.stdout.write(escape_unprintable(line) + "\n")
    return ExitStatus.OK
