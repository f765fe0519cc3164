"""The cause that a new start of the agent's container shows: Docker gives the default route to another network."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from viacheck.analysis.agent_network import OtherDefault, intended_docker_network, intended_link, other_default
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.agent_network import prefer_intended
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.disruption import CHECK_OF
from viacheck.diagnosis.remedy import NO_REMEDY
from viacheck.model.measurements import DisruptionResult, Measurements
from viacheck.model.route import Route


def default_moved(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the agent has its default route by another of its networks once its container was started again."""
    wanted, link = intended_docker_network(resolved), intended_link(resolved)
    if resolved.intent.agent.container is None or wanted is None or link is None or other_default(resolved) is not None:
        return
    moved: list[tuple[DisruptionResult, Route, str]] = []
    for event in CHECK_OF:
        result = measurements.disruptions.get(event)
        route = result.agent_default if result is not None else None
        network = _network_of(resolved, route) if route is not None else None
        if result is not None and route is not None and network not in (None, wanted):
            moved.append((result, route, str(network)))
    if not moved:
        return
    result, route, network = moved[0]
    by, gateway = route.nexthops[0].interface or "", route.nexthops[0].gateway
    remedy, decision = prefer_intended(resolved, OtherDefault(by, network, route, link), wanted)
    checks = [CHECK_OF[each.event] for each, _route, _network in moved]
    yield Cause(
        "DEFAULT_BY_OTHER_NETWORK", checks[0],
        f"after {result.title} the agent's default route is by {gateway} on Docker's network {network}, and before it "
        f"by {link.name} on {wanted}: the route was set by hand, and Docker chooses it again at each start",
        remedy if decision is None else NO_REMEDY, frozenset(checks[1:]) - {checks[0]}, decision=decision,
    )  # fmt: skip


def _network_of(resolved: ResolvedIntent, route: Route) -> str | None:
    """Return the agent's Docker network whose pool has a route's gateway."""
    engine, container = resolved.snapshot.engine, resolved.snapshot.container
    if engine is None or container is None or not route.nexthops or route.nexthops[0].gateway is None:
        return None
    gateway = ip_address(route.nexthops[0].gateway)
    for attachment in container.attachments:
        network = engine.network(attachment.network)
        if network is not None and any(gateway in ip_network(pool.subnet) for pool in network.pools):
            return network.name
    return None
