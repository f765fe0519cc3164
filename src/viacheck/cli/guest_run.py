"""Runs the checks of labs of a virtual machine: the run is made in the machine, by the same program in one file.

The guest sees the report's folder under its own path, so that what the run prints and writes is as for every other run.
"""

from __future__ import annotations

import argparse
import datetime
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from viacheck.cli.command import CommandFailed
from viacheck.installation import reports_folder
from viacheck.model.exit_status import UsageError
from viacheck.private_folder import make_writable_folder

if TYPE_CHECKING:
    from netns_lab.virtual_machine.guest_root import GuestRoot

PREFIX = "vm:"
RUN_WITHIN = 3600.0
"""Seconds for a whole run: an emulated processor takes about a minute for each lab."""
_PROGRAM = "viacheck.pyz"
_FILES = ("apply", "baseline", "bundle", "group", "site")
_NOT_INSIDE = (*_FILES, "local", "twin")
"""Options about this machine, its files and groups: the virtual machine sees none of them."""


def asks_for_guest(arguments: Sequence[str]) -> bool:
    """Return whether a command line names a lab of a virtual machine, and starts in no such machine."""
    from netns_lab.virtual_machine.guest_kernel import processor

    lab = _parser().parse_known_args(arguments)[0].lab
    return any(name.strip().startswith(PREFIX) for name in (lab or "").split(",")) and processor() is None


def run_in_guest(arguments: Sequence[str]) -> int:
    """Run the command line in a virtual machine; return its exit status.

    Raises:
        UsageError: an option or a lab is wrong.
        CommandFailed: something is missing on this machine, or the virtual machine does not work.
    """
    from netns_lab.lab_specs import parse_labs
    from netns_lab.whole_host.base_root import DEFAULT_RELEASE

    options, others = _parser().parse_known_args(arguments)
    for name in _NOT_INSIDE:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} does not go with {PREFIX} labs: they run apart from this machine's files")
    labs = parse_labs(options.lab)
    if other := [spec.name for spec in labs if spec.flavour != "vm"]:
        raise UsageError(f"--lab: {other[0]!r} runs here and {PREFIX} labs in a virtual machine: start them apart")
    releases = sorted({spec.release or DEFAULT_RELEASE for spec in labs})
    if len(releases) > 1:
        raise UsageError(f"--lab: {' and '.join(releases)} are two virtual machines: start them apart")
    root = _root(releases[0])
    report = Path(options.report_dir) if options.report_dir else reports_folder() / _run_id()
    try:
        make_writable_folder(report)
    except OSError as error:
        raise UsageError(f"--report-dir: {error.filename or report}: {error.strerror}") from None
    report = report.resolve()
    status = _run(root, report, ["--lab", options.lab, *others, "--report-dir", str(report)])
    if not options.report_dir:
        from reports.report_files import link_latest

        link_latest(report)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--lab")
    parser.add_argument("--report-dir")
    parser.add_argument("--local", action="store_true", default=None)
    parser.add_argument("--twin", nargs="?", const="")
    for name in _FILES:
        parser.add_argument(f"--{name}")
    return parser


def _run_id() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def _root(release: str) -> GuestRoot:
    from netns_lab.virtual_machine.guest_requirements import guest_root
    from netns_lab.virtual_machine.guest_root import GuestRoot
    from netns_lab.whole_host.base_root import BaseRootFailed

    try:
        return guest_root(GuestRoot(release), _say)
    except BaseRootFailed as error:
        raise CommandFailed(str(error)) from None


def _run(root: GuestRoot, report: Path, arguments: list[str]) -> int:
    from netns_lab.virtual_machine.emulator import GuestFailed, GuestFolders, VirtualMachine
    from netns_lab.virtual_machine.guest_kernel import PROCESSORS
    from netns_lab.virtual_machine.guest_program import unpack_program, write_command

    with tempfile.TemporaryDirectory(prefix="viacheck-guest-") as folder:
        share = Path(folder)
        _pack(root, share / _PROGRAM)
        environment = {"REPORT": str(report), "COLUMNS": str(_columns()), "TERM": os.environ.get("TERM", "dumb")}
        colour = ["--color=yes"] if sys.stdout.isatty() else []
        try:
            python = unpack_program(root, share, _PROGRAM)
            # Unbuffered (-u): the output is no terminal there, and a person waits for it here.
            argv = [python, "-I", "-u", "-m", "viacheck.cli.main", *colour, *arguments]
            write_command(share, argv, environment)
            machine, begin = VirtualMachine(root, GuestFolders(share, report)), time.monotonic()
            machine.run(_show, RUN_WITHIN)
            booted, status = (float((share / name).read_text()) for name in ("booted", "status"))
        except (GuestFailed, OSError, ValueError, subprocess.CalledProcessError) as error:
            raise CommandFailed(f"the virtual machine: {error}") from error
        seconds = time.monotonic() - begin
    _say(
        f"{PREFIX} Linux {root.kernel_release} of {root.release}, on {PROCESSORS[machine.processor]}: "
        f"booted in {booted:.1f} s, {seconds:.0f} s in all"
    )
    return int(status)


def _pack(root: GuestRoot, path: Path) -> None:
    from viacheck.fleet.pack import PackFailed, Platform, build

    try:
        path.write_bytes(build([Platform.parse(f"{root.python}-x86_64")]))
    except PackFailed as error:
        raise CommandFailed(str(error)) from None


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return 120


def _show(part: bytes) -> None:
    sys.stdout.buffer.write(part)
    sys.stdout.flush()


def _say(line: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"viacheck: {line}\n")
    sys.stderr.flush()
