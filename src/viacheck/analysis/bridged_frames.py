"""What the host's packet filter does to frames that a LAN bridge forwards: they pass its forward hook.

``net.bridge.bridge-nf-call-iptables`` is 1 as soon as the module is loaded, as Docker does; the policy of FORWARD,
which Docker sets to DROP, then drops the frames between the ports of every bridge (ip-sysctl.rst, ebtables).
"""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.packet_filter.conditions import FilteredPacket
from viacheck.analysis.packet_filter.evaluate import Passage, forwarding
from viacheck.analysis.packet_filter.icmp import echo_request, type_of_answer
from viacheck.model.filter_chains import PacketFilter
from viacheck.model.namespace_state import NetworkState

CALLS_IPTABLES = "net/bridge/bridge-nf-call-iptables"


def bridge_passages(
    host: NetworkState,
    bridge: str,
    source: str,
    destination: str,
    protocols: tuple[int | None, ...],
    packet_filter: PacketFilter | None = None,
) -> Iterator[Passage]:
    """Yield what the forward hook does to packets that a bridge forwards, and to their answers; nothing if it is off.

    Args:
        host: the host of the bridge.
        bridge: the bridge, which is the packets' interface in both directions.
        source: the agent's address.
        destination: the other machine's address.
        protocols: the protocols of the packets.
        packet_filter: the filter to evaluate; None for the host's own.
    """
    if host.sysctls.get(CALLS_IPTABLES, "0") != "1":
        return
    filters = host.packet_filter if packet_filter is None else packet_filter
    for protocol in protocols:
        request = echo_request(protocol)
        for sender, receiver, state, message_type in (
            (source, destination, "new", request),
            (destination, source, "established", type_of_answer(protocol, request)),
        ):
            yield forwarding(filters, FilteredPacket(
                family=4, source=sender, destination=receiver, iif=bridge, oif=bridge, protocol=protocol, ctstate=state,
                icmp_type=message_type, icmp_code=None if message_type is None else 0,
            ))  # fmt: skip
