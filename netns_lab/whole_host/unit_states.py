"""What systemd says about the units of a whole host: which failed, and which it is still starting or stopping."""

from __future__ import annotations

from viacheck.host.namespace import Namespace

UNINVOLVED = ("console-getty", "getty", "systemd-")
"""Units that wait for the end of every boot."""


def failed_units(host: Namespace) -> str:
    """Return the names of the units that failed, as systemd lists them."""
    return ", ".join(_failed(host)) or "none that systemd still lists"


def unfinished_jobs(host: Namespace) -> str:
    """Return what systemd is still starting, which units wait for it, and which have failed already."""
    listing = host.run(["systemctl", "list-jobs", "--plain", "--no-legend"])
    if not listing.ok:
        return "systemd does not answer"
    by_state: dict[str, list[str]] = {}
    for _job, unit, _type, state, *_rest in map(str.split, listing.stdout.splitlines()):
        # A device that does not appear holds a boot up as well. Of what waits, the services say enough.
        if (state == "running" or unit.endswith(".service")) and not unit.startswith(UNINVOLVED):
            by_state.setdefault(state, []).append(unit)
    texts = [f"{', '.join(sorted(units))} {state}" for state, units in sorted(by_state.items())]
    return "; ".join([*texts, *(f"{unit} failed" for unit in _failed(host))]) or "systemd lists no job"


def _failed(host: Namespace) -> list[str]:
    listing = host.run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).stdout
    return [line.split()[0] for line in listing.splitlines() if line.split()]
