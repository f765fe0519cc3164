"""Commands that wait until a network manager has configured its links: its restart returns before that."""

from __future__ import annotations

from collections.abc import Sequence

from viacheck.host.namespace import Namespace

MANAGER_TIMEOUT = 20
"""Seconds that a manager may take to configure its links after a start."""
WAIT_ONLINE = "/lib/systemd/systemd-networkd-wait-online"
NETWORKD_LINKS = ("networkctl", "--no-legend", "--no-pager", "list")
NETWORKD_ANSWERS = ("networkctl", "--json=short", "list")
"""It asks by the bus, and networkd answers after the work of its start: it has read links, rules and routes then."""
NETWORKMANAGER_STARTED = ("nm-online", "--wait-for-startup", "--quiet", f"--timeout={MANAGER_TIMEOUT}")


def networkd_waits(host: Namespace, links: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the commands that wait, after a restart or a reload of systemd-networkd, until links are configured again.

    Only the links are waited for that it has configured now: others, such as a port without a cable whose address is
    leased, may never be. networkd has set their state when networkctl returns, as the kernel answers its question about
    a link at once. The least operational state says that a link without carrier is no reason to wait
    (systemd-networkd-wait-online(8)).
    """
    rows = (line.split() for line in host.run(NETWORKD_LINKS).stdout.splitlines())
    # IDX LINK TYPE OPERATIONAL SETUP, see networkctl(1).
    configured = {row[1] for row in rows if len(row) >= 5 and row[4] == "configured"}
    interfaces = [f"--interface={link}:off" for link in links if link in configured]
    return (NETWORKD_ANSWERS, (WAIT_ONLINE, f"--timeout={MANAGER_TIMEOUT}", *interfaces)) if interfaces else ()
