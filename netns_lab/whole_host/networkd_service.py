"""The systemd-networkd of a whole host, as a unit of the host's own systemd."""

from __future__ import annotations

from collections.abc import Sequence

from netns_lab.networkd_daemon import TIMEOUT, NetworkdFailed
from viacheck.disruption.events import NETWORKD_SERVICE
from viacheck.disruption.manager_waits import WAIT_ONLINE
from viacheck.host.namespace import Namespace


class NetworkdService:
    """networkd on one whole host. See :class:`netns_lab.lab.Networkd`."""

    def __init__(self, host: Namespace, cards: Sequence[str]) -> None:
        """``cards`` are the host's network cards, all of which networkd configures."""
        self._host, self._cards = host, cards

    def restart(self) -> None:
        """Restart the service; return when it is up."""
        self._run("systemctl", "restart", NETWORKD_SERVICE)

    def settle(self) -> None:
        """Wait until every card is configured (systemd-networkd-wait-online(8))."""
        self._run(WAIT_ONLINE, f"--timeout={TIMEOUT:g}", *(f"--interface={name}" for name in self._cards))

    def _run(self, *argv: str) -> None:
        result = self._host.run(argv)
        if not result.ok:
            raise NetworkdFailed(f"{result.command} ended with exit code {result.exit_code}: {result.stderr.strip()}")
