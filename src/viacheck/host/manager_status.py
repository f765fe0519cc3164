"""Asks the managers of a host's network themselves, each by its own reader, where it is there and has files to read.

They only read. One that is missing, or has nothing to say, is no problem: then its files speak alone.
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

TIMEOUT = 5.0
"""Seconds that one answer may take: networkctl waits for a networkd that hangs."""


def ask(namespace: Namespace, uplink: str) -> tuple[ManagerAnswer, ...]:
    """What they say; of each answer only what may be kept.

    Args:
        namespace: the host's.
        uplink: the interface that matters.
    """
    present = namespace.call(_with_files)
    asked = [
        one for manager, several in manager_answers.commands(uplink).items() if manager in present for one in several
    ]
    found = []
    for command in asked:
        result = namespace.run(shlex.split(command), TIMEOUT, kept=partial(manager_answers.redact_answer, command))
        if result.exit_code != NOT_FOUND:
            found.append(ManagerAnswer(command, result.exit_code, result.stdout))
    return tuple(found)


def _with_files() -> set[Manager]:
    """The managers that have something to read; to ask the others would only take time."""
    found = set[Manager]()
    # Where this folder is missing ifquery makes it: a host where ifupdown has done nothing is to stay as it is.
    if os.path.exists(ifupdown.INTERFACES) and os.path.isdir(os.path.dirname(ifupdown.IFSTATE)):
        found.add("ifupdown")
    if names_in(networkd.STATE_FOLDER):
        found.add("networkd")
    if any(matching(names_in(folder), "*.yaml") for folder in netplan.FOLDERS):
        found.add("netplan")
    return found
