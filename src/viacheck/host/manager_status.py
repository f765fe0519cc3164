"""Reads the status that the managers of a host's network report, each by its own command.

The commands only read. A manager that is missing or reports nothing is not a problem: its files are judged alone.
"""

from __future__ import annotations

import os
import shlex
from fnmatch import filter as matching
from functools import partial

from viacheck.host.command import NOT_FOUND
from viacheck.host.files import names_in
from viacheck.host.namespace import Namespace
from viacheck.model.snapshot import ManagerAnswer
from viacheck.persistence import ifupdown, manager_answers, netplan, networkd
from viacheck.persistence.manager_config import Manager

TIMEOUT = 15.0
"""Seconds that an answer may take: networkctl waits for a networkd that hangs."""


def ask(namespace: Namespace, uplink: str) -> tuple[ManagerAnswer, ...]:
    """Return the answers of the managers, reduced to the parts that may be kept.

    Args:
        namespace: the host's namespace.
        uplink: the interface that matters.
    """
    present = namespace.call(_with_files)
    by_manager = manager_answers.commands(uplink)
    answers = []
    for command in (command for manager in by_manager if manager in present for command in by_manager[manager]):
        result = namespace.run(shlex.split(command), TIMEOUT, kept=partial(manager_answers.redact_answer, command))
        if result.exit_code != NOT_FOUND:
            answers.append(ManagerAnswer(command, result.exit_code, result.stdout))
    return tuple(answers)


def _with_files() -> set[Manager]:
    """Return the managers that have files; a question to the others would only take time."""
    present = set[Manager]()
    # ifquery creates this folder where it is missing; a host where ifupdown has done nothing must not change.
    if os.path.exists(ifupdown.INTERFACES) and os.path.isdir(os.path.dirname(ifupdown.IFSTATE)):
        present.add("ifupdown")
    if names_in(networkd.STATE_FOLDER):
        present.add("networkd")
    if any(matching(names_in(folder), "*.yaml") for folder in netplan.FOLDERS):
        present.add("netplan")
    return present
