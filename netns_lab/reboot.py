"""The reboot of a lab's host: the next boot finds its files as they are now, and nothing else of its state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from netns_lab.lab import Lab
from netns_lab.plan import LabPlan

FOLDERS = ("/etc/network", "/etc/dhcp", "/etc/iproute2", "/etc/systemd/network", "/etc/systemd/networkd.conf.d")
"""A change that was tried in the lab may have added files here that its description does not have."""


def rebooted_plan(lab: Lab) -> LabPlan:
    """Return the description of the lab after its host's next boot."""

    def read() -> tuple[dict[str, str], set[str]]:
        paths = [path for path in {*lab.plan.files, *_below(FOLDERS)} if os.path.isfile(path)]
        executables = {path for path in paths if os.access(path, os.X_OK)}
        return {path: Path(path).read_text(errors="surrogateescape") for path in paths}, executables

    files, executables = lab.host.namespace.call(read)
    return replace(lab.plan, files=files, executables=frozenset(executables))


def _below(folders: tuple[str, ...]) -> Iterator[str]:
    for folder in folders:
        for place, _folders, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)
                if not os.path.islink(path):
                    yield path
