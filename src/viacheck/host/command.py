"""Commands on a target: an argument list in; exit code and both streams out. Never a shell."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viacheck.model.check_evidence import CommandEvidence

NOT_FOUND = 127
OWN_VARIABLE = "PYTHONSAFEPATH"
"""Set for viacheck's own interpreters: with it netplan, whose modules lie beside its script, cannot start."""
TIMED_OUT = 124
LAST_OUTPUT_WITHIN = 1.0
"""Seconds for the rest of the output of a command that was killed: a child of it may live on and hold the pipes."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command with its exit code and both streams."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Return whether the command ended with exit code 0."""
        return self.exit_code == 0

    @property
    def command(self) -> str:
        """Return the command as a person types it."""
        return shlex.join(self.argv)

    @property
    def evidence(self) -> CommandEvidence:
        """Return the command as evidence of a verdict."""
        from viacheck.model.check_evidence import CommandEvidence

        return CommandEvidence(command=self.command, exit_code=self.exit_code, stdout=self.stdout, stderr=self.stderr)


@dataclass(frozen=True, slots=True)
class RecordedCommand:
    """A command that ran on a target, as a bundle keeps it."""

    place: str
    """The namespace's name: ``host``, ``agent``."""
    time: str
    """ISO 8601 with offset: when the command ended."""
    result: CommandResult


def present_environment() -> dict[str, str]:
    """Return a copy of the environment while another thread may change it: pytest does so at each check."""
    return {name: value for name in list(os.environ) if (value := os.environ.get(name)) is not None}


def memory_file() -> int | None:
    """Return a new file in memory, for a large output; None where the system allows none (vm.memfd_noexec)."""
    try:
        return os.memfd_create("output")
    except OSError:
        return None


def start(
    argv: Sequence[str],
    *,
    with_input: bool = False,
    output: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command in the calling thread's namespaces, with both streams captured.

    Args:
        argv: the command.
        with_input: standard input is a pipe that :func:`finish` fills, and not empty.
        output: the file that standard output goes to; None for a pipe.
        environment: the command's environment; None for this process's.
    """
    stdin = subprocess.PIPE if with_input else subprocess.DEVNULL
    stdout = subprocess.PIPE if output is None else output
    if environment is None:
        environment = {name: value for name, value in present_environment().items() if name != OWN_VARIABLE}
    return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment)


def finish(
    argv: Sequence[str],
    process: subprocess.Popen[bytes],
    timeout: float,
    text: str | None = None,
    output: int | None = None,
) -> CommandResult:
    """Wait for a started command, which reads ``text`` and writes to the file ``output`` if it was started with one.

    After ``timeout`` seconds the command is killed, and its exit code is 124.
    """
    try:
        octets = None if text is None else text.encode(errors="surrogateescape")
        stdout, stderr = process.communicate(octets, timeout=timeout)
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = _last_output(process)
        stderr += f"killed: not finished after {timeout:g} s".encode()
        code = TIMED_OUT
    if output is not None:
        stdout = os.pread(output, os.fstat(output).st_size, 0)
    return CommandResult(tuple(argv), code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


def _last_output(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Return what a killed command has written; its pipes are closed, even if a child holds them."""
    try:
        return process.communicate(timeout=LAST_OUTPUT_WITHIN)
    except subprocess.TimeoutExpired as error:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()
        return error.output or b"", error.stderr or b""
