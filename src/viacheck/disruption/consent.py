"""The consents that a change to a live host needs: the site file, the command line, and the operator's own session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from viacheck.guard.ssh_sessions import SshSession


def consent_missing(site: str, site_allows: bool, asked: bool) -> str | None:
    """Return which of the two consents to interrupt a live host is missing, in one line; None when both are given.

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
    """Return which interface must stay up because an SSH session uses it, in one line; None when none must.

    Args:
        interfaces: those that the change takes down.
        sessions: of :func:`viacheck.guard.ssh_sessions.ssh_sessions`.
        flap_management: whether ``--flap-management`` was given.
    """
    if flap_management:
        return None
    for session in sessions:
        for interface in interfaces:
            if interface in session.interfaces:
                return (
                    f"{interface} carries the SSH session from {session.peer} ({session.found_by}): the event would "
                    "cut it; use --flap-management to do it anyway"
                )
    return None
