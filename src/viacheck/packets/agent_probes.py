"""Probes and captures for a user's own checks: the agent as sender, and a watch that hands out scapy packets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from viacheck.host.namespace import Namespace
from viacheck.model.check_evidence import PacketsEvidence
from viacheck.packets.capture import Period, Watch
from viacheck.packets.evidence import packets_evidence
from viacheck.packets.observation import Observation
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import ANSWER_TIMEOUT, Exchange, Prober
from viacheck.packets.tokens import ProbeProtocol, TokenSpace

if TYPE_CHECKING:
    from viacheck.packets.scapy_import import Packet
    from viacheck.packets.scapy_socket import CaptureSocket

PROBES = 3


class AgentProbes:
    """Sends probes from the agent's own network namespace."""

    def __init__(self, namespace: Callable[[], Namespace], tokens: TokenSpace, timeout: float = ANSWER_TIMEOUT) -> None:
        """Open nothing yet.

        Args:
            namespace: returns the agent's namespace; a restart of the agent replaces it.
            tokens: the tokens that the watch recognises too.
            timeout: seconds to wait for answers.
        """
        self._namespace, self._tokens, self._timeout = namespace, tokens, timeout

    def send(self, protocol: ProbeProtocol, *, to: object, count: int = PROBES, port: int | None = None) -> Exchange:
        """Send probes to an address and wait for the answers.

        Args:
            protocol: ``icmp``, ``udp``, ``tcp`` or ``dns``.
            to: the destination's address.
            count: how many probes.
            port: the destination port; None for the protocol's default.
        """
        request = ProbeRequest(protocol=protocol, destination=str(to), count=count, port=port)
        return Prober(self._namespace(), self._tokens).send(request, self._timeout)


class WatchedPackets:
    """The packets of one watch. They are there when the ``with`` block has ended."""

    def __init__(self, period: Period) -> None:
        """Hold the period, which has begun."""
        self._period = period

    @property
    def observation(self) -> Observation:
        """The frames, and how sound the watch of each interface was.

        Raises:
            RuntimeError: the ``with`` block has not ended.
        """
        return self._period.observation

    @property
    def sockets(self) -> dict[CaptureSocket, str]:
        """The capture sockets with their interfaces, for scapy: ``sniff(opened_socket=seen.sockets)`` in the block.

        A sniffer takes no frame away from the watch. Stop the sniffer before the block ends.
        """
        return self._period.sockets

    @property
    def packets(self) -> list[Packet]:
        """The probes, their answers and ICMP errors about them as scapy packets, in order of time.

        ``sniffed_on`` is the interface, ``direction`` is 1 (in) or 2 (out), ``time`` is in seconds since the epoch.
        """
        return [frame.packet for frame in self.observation.frames if frame.number is not None]

    def evidence(self, *exchanges: Exchange, title: str = "") -> PacketsEvidence:
        """Return where the probes of these exchanges were seen, as evidence for ``expect``."""
        return packets_evidence(exchanges, self.observation, title=title)

    def unproven(self, interfaces: Iterable[str]) -> list[str]:
        """Return the interfaces on which absence is not proven, each with the reason."""
        return [
            f"{name}: {self.observation.unproven[name]}" for name in interfaces if name in self.observation.unproven
        ]


class PacketWatch:
    """Watches interfaces of the host: ``with watch(["eth0", "wlan0"]) as seen``."""

    def __init__(self, host: Namespace, tokens: TokenSpace) -> None:
        """Open nothing yet; ``tokens`` are those of the probes to recognise."""
        self._host, self._tokens = host, tokens

    @contextlib.contextmanager
    def __call__(self, interfaces: Sequence[str] | Iterable[str]) -> Iterator[WatchedPackets]:
        """Watch these interfaces until the block ends. The kernel filter passes the run's probes and their answers."""
        watch = Watch(self._host, list(interfaces), self._tokens)
        try:
            with watch() as period:
                yield WatchedPackets(period)
        finally:
            watch.close()
