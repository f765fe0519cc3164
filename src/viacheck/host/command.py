"""Commands run on a target: an argument list in, everything that the command said out. Never a shell."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viacheck.model.result import CommandEvidence

NOT_FOUND = 127
TIMED_OUT = 124


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command was, and what it said."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """It ended with exit code 0."""
        return self.exit_code == 0

    @property
    def command(self) -> str:
        """The command as a person would type it."""
        return shlex.join(self.argv)

    @property
    def evidence(self) -> CommandEvidence:
        """The command as evidence of a verdict."""
        from viacheck.model.result import CommandEvidence

        return CommandEvidence(command=self.command, exit_code=self.exit_code, stdout=self.stdout, stderr=self.stderr)


@dataclass(frozen=True, slots=True)
class RecordedCommand:
    """A command that was run on a target, as a bundle keeps it."""

    place: str
    """The namespace's name: ``host``, ``agent``."""
    time: str
    """ISO 8601 with offset; when it had ended."""
    result: CommandResult


def start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command in the calling thread's namespaces, with both streams caught and no standard input."""
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(argv: Sequence[str], process: subprocess.Popen[bytes], timeout: float) -> CommandResult:
    """Wait at most ``timeout`` seconds for a started command; past that it is killed and told as exit code 124."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        stderr += f"killed: not finished after {timeout:g} s".encode()
        code = TIMED_OUT
    return CommandResult(tuple(argv), code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
