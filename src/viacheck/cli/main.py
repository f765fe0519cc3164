"""The ``viacheck`` command: runs the checks, or one of the sub-commands.

A sub-command is a module of this package with ``configure(parser)`` and ``run(options)``, imported when it is chosen.
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until main() can say it in one line, Ctrl-C ends the process as it ends any program, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import atexit
import contextlib
import errno
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from typing import NoReturn

from viacheck import __version__
from viacheck.cli.command import (
    CommandFailed,
    CommandLineError,
    CommandParser,
    nearest,
    print_error,
    unknown_arguments,
)
from viacheck.cli.dataclass_code import keep_method_code
from viacheck.cli.streams import discard, open_closed_streams
from viacheck.guard.pending import pending_restore
from viacheck.installation import CHECKS, IS_CHECKOUT, ROOT, add_to_import_path
from viacheck.model.exit_status import STATUS_BY_SIGNAL, ExitStatus, UsageError

COMMANDS = {
    "site": "write a draft of site.toml, or print its JSON Schema",
    "lab": "build or remove the base roots of whole-host labs",
    "shell": "open a root shell on a lab's host",
    "explain": "show where a packet goes, and why",
    "diff": "show what changed between two runs",
    "report": "render a saved result.json again",
    "watch": "record for hours which way the agent's packets take",
    "fleet": "check many hosts, or make one report of their results",
    "export": "print a saved result in the format of another tool",
    "collect": "write a bundle of this host, for analysis elsewhere",
    "collect-script": "print a shell script that writes a bundle",
    "pack": "write viacheck with its libraries to one file",
    "restore": "restore this host's network after an interrupted run",
    "bench": "measure the parts of a run",
}
CHECKOUT_COMMANDS = {
    "docs": "write the tables of docs/ from the code",
}
"""Sub-commands that work on the files of a checkout."""
PYTEST_COMMANDS = {"run": CHECKS, "tests": ROOT / "tests"}
"""Commands whose options are pytest's and the plugin's, with the folder that they run without a path."""
SAME_AS_OPTION = {"help": "--help", "version": "--version", "-V": "--version"}
"""What people type for an option; to pytest, -V would be its own version."""
NO_SPACE = errno.ENOSPC, errno.EDQUOT, errno.EFBIG
DROPPED_VARIABLES = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "LD_PRELOAD")
"""Variables of the caller that would change which code runs, beside Python's own."""
COLLECT_AFTER = 50_000
"""New objects after which Python searches for cyclic garbage. Its own value, 700, takes an eighth of the CPU time of a
start, and a large host's routes are kept to the end."""
DESCRIPTION = """\
Verify which way the packets of a containerised agent take, with proof.

  viacheck                                       check every lab, and write a report
  viacheck --lab NAME[,NAME]                     check these labs ('--lab list' prints all labs and faults)
  viacheck site init                             write a draft of site.toml from what this host shows
  viacheck --local --site site.toml              check this host; nothing on it is changed
  viacheck --local --site site.toml --twin       try link flaps on a replica of this host
  viacheck --local --site site.toml --twin --reboot
                                                 boot a copy of this host from its files, and reboot the copy
  viacheck --local --site site.toml --allow-disruptive
                                                 interrupt this host's network, and restore it
  viacheck --bundle case.tar.gz                  check what a bundle of a host shows ('viacheck collect' writes one)
  viacheck explain --lab nat --to 203.0.113.9    show where a packet goes, and why
"""
EPILOG = """\
'viacheck run --help' shows the options of a check, pytest's included; 'viacheck COMMAND --help' those of a command.
Exit status: 0 nothing is bad, 1 a check fails or is inconclusive, 4 the command line or an input is wrong.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks or a sub-command; return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    open_closed_streams()
    status = _run(arguments)
    if status in STATUS_BY_SIGNAL.values():
        _leave(status)
    try:
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)
    return status


def _leave(status: int) -> NoReturn:
    """End at once: an interrupt leaves threads behind that Python would wait for, a lab's among them, at its exit."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def _run(arguments: list[str]) -> int:
    gc.set_threshold(COLLECT_AFTER)
    # At its exit Python would search everything for cyclic garbage, and free object by object what it finds: 0.6 s of
    # CPU time with a large host's routes. The kernel takes the memory back in any case.
    atexit.register(gc.freeze)
    ignore_callers_settings()
    keep_method_code()
    add_to_import_path()
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = _dispatch(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print_error("viacheck", "interrupted")
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has ended, as `head` does.
        discard(sys.stdout)
        return ExitStatus.FAILED
    except OSError as error:
        if error.errno not in NO_SPACE or error.filename is not None:
            raise
        discard(sys.stdout)
        print_error("viacheck", f"the output cannot be written: {error.strerror}")
        return ExitStatus.FAILED
    return status


def ignore_callers_settings() -> None:
    """Drop the environment variables that change which code runs, here and in child processes."""
    for folder in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        while os.path.abspath(folder) in sys.path:
            sys.path.remove(os.path.abspath(folder))
    for name in [name for name in os.environ if name.startswith("PYTHON") or name in DROPPED_VARIABLES]:
        del os.environ[name]
    os.environ["PYTHONSAFEPATH"] = "1"
    # viacheck uses no plugin of pydantic; the search for plugins reads the metadata of every installed package.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    if sys.pycache_prefix is not None:
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    if sys.dont_write_bytecode:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    if first not in ("restore", "tests") and (pending := pending_restore()) is not None:
        print_error("viacheck", pending)
    pytest_commands = [name for name in PYTEST_COMMANDS if name != "tests" or IS_CHECKOUT]
    if first in pytest_commands:
        return _run_pytest(first, arguments[1:])
    commands = COMMANDS | (CHECKOUT_COMMANDS if IS_CHECKOUT else {})
    if first in SAME_AS_OPTION and not os.path.exists(first):
        arguments = [SAME_AS_OPTION[first], *arguments[1:]]
    if first in commands or (arguments and arguments[0] in ("-h", "--help", "--version")):
        return _run_command(commands, arguments)
    if not first or first.startswith(("-", "@")) or _is_path(first):
        return _run_pytest("run", arguments)
    near = nearest(first, [*commands, *pytest_commands])
    hint = f"did you mean {near}?" if near else f"allowed: {', '.join([*pytest_commands, *commands])}"
    print_error("viacheck", f"unknown command {first!r}; {hint} ('viacheck --help' describes them)")
    return ExitStatus.USAGE


def _is_path(argument: str) -> bool:
    """Whether an argument names a test file or folder, as pytest spells them."""
    path = argument.partition("::")[0]
    return "/" in path or path.endswith(".py") or os.path.exists(path)


def _run_command(commands: dict[str, str], arguments: list[str]) -> int:
    """Parse the command line of a sub-command and run it. All errors of sub-commands are printed here."""
    parser = CommandParser(
        prog="viacheck", usage="viacheck [COMMAND] [OPTION ...]", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--version", action="version", version=f"viacheck {__version__}", help="show the version and exit"
    )
    choices = parser.add_subparsers(title="commands", metavar="COMMAND [OPTION ...]", prog="viacheck")
    for name, summary in commands.items():
        choice = choices.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == arguments[0]:
            module = import_module(f"viacheck.cli.{name.replace('-', '_')}")
            module.configure(choice)
            choice.set_defaults(run=module.run)
    prog = f"viacheck {arguments[0]}"
    try:
        options, unknown = parser.parse_known_args(arguments)
        prog = options.prog
        if unknown:
            raise UsageError(unknown_arguments(unknown, options.parser, prog))
        return int(options.run(options))
    except SystemExit as end:
        # After --help and --version: the output is still to be written.
        return int(end.code or ExitStatus.OK)
    except CommandLineError as error:
        print_error(error.prog, error.text(arguments))
        return ExitStatus.USAGE
    except (UsageError, CommandFailed) as error:
        return _refused(prog, error)


def _refused(prog: str, error: UsageError | CommandFailed) -> ExitStatus:
    """Print an error of a command; return its exit status."""
    if isinstance(error, CommandFailed):
        print_error(prog, str(error))
        return ExitStatus.FAILED
    print_error(prog, *error.lines)
    return ExitStatus.USAGE


def _run_pytest(command: str, arguments: list[str]) -> int:
    if command == "run" and _asks_for_labs(arguments):
        from netns_lab.lab_specs import catalogue

        sys.stdout.writelines(f"{line}\n" for line in catalogue())
        return ExitStatus.OK
    if command == "run" and any("vm:" in argument for argument in arguments):
        from viacheck.cli.guest_run import asks_for_guest, run_in_guest

        if asks_for_guest(arguments):
            try:
                return run_in_guest(arguments)
            except (UsageError, CommandFailed) as error:
                return _refused("viacheck", error)
    from viacheck.cli.pytest_run import run_pytest

    return run_pytest(PYTEST_COMMANDS[command], arguments)


def _asks_for_labs(arguments: list[str]) -> bool:
    return "--lab=list" in arguments or ("--lab", "list") in pairwise(arguments)


if __name__ == "__main__":
    sys.exit(main())
