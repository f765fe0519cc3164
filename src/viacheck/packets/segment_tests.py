"""Tests of the parent's segment: whether a second MAC address gets through, and who answers pings.

ARP requests have an empty sender address (RFC 5227), so that no other machine's neighbour table changes. The gateway's
answer to the agent's MAC address may complete the agent's own entry: run these tests after the agent's packets were
sent. In a healthy network some requests get no answer: all tests run at once, so that only one timeout passes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.measurements import AddressHolder, SecondMAC, SegmentFacts
from viacheck.packets.arp import NO_ADDRESS, InterfaceNotUp
from viacheck.packets.probe_request import ProbeRequest
from viacheck.packets.probes import Prober

ARP_TIMEOUT = 1.0
"""Seconds that a machine may take to answer ARP on a live network."""
TRIES = 3
"""Requests until a machine counts as silent: a single one may be lost on a radio link."""


class SegmentTests:
    """The segment tests of one target."""

    def __init__(self, resolved: ResolvedIntent, host: Prober, agent: Prober | None, timeout: float) -> None:
        """Prepare the tests of a bridged agent.

        Args:
            resolved: the intent, with the agent and its parent.
            host: sends from the host.
            agent: sends from the agent; None while its namespace cannot be opened.
            timeout: seconds that an answer may take.
        """
        self._resolved, self._host, self._agent, self._timeout = resolved, host, agent, timeout

    def measure(self) -> SegmentFacts:
        """Run all tests. A test that is not possible (parent down, no agent) has the result None."""
        with ThreadPoolExecutor(2, thread_name_prefix="segment") as pool:
            second_mac, pings = pool.submit(self._second_mac), pool.submit(self._pings)
            return SegmentFacts(
                second_mac=second_mac.result(),
                gateway_answers_host=pings.result()[0],
                host_answers_agent=pings.result()[1],
            )

    def _second_mac(self) -> SecondMAC | None:
        """Send the gateway an ARP request for each of the four pairs of frame source and ARP sender."""
        parent, agent_mac = self._resolved.parent_link, self._resolved.agent_mac
        if parent is None or parent.mac is None or agent_mac is None:
            return None
        macs: dict[AddressHolder, str] = {"parent": parent.mac, "agent": agent_mac}
        gateway = self._resolved.lan_gateway
        # A bridge hands an answer to the agent's MAC address to the agent's port: only its outer port shows the answer.
        outer = self._resolved.outer_ports(parent.name) if self._resolved.on_bridge else ()
        name = outer[0] if outer else parent.name
        answered: set[tuple[AddressHolder, AddressHolder]] = set()

        def is_answered(frame: AddressHolder, sender: AddressHolder) -> bool:
            answers = self._host.arp_request(
                name, gateway, sender=NO_ADDRESS, sender_mac=macs[sender], frame_source=macs[frame],
                tries=TRIES, timeout=min(ARP_TIMEOUT, self._timeout / 2),
            )  # fmt: skip
            return bool(answers)

        try:
            # One after another: an answer does not show which of two requests it belongs to.
            for frame, sender in (("parent", "parent"), ("parent", "agent"), ("agent", "parent"), ("agent", "agent")):
                pair: tuple[AddressHolder, AddressHolder] = (frame, sender)  # type: ignore[assignment]
                if is_answered(*pair):
                    answered.add(pair)
                elif pair == ("parent", "parent"):
                    break
        except InterfaceNotUp:
            return None
        return SecondMAC(parent.mac, agent_mac, gateway, frozenset(answered))

    def _pings(self) -> tuple[bool | None, bool | None]:
        """Return whether the gateway answers the host, and whether the host answers the agent."""
        resolved = self._resolved
        to_gateway = ProbeRequest(protocol="icmp", destination=resolved.lan_gateway, count=TRIES)
        own = resolved.uplink_address(resolved.parent) if resolved.parent is not None else None
        gateway = self._host.send(to_gateway, self._timeout).answered > 0 if own is not None else None
        if self._agent is None or own is None or resolved.bridged_address is None:
            return gateway, None
        to_host = ProbeRequest(protocol="icmp", destination=own, count=TRIES)
        return gateway, self._agent.send(to_host, self._timeout).answered > 0
