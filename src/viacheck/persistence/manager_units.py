"""The systemd units that start the network managers at boot: which of them a host has, and whether they are enabled.

The files of a manager that nothing starts are not read (systemctl(1): enable, mask).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from viacheck.model.snapshot import HostFile
from viacheck.persistence.file_edit import ReversibleEdit
from viacheck.persistence.manager_config import Manager

CONFIGURED, RUNTIME = "/etc/systemd/system", "/run/systemd/system"
"""The folders of systemctl: what is enabled or masked for good, and until the next boot."""
FOLDERS = (
    CONFIGURED, RUNTIME, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
)  # fmt: skip
GENERATED = ("/run/systemd/generator", "/run/systemd/generator.late")
"""Where generators write what they enable, at each boot again: netplan does so with systemd-networkd."""
ENABLES = (".wants", ".requires")
UNITS: dict[Manager, tuple[str, ...]] = {
    "ifupdown": ("networking.service",),
    "networkd": ("systemd-networkd.service", "systemd-networkd.socket", "systemd-networkd-wait-online.service"),
    "networkmanager": ("NetworkManager.service", "NetworkManager-wait-online.service"),
}
"""The unit of each manager, and further units that start it. netplan's generator starts its renderer by itself."""


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The unit of a manager, which nothing starts at boot."""

    unit: str
    masked: bool = False

    def __str__(self) -> str:
        return f"{self.unit} is {'masked' if self.masked else 'not enabled'}"

    @property
    def edits(self) -> tuple[ReversibleEdit, ...]:
        """The commands that enable the unit."""
        verbs = (("unmask", "mask"), ("enable", "disable")) if self.masked else (("enable", "disable"),)
        return tuple(
            ReversibleEdit(("systemctl", verb, self.unit), ("systemctl", undone, self.unit)) for verb, undone in verbs
        )


def not_started(files: Sequence[HostFile], manager: Manager) -> NotStarted | None:
    """Return the unit of a manager if nothing starts it at boot; None if something does, or no unit is recorded."""
    units = UNITS.get(manager)
    return first_not_started(files, units) if units is not None else None


def first_not_started(files: Sequence[HostFile], units: Sequence[str]) -> NotStarted | None:
    """Return the first unit if neither it nor the others are started at boot; None if one is, or it is not recorded."""
    present = {file.path: file for file in files if file.exists}
    paths = [f"{folder}/{units[0]}" for folder in FOLDERS]
    if not any(path in present for path in paths):
        return None
    own = present.get(paths[0])
    # An empty file, or a link to /dev/null, masks a unit (systemd.unit(5)).
    if own is not None and not own.text.strip():
        return NotStarted(units[0], masked=True)
    return None if any(_enables(path, units) for path in present) else NotStarted(units[0])


def _enables(path: str, units: Iterable[str]) -> bool:
    folder, _slash, name = path.rpartition("/")
    return name in units and folder.endswith(ENABLES) and not folder.startswith(f"{RUNTIME}/")
