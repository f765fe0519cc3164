"""What is about to be done to a live host, said before it is done, and the consents that it needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from viacheck.guard.ssh_sessions import SshSession

_MARGIN = 10.0
"""Seconds beyond the steps' own bounds after which the watchdog takes the run for hung."""


@dataclass(frozen=True, slots=True)
class Step:
    """One event."""

    what: str
    """In words: ``link down, then up``."""
    of: str
    """The interface, the container or the service."""
    seconds: float
    """How long it takes at most."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The events in their order."""

    steps: tuple[Step, ...]

    @property
    def timeout(self) -> float:
        """Seconds after which the state is put back whether the events have ended or not."""
        return sum(step.seconds for step in self.steps) + _MARGIN

    def lines(self) -> list[str]:
        """The plan for people: what, which interface, how long."""
        return [
            "this host's network will be interrupted, and put back as it is now:",
            *(f"  {step.of}: {step.what}, at most {step.seconds:g} s" for step in self.steps),
            f"  a watchdog puts it back after {self.timeout:g} s in any case; './viacheck restore' does so by hand",
        ]


def consent_missing(site: str, site_allows: bool, asked: bool) -> str | None:
    """Say in one line which of the two consents to interrupt a live host is missing; None when both are there.

    Args:
        site: path of the intent file.
        site_allows: its ``allow_disruptive``.
        asked: whether ``--allow-disruptive`` was given.
    """
    if site_allows and asked:
        return None
    if site_allows:
        return "it interrupts this host's network: add --allow-disruptive"
    if asked:
        return f"{site}: allow_disruptive: found false; --allow-disruptive needs 'allow_disruptive = true' there"
    return f"it interrupts this host's network: needs 'allow_disruptive = true' in {site}, and --allow-disruptive"


def cuts_management(interfaces: Sequence[str], sessions: Iterable[SshSession], flap_management: bool) -> str | None:
    """Say in one line which interface must stay because an SSH session uses it; None when nothing is in the way.

    Args:
        interfaces: what is to be changed.
        sessions: of :func:`viacheck.guard.ssh_sessions.ssh_sessions`.
        flap_management: whether ``--flap-management`` was given.
    """
    if flap_management:
        return None
    for session in sessions:
        for interface in interfaces:
            if interface in session.interfaces:
                return (
                    f"{interface} carries the SSH session from {session.peer} ({session.found_by}): it would be cut; "
                    "--flap-management does it all the same"
                )
    return None
