"""What an engine that starts too early at boot leaves behind: a network that it could not set up again."""

from __future__ import annotations

import re
from collections.abc import Iterator

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.disruption import CHECK_OF, REBOOT
from viacheck.diagnosis.remedy import Remedy, remedy_of
from viacheck.model.measurements import Measurements
from viacheck.parsers.unit_names import device_unit
from viacheck.persistence.file_edit import new_file

DOCKER = "docker.service"
_NOT_SET_UP = re.compile(r'network id "?[0-9a-f]{64}"? not found')
"""The engine's words (20.10 to 28.5) for a network that it knows, and whose driver could not set it up at its start."""


def parent_was_late(resolved: ResolvedIntent, error: str) -> tuple[str, Remedy] | None:
    """Return the reason and the remedy if the engine started before the parent of the agent's network was there.

    Args:
        resolved: the host.
        error: the engine's words for why the container does not start.
    """
    parent = resolved.parent
    if resolved.intent.mode != "macvlan" or parent is None or not _NOT_SET_UP.search(error):
        return None
    reason = (
        f"Docker sets its networks up when it starts, and {parent} was not there yet: {DOCKER} waits for "
        f"network-online.target, which does not wait for {parent}. Until Docker is restarted no container starts on "
        "that network"
    )
    device = device_unit(parent)
    drop_in = new_file(
        resolved.snapshot,
        f"/etc/systemd/system/{DOCKER}.d/viacheck-{parent}.conf",
        f"[Unit]\nWants={device}\nAfter={device}\n",
    )
    reload = ("systemctl", "daemon-reload")
    return reason, remedy_of([drop_in], [reload, ("systemctl", "restart", DOCKER)], [reload])


def started_before_parent(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the engine could not start the agent after a reboot, because it started before the parent was there."""
    result = measurements.disruptions.get(REBOOT)
    late = parent_was_late(resolved, result.failure) if result is not None and result.failure else None
    if result is None or late is None:
        return
    reason, remedy = late
    yield Cause(
        "AGENT_NOT_RUNNING", CHECK_OF[REBOOT],
        f"after {result.title} {result.failure}. {reason}", remedy,
    )  # fmt: skip
