"""Runs a user's own commands on a lab's host before the checks.

They run in the lab's own namespaces with private copies of /etc and /run, so that a user can test a change before the
real host gets it.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

from netns_lab.lab import Lab
from netns_lab.networkd_daemon import NetworkdFailed
from netns_lab.script import Script
from viacheck.host.command import CommandResult

NO_ENGINE = "unix:///run/docker.sock"
TIMEOUT = 120.0
"""Seconds that one script may take."""
_TRACE = re.compile(r"^\++viacheck:(\d+): ", re.MULTILINE)
_FOLDER = "VIACHECK_SCRIPT_FOLDER"
_START = (
    f"exec 2>&1; cd -- \"${_FOLDER}\" 2>/dev/null || cd /; unset {_FOLDER}; PS4='+viacheck:${{LINENO}}: '; set -ex; "
)
"""Stands on the script's first line, so that the shell's line numbers are the file's.

Both streams are one, so that a message stands below the command that it is from. A replica's /tmp is its own and a
whole host has a disk of its own: the script's folder is missing there.
"""


class ScriptFailed(Exception):
    """A command of the script failed; the message holds its line and its output.

    Attributes:
        run: the whole transcript: each command with the number of its line, and what it wrote.
    """

    def __init__(self, message: str, run: CommandResult | None = None) -> None:
        super().__init__(message)
        self.run = run


def apply_script(lab: Lab, script: Script) -> str:
    """Run a script on the lab's host and return its output.

    Raises:
        ScriptFailed: a command failed; the commands after it did not run.
    """
    shell = shutil.which("bash") or "/bin/sh"
    # In a lab without an engine no socket has this address: the script must not reach this machine's own engine.
    engine = lab.engine.hosts_url if lab.engine is not None else NO_ENGINE
    environment = [f"DOCKER_HOST={engine}", f"{_FOLDER}={script.folder}"]
    # The trace shows which line failed.
    argv = ["env", *environment, shell, "-c", _START + script.text, script.name]
    result = lab.host.namespace.run(argv, TIMEOUT)
    if not result.ok:
        message = f"{script.name}: {_line_of(script, result)}: exit {result.exit_code}: {_last_output(result)}"
        transcript = _TRACE.sub(r"line \1: ", result.stdout)
        raise ScriptFailed(message, replace(result, argv=(script.name,), stdout=transcript))
    return _TRACE.sub("+ ", result.stdout) + settle(lab)


def settle(lab: Lab) -> str:
    """Wait until systemd-networkd, if it runs, has done the work that ``networkctl reload`` only starts."""
    if lab.networkd is None:
        return ""
    try:
        lab.networkd.settle()
    except NetworkdFailed as error:
        return f"{error}\n"
    return ""


def _line_of(script: Script, result: CommandResult) -> str:
    """Return the line of the script that ran last."""
    lines = [int(number) for number in _TRACE.findall(result.stdout)]
    number = lines[-1] if lines else 1
    text = script.text.splitlines()
    return f"line {number}: {text[number - 1].strip()}" if number <= len(text) else f"line {number}"


def _last_output(result: CommandResult) -> str:
    """Return the last line of output of the command that ran last, or the shell's own message."""
    start = max((match.end() for match in _TRACE.finditer(result.stdout)), default=None)
    # The rest of the trace's own line is the command.
    lines = result.stdout.splitlines() if start is None else result.stdout[start:].splitlines()[1:]
    lines += result.stderr.splitlines()
    return next((line for line in reversed(lines) if line), "no output")
