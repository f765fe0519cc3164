"""Asks the kernel which route a packet takes: the second witness beside the routing model.

``ip route get`` with source and input interface sends RTM_GETROUTE (rtnetlink(7)); without them the answer would be
about the host's own packets.
"""

from __future__ import annotations

from typing import Protocol

from viacheck.host.namespace import Namespace
from viacheck.model.measurements import KernelAnswer
from viacheck.parsers import iproute


class RoutedPacket(Protocol):
    """The fields of a packet that ``ip route get`` takes; :class:`viacheck.analysis.routing.packet.Packet` has them."""

    @property
    def source(self) -> str | None: ...  # noqa: D102
    @property
    def destination(self) -> str: ...  # noqa: D102
    @property
    def iif(self) -> str | None: ...  # noqa: D102
    @property
    def mark(self) -> int: ...  # noqa: D102
    @property
    def protocol(self) -> int | None: ...  # noqa: D102
    @property
    def dport(self) -> int | None: ...  # noqa: D102
    @property
    def uid(self) -> int: ...  # noqa: D102


def ask_kernel(namespace: Namespace, packet: RoutedPacket) -> KernelAnswer:
    """Ask for the route of one packet, in the namespace that routes it."""
    arguments = ["ip", "-N", "-j", "route", "get", packet.destination]
    options = (
        ("from", packet.source),
        ("iif", packet.iif),
        ("mark", hex(packet.mark) if packet.mark else None),
        ("ipproto", packet.protocol),
        ("dport", packet.dport),
        # Without a user IPv6 would ask about an arriving packet for no user at all, unlike where it forwards a packet.
        ("uid", packet.uid),
    )
    for name, value in options:
        if value is not None:
            arguments += [name, str(value)]
    result = namespace.run(arguments)
    if not result.ok:
        error = result.stderr.strip() or f"exit code {result.exit_code}"
        return KernelAnswer(None, None, None, error, result.evidence)
    answer = iproute.parse_route_get(result.stdout)
    via = f" via {answer.gateway}" if answer.gateway else ""
    text = f"table {answer.table}:{via} dev {answer.interface}" if answer.type == "unicast" else answer.type
    return KernelAnswer(answer.type, answer.interface, answer.table, text, result.evidence)
