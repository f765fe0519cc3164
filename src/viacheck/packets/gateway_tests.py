"""Questions to gateways by ARP: whether each answers on its uplink, and with which MAC address."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from viacheck.analysis.default_routes import other_routers
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.measurements import HostReadings
from viacheck.model.namespace_state import Neighbour
from viacheck.packets.arp import NO_ADDRESS, InterfaceNotUp
from viacheck.packets.probes import Prober
from viacheck.packets.segment_tests import ARP_TIMEOUT, TRIES

ARP_AT_ONCE = 8
"""Gateways that are asked at the same time."""


class GatewayTests:
    """The gateways of one target's host; what is asked is asked once for all agents of the host."""

    def __init__(self, resolved: ResolvedIntent, known: HostReadings, host: Prober, timeout: float) -> None:
        """Ask nothing yet.

        Args:
            resolved: the intent, with the gateways.
            known: the answers that another agent of the host had.
            host: sends from the host.
            timeout: seconds that an answer may take.
        """
        self._resolved, self._known, self._host, self._timeout = resolved, known, host, timeout

    @cached_property
    def answers(self) -> Mapping[str, list[str]]:
        """By uplink, the MAC addresses that answered ARP for its gateway."""
        known = self._known
        if known.gateway_macs is None:
            asked = self._resolved.arp_gateways
            # Beside each other: a silent gateway takes the whole timeout.
            with ThreadPoolExecutor(ARP_AT_ONCE, thread_name_prefix="arp") as pool:
                answers = pool.map(self._ask, asked, asked.values())
                known.gateway_macs = dict(zip(asked, answers, strict=True))
        return known.gateway_macs

    @cached_property
    def routers_in_use(self) -> Mapping[str, str]:
        """By uplink whose gateway is silent, the gateway of the host's own default routes by it, if that one answers.

        It is asked by ARP as well: its answer shows that the site file has a wrong address, and no gateway is off.
        """
        known = self._known
        if known.routers_in_use is not None:
            return known.routers_in_use
        answering: dict[str, str] = {}
        for name in self._silent_of(self.answers):
            for router in other_routers(self._resolved, name):
                if name not in answering and self._ask(name, router):
                    answering[name] = router
        known.routers_in_use = answering
        return answering

    @cached_property
    def exit_macs(self) -> tuple[str, ...] | None:
        """The MAC addresses that answer ARP for the next hop of the host's own packets, where it is on no uplink."""
        neighbour, known = self._resolved.exit_neighbour, self._known
        if neighbour is None:
            return None
        if known.exit_macs is None:
            known.exit_macs = self._ask(*neighbour)
        return tuple(known.exit_macs)

    @property
    def heard(self) -> Mapping[str, list[str]]:
        """The answers, where they were asked for by now. Reading this sends nothing."""
        made: Mapping[str, list[str]] = vars(self).get("answers", {})
        return made

    @property
    def silent(self) -> tuple[str, ...]:
        """The uplinks whose gateway was asked by now and did not answer. Reading this sends nothing."""
        return self._silent_of(self.heard)

    @property
    def routers_found(self) -> Mapping[str, str]:
        """The routers in use, where they were asked for by now. Reading this sends nothing."""
        made: Mapping[str, str] = vars(self).get("routers_in_use", {})
        return made

    @property
    def exit_macs_heard(self) -> tuple[str, ...] | None:
        """The answers for the host's next hop, where it was asked by now. Reading this sends nothing."""
        return vars(self).get("exit_macs")

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """What the requests so far showed, as neighbour entries. Reading this sends nothing."""
        asked, entries = self._resolved.arp_gateways, list[Neighbour]()
        for name, macs in self.heard.items():
            if macs:
                entries.append(_entry(name, asked[name], macs[0]))
        entries += [_entry(name, asked[name], None) for name in self.silent]
        neighbour, macs_of_exit = self._resolved.exit_neighbour, self.exit_macs_heard
        if neighbour is not None and macs_of_exit is not None:
            entries.append(_entry(*neighbour, macs_of_exit[0] if macs_of_exit else None))
        entries += [
            Neighbour(interface=name, family=4, address=router, state="REACHABLE")
            for name, router in self.routers_found.items()
        ]
        return tuple(entries)

    def _ask(self, interface: str, address: str) -> list[str]:
        """Return the MAC addresses that answer ARP for an address on an interface."""
        sender = self._resolved.uplink_address(interface) or NO_ADDRESS
        timeout = min(ARP_TIMEOUT, self._timeout)
        try:
            answers = self._host.arp_request(interface, address, sender=sender, tries=TRIES, timeout=timeout)
        except InterfaceNotUp:
            return []
        return [answer.mac for answer in answers]

    def _silent_of(self, answered: Mapping[str, list[str]]) -> tuple[str, ...]:
        host = self._resolved.snapshot.host
        return tuple(
            name
            for name, macs in answered.items()
            if not macs and (link := host.link(name)) is not None and link.carrier
        )


def _entry(interface: str, address: str, mac: str | None) -> Neighbour:
    """Return the neighbour entry of an answer; without a MAC address there was none."""
    state = "FAILED" if mac is None else "REACHABLE"
    return Neighbour(interface=interface, family=4, address=address, mac=mac, state=state)
