"""Runs a user's own commands on a lab's host before the checks.

They run in the lab's own namespaces with private copies of /etc and /run, so that a user can test a change before the
real host gets it.
"""

from __future__ import annotations

import re
import shutil

from netns_lab.lab import Lab
from netns_lab.lab_specs import Script
from netns_lab.networkd_daemon import NetworkdFailed
from viacheck.host.command import CommandResult

NO_ENGINE = "unix:///run/docker.sock"
TIMEOUT = 120.0
"""Seconds that one script may take."""
_TRACE = re.compile(r"^\++viacheck:(\d+): ", re.MULTILINE)
_START = "PS4='+viacheck:${LINENO}: '; set -ex; "
"""Stands on the script's first line, so that the shell's line numbers are the file's."""


class ScriptFailed(Exception):
    """A command of the script failed; the message holds its line and its output."""


def apply_script(lab: Lab, script: Script) -> str:
    """Run a script on the lab's host and return its output.

    Raises:
        ScriptFailed: a command failed; the commands after it did not run.
    """
    shell = shutil.which("bash") or "/bin/sh"
    # In a lab without an engine no socket has this address: the script must not reach this machine's own engine.
    environment = [f"DOCKER_HOST={lab.engine.base_url if lab.engine is not None else NO_ENGINE}"]
    # The trace shows which line failed.
    argv = ["env", *environment, shell, "-c", _START + script.text]
    result = lab.host.namespace.run(argv, TIMEOUT)
    output = _TRACE.sub("+ ", result.stderr)
    if not result.ok:
        raise ScriptFailed(f"{script.name}: {_line_of(script, result)}: exit {result.exit_code}: {_last_line(output)}")
    return result.stdout + output + settle(lab)


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
    lines = [int(number) for number in _TRACE.findall(result.stderr)]
    number = lines[-1] if lines else 1
    text = script.text.splitlines()
    return f"line {number}: {text[number - 1].strip()}" if number <= len(text) else f"line {number}"


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line and not line.startswith("+ ")]
    return lines[-1] if lines else "no output"
