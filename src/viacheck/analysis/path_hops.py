"""The hops of a path, from what routing and the packet filter decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from viacheck.analysis.routing.decision import Decision
from viacheck.model.path import HopStage, PathHop, Place


def nat_text(hops: Sequence[PathHop]) -> str:
    """Name the rule that changes the destination, where there is one, before a rule and a route for the new one."""
    changes = [change for change in hops if change.stage == "nat"]
    return "".join(f"'{change.decides}' ({change.model}), " for change in changes)


def hop(place: Place, interface: str | None, stage: HopStage, decides: str | None, model: str) -> PathHop:
    """Return one decision on the path; ``model`` is what the model predicts."""
    return PathHop(place=place, interface=interface, stage=stage, decides=decides, model=model)


def route_hop(place: Place, decision: Decision) -> PathHop:
    """Return the hop of a look-up: what a rule and a route decide."""
    model = str(decision) if decision.certain else "unknown"
    return hop(place, decision.interface, "route", "; ".join(deciders(decision)) or None, model)


def deciders(decision: Decision) -> Iterator[str]:
    """Yield the rule and the route that decide, as ip prints them."""
    if decision.rule is not None:
        yield f"rule {decision.rule}"
    if decision.route is not None:
        yield f"route {decision.route}"
