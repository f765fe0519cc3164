"""Programs that a remedy takes and the host lacks: a minimal Debian has neither patch nor conntrack."""

from __future__ import annotations

from dataclasses import replace

from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.remedy import PATCH, execution_of
from viacheck.model.snapshot import Snapshot

_PACKAGES = {
    PATCH[0]: "patch",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "iptables-legacy": "iptables",
    "nft": "nftables",
}
"""The package of each program, by the program's name; Debian and Fedora give them the same names but for one.

Fedora's conntrack is in ``conntrack-tools``. All are programs that a snapshot looks for.
"""


def naming_missing_programs(cause: Cause, snapshot: Snapshot) -> Cause:
    """Return a cause that names the programs of its remedy which the host's snapshot does not show."""
    steps = (execution_of(step).argv[0] for step in (*cause.remedy.steps, *cause.remedy.rollback))
    missing = [name for name in dict.fromkeys(steps) if name in _PACKAGES and name not in snapshot.programs]
    return replace(cause, needs=tuple(_need(str(name)) for name in missing))


def _need(program: str) -> str:
    otherwise = ", or change the file by hand, line by line as the diff shows" if program == PATCH[0] else ""
    return f"this host has no {program}: install the package {_PACKAGES[program]}{otherwise}"
