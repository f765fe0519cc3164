"""Which gateway of an uplink answers: the one of the site file, or the one that the host's routes use.

ARP requests of this run decide. Where none were sent (a bundle, a run without privileges) the host's neighbour table
decides, as far as it holds an entry.
"""

from __future__ import annotations

from dataclasses import dataclass

from viacheck.analysis.default_routes import other_routers
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.measurements import TrafficMeasurements

_ANSWERED = frozenset({"REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT"})
_SILENT = frozenset({"FAILED", "INCOMPLETE"})
"""States of a neighbour entry (ip-neighbour(8))."""


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """What is known of the gateway of one uplink."""

    answers: bool | None
    """Whether the site file's gateway answers ARP; None when it was not asked, or cannot be."""
    router_in_use: str | None
    """Another gateway, which the host's default routes by this uplink use and which does answer."""

    @property
    def site_file_is_wrong(self) -> bool:
        """Whether the gateway in use answers, and the site file's is not known to."""
        return self.router_in_use is not None and not self.answers


def gateway_facts(resolved: ResolvedIntent, traffic: TrafficMeasurements, uplink: str) -> GatewayFacts:
    """Return what this run, or else the host's neighbour table, shows of an uplink's gateway."""
    gateway = resolved.arp_gateways.get(uplink)
    if gateway is None:
        return GatewayFacts(None, None)
    if uplink in traffic.gateway_macs:
        answered = True if traffic.gateway_macs[uplink] else False if uplink in traffic.silent_gateways else None
        return GatewayFacts(answered, traffic.routers_in_use.get(uplink))
    states = {
        neighbour.address: neighbour.state
        for neighbour in resolved.snapshot.known_neighbours
        if neighbour.interface == uplink and neighbour.family == 4
    }
    state = states.get(gateway)
    answers = True if state in _ANSWERED else False if state in _SILENT else None
    routers = [router for router in other_routers(resolved, uplink) if states.get(router) in _ANSWERED]
    return GatewayFacts(answers, routers[0] if routers and not answers else None)
