"""Measures the parent's segment: who holds the agent's address, whether a second MAC gets through, who answers.

ARP is asked with an empty sender (RFC 5227), so that no other machine's neighbour table is changed. The gateway's
answer to the agent's MAC address may complete the agent's own entry: measure when the agent's packets have been sent.
What would wait in vain in a healthy network is asked at the same time as everything else, so that all waits once.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.measurements import AddressClaim, AddressHolder, SecondMAC, SegmentFacts
from viacheck.packets.arp import NO_ADDRESS, InterfaceNotUp
from viacheck.packets.probes import Prober, ProbeRequest

ARP_TIMEOUT = 1.0
"""Seconds that a machine may take to answer ARP on a live network."""
ADDRESS_PROBES = 3
"""PROBE_NUM of RFC 5227."""


class SegmentTests:
    """The measurements of one target; each is made once."""

    def __init__(self, resolved: ResolvedIntent, host: Prober, agent: Prober | None, timeout: float) -> None:
        """Measure for a bridged agent.

        Args:
            resolved: whose parent and agent it is about.
            host: sends from the host.
            agent: sends from the agent; None while it cannot be entered.
            timeout: seconds that an answer may take.
        """
        self._situation, self._host, self._agent, self._timeout = resolved, host, agent, timeout

    def measure(self) -> SegmentFacts:
        """Measure everything; what cannot be measured (a parent that is down, no agent) is None in the answer."""
        with ThreadPoolExecutor(4, thread_name_prefix="segment") as pool:
            second_mac = pool.submit(self._second_mac)
            sides: dict[AddressHolder, Future[list[str] | None]] = {
                "parent": pool.submit(lambda: self._claims(self._host, self._situation.parent)),
                "agent": pool.submit(lambda: self._claims(self._agent, self._agent_interface)),
            }
            pings = pool.submit(self._pings)
            heard = {side: answers.result() for side, answers in sides.items()}
            return SegmentFacts(
                second_mac=second_mac.result(),
                claims=_claims_of(heard),
                asked_from=tuple(side for side, macs in heard.items() if macs is not None),
                gateway_answers_host=pings.result()[0],
                host_answers_agent=pings.result()[1],
            )

    @property
    def _agent_interface(self) -> str | None:
        link = self._situation.bridged_link
        return link.name if link is not None else None

    def _second_mac(self) -> SecondMAC | None:
        """Ask the gateway with all four pairs of frame source and ARP sender."""
        parent, agent_mac = self._situation.parent_link, self._situation.agent_mac
        if parent is None or parent.mac is None or agent_mac is None:
            return None
        macs: dict[AddressHolder, str] = {"parent": parent.mac, "agent": agent_mac}
        gateway = self._situation.lan_gateway
        answered: set[tuple[AddressHolder, AddressHolder]] = set()
        name = parent.name

        def ask(frame: AddressHolder, sender: AddressHolder) -> bool:
            answers = self._host.arp_request(
                name, gateway, sender=NO_ADDRESS, sender_mac=macs[sender], frame_source=macs[frame],
                timeout=min(ARP_TIMEOUT, self._timeout / 2),
            )  # fmt: skip
            return bool(answers)

        try:
            # One after another: an answer does not say which of two questions it belongs to.
            for frame, sender in (("parent", "parent"), ("parent", "agent"), ("agent", "parent"), ("agent", "agent")):
                pair: tuple[AddressHolder, AddressHolder] = (frame, sender)  # type: ignore[assignment]
                if ask(*pair):
                    answered.add(pair)
                elif pair == ("parent", "parent"):
                    break
        except InterfaceNotUp:
            return None
        return SecondMAC(parent.mac, agent_mac, gateway, frozenset(answered))

    def _claims(self, prober: Prober | None, interface: str | None) -> list[str] | None:
        """Which MAC addresses answer for the agent's address when it is asked for from one side."""
        address, own = self._situation.bridged_address, self._situation.agent_mac
        if prober is None or interface is None or address is None:
            return None
        found: list[str] = []
        try:
            for _ in range(ADDRESS_PROBES):
                answers = prober.arp_request(
                    interface, address.address, timeout=min(ARP_TIMEOUT, self._timeout) / ADDRESS_PROBES
                )
                found += [answer.mac for answer in answers if answer.mac != own and answer.mac not in found]
                if found:
                    break
        except InterfaceNotUp:
            return None
        return found

    def _pings(self) -> tuple[bool | None, bool | None]:
        """Whether the gateway answers the host, and whether the host answers the agent."""
        resolved = self._situation
        to_gateway = ProbeRequest(protocol="icmp", destination=resolved.lan_gateway)
        own = resolved.uplink_address(resolved.parent) if resolved.parent is not None else None
        gateway = self._host.send(to_gateway, self._timeout).answered > 0 if own is not None else None
        if self._agent is None or own is None or resolved.bridged_address is None:
            return gateway, None
        to_host = ProbeRequest(protocol="icmp", destination=own)
        return gateway, self._agent.send(to_host, self._timeout).answered > 0


def _claims_of(heard: dict[AddressHolder, list[str] | None]) -> tuple[AddressClaim, ...] | None:
    if all(macs is None for macs in heard.values()):
        return None
    everybody = dict.fromkeys(mac for macs in heard.values() for mac in macs or ())
    return tuple(
        AddressClaim(mac, tuple(side for side, macs in heard.items() if mac in (macs or ()))) for mac in everybody
    )
