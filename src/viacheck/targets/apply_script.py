"""A rehearsal: a person's own commands are run on a lab's host before the checks, as they would be typed on the host.

They run in the lab's own namespaces with private copies of /etc and /run, so that a change is tried before it is made.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from netns_lab.lab import Lab
from netns_lab.networkd_daemon import NetworkdFailed
from viacheck.host.command import CommandResult

NO_ENGINE = "unix:///run/docker.sock"
TIMEOUT = 120.0
"""Seconds that one script may take."""
_TRACE = re.compile(r"^\++viacheck:(\d+): ", re.MULTILINE)
_START = "PS4='+viacheck:${LINENO}: '; set -ex; "
"""Put before the first line without a line of its own, so that the shell counts as the file does."""


class ApplyFailed(Exception):
    """A change could not be made; the message names the line that failed, and what it said."""


@dataclass(frozen=True, slots=True)
class Change:
    """Commands to be run on a lab's host: a shell script."""

    name: str
    """What messages call it: the file's name."""
    text: str


def apply_script(lab: Lab, change: Change) -> str:
    """Run a change on the lab's host; returns what it said.

    Raises:
        RehearsalFailed: at the first command that fails.
    """
    shell = shutil.which("bash") or "/bin/sh"
    # Without an engine the address leads nowhere: this machine's own engine is not to be changed.
    environment = [f"DOCKER_HOST={lab.engine.base_url if lab.engine is not None else NO_ENGINE}"]
    # The trace tells which line failed.
    argv = ["env", *environment, shell, "-c", _START + change.text]
    result = lab.host.namespace.run(argv, TIMEOUT)
    said = _TRACE.sub("+ ", result.stderr)
    if not result.ok:
        raise ApplyFailed(f"{change.name}: {_where(change, result)}: exit {result.exit_code}: {_last(said)}")
    return result.stdout + said + _settled(lab)


def _settled(lab: Lab) -> str:
    """Let systemd-networkd, where it runs, finish what a command such as ``networkctl reload`` has only begun."""
    if lab.networkd is None:
        return ""
    try:
        lab.networkd.settle()
    except NetworkdFailed as error:
        return f"{error}\n"
    return ""


def _where(change: Change, result: CommandResult) -> str:
    """The line of the script that was under way when it ended."""
    lines = [int(number) for number in _TRACE.findall(result.stderr)]
    number = lines[-1] if lines else 1
    text = change.text.splitlines()
    return f"line {number}: {text[number - 1].strip()}" if number <= len(text) else f"line {number}"


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line and not line.startswith("+ ")]
    return lines[-1] if lines else "it said nothing"
