"""Causes by traffic class: a rule or route that sends part of the agent's packets by another uplink."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.classes import (
    CLASSES_NAMED,
    PROTOCOL_NAMES,
    ClassVerdict,
    TrafficClass,
    class_partition,
    classes_text,
)
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import Cause
from viacheck.model.measurements import Measurements

MOST_PORTS = 32
"""A larger range of ports is not written as lines of the site file."""


def depends_on_flow(resolved: ResolvedIntent, _measurements: Measurements) -> Iterator[Cause]:
    """Find a multipath route that spreads the agent's flows over several interfaces."""
    astray = class_partition(resolved).astray()
    depending = [traffic_class for traffic_class in astray if traffic_class.verdict is ClassVerdict.DEPENDS]
    if not depending:
        return
    interfaces = " or ".join(sorted(depending[0].path.egress))
    yield Cause(
        "EGRESS_DEPENDS_ON_FLOW", "EGRESS-08",
        f"depending on the flow, {classes_text(depending, CLASSES_NAMED)} leave by {interfaces}: "
        f"{depending[0].path.reason}",
        also_affects=frozenset({"EGRESS-01", "EGRESS-04", "EGRESS-05", "ROUTE-05", "ROUTE-07"}),
        decision=f"set a route by {resolved.uplink} alone, in a table that a rule selects for the agent; or drop the "
        "other next hop, which moves the host's own packets as well",
    )  # fmt: skip


def bypasses_uplink(resolved: ResolvedIntent, _measurements: Measurements) -> Iterator[Cause]:
    """Find a rule or route that sends part of the agent's traffic by another uplink than intended."""
    partition = class_partition(resolved)
    astray = partition.astray()
    bypassing = [traffic_class for traffic_class in astray if traffic_class.verdict is ClassVerdict.ELSEWHERE]
    if not bypassing:
        return
    first = bypassing[0]
    interfaces = ", ".join(sorted(first.path.egress)) or first.path.end.value
    leaving = [other for other in partition.classes if other.prefix == first.prefix and other.path.egress]
    whole = all((other.verdict, other.path.egress) == (first.verdict, first.path.egress) for other in leaving)
    yield Cause(
        "CLASS_BYPASSES_UPLINK", "EGRESS-08",
        f"{classes_text(bypassing, CLASSES_NAMED)}: by {interfaces} instead of {first.intended}, because of "
        f"{first.path.reason}",
        site_file=_exception(first, interfaces, any_protocol=whole),
        decision="remove that rule or route if it is a mistake; if it is meant, allow it in the site file",
    )  # fmt: skip


def _exception(traffic_class: TrafficClass, uplink: str, *, any_protocol: bool) -> tuple[str, ...]:
    """Return the exception of the intent that allows a class, as lines of the site file; empty for very many ports.

    ``any_protocol``: whatever leaves for the same destinations leaves as this class does.
    """
    selector, values = traffic_class.selector, []
    if len(selector.ports) > MOST_PORTS:
        return ()
    if traffic_class.prefix.prefixlen:
        values.append(f'to = "{traffic_class.prefix}"')
    of_protocol = selector.dport is not None or not (any_protocol or traffic_class.prefix.prefixlen)
    if selector.protocol is not None and of_protocol:
        name = PROTOCOL_NAMES.get(selector.protocol, str(selector.protocol))
        values.append(f'protocol = "{name}"')
    if selector.dport is not None:
        values.append(f"ports = [{', '.join(map(str, selector.ports))}]")
    return ("[[egress.except]]", *values, f'uplink = "{uplink}"')
