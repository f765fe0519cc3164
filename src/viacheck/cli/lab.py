"""``viacheck lab``: builds the base root that the whole hosts of a release need, or removes all base roots."""

from __future__ import annotations

import argparse
import sys

from netns_lab.whole_host.base_root import DEFAULT_RELEASE, RELEASES, BaseRootFailed, remove_all
from netns_lab.whole_host.host_requirements import base_root
from viacheck.cli.command import CommandFailed
from viacheck.model.exit_status import ExitStatus


def configure(parser: argparse.ArgumentParser) -> None:
    """Define the two sub-commands."""
    commands = parser.add_subparsers(dest="lab_command", required=True, metavar="build|clean")
    build = commands.add_parser("build", help="build the base root of a Debian release, which takes about a minute")
    build.add_argument("release", nargs="?", choices=RELEASES, default=DEFAULT_RELEASE, metavar="RELEASE",
                       help=f"{', '.join(RELEASES)} (default: {DEFAULT_RELEASE})")  # fmt: skip
    build.set_defaults(run_lab=_build)
    commands.add_parser("clean", help="remove all base roots").set_defaults(run_lab=_clean)


def run(options: argparse.Namespace) -> ExitStatus:
    """Build or remove.

    Raises:
        CommandFailed: something is missing on this machine, or a root cannot be built or removed.
    """
    status: ExitStatus = options.run_lab(options)
    return status


def _build(options: argparse.Namespace) -> ExitStatus:
    try:
        base = base_root(options.release, lambda line: sys.stderr.write(f"{options.prog}: {line}\n"))
    except BaseRootFailed as error:
        raise CommandFailed(str(error)) from error
    sys.stdout.write(f"{base.path}\n")
    return ExitStatus.OK


def _clean(_options: argparse.Namespace) -> ExitStatus:
    try:
        for folder in remove_all():
            sys.stdout.write(f"removed {folder}\n")
    except OSError as error:
        raise CommandFailed(f"{error.filename}: {error.strerror}") from error
    return ExitStatus.OK
