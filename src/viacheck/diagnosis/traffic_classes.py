"""Causes by traffic class: a rule or route that sends part of the agent's packets by another uplink."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.agent_network import own_path
from viacheck.analysis.agent_rules import FIXED_PRIORITY, free_priority
from viacheck.analysis.class_selectors import PROTOCOL_NAMES
from viacheck.analysis.classes import (
    CLASSES_NAMED,
    ClassPartition,
    ClassVerdict,
    TrafficClass,
    class_partition,
    classes_text,
)
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.answer_route import correcting_answers
from viacheck.diagnosis.cause import EGRESS, Cause
from viacheck.diagnosis.remedy import NO_REMEDY, Remedy, command
from viacheck.model.measurements import Measurements

_BEFORE_THE_DRAW = (
    "except the agent's packets from that rule of the packet filter, by a condition on their source; or let a routing "
    "rule for their source decide before those for marks"
)
_FOR_EVERY_PACKET = (
    "set the mark for every packet, in the mangle table and whatever the state; or save it in the flow and restore it "
    "before routing (CONNMARK --save-mark, --restore-mark; nft: ct mark)"
)
MOST_PORTS = 32
"""A larger range of ports is not written as lines of the site file."""


def depends_on_flow(resolved: ResolvedIntent, _measurements: Measurements) -> Iterator[Cause]:
    """Find a multipath route or a random mark that spreads the agent's flows over several interfaces."""
    astray = class_partition(resolved).astray()
    depending = [traffic_class for traffic_class in astray if traffic_class.verdict is ClassVerdict.DEPENDS]
    if not depending:
        return
    path = depending[0].path
    yield Cause(
        "EGRESS_DEPENDS_ON_FLOW", "EGRESS-08",
        f"depending on the {'packet' if path.depends_on_packet else 'flow'}, "
        f"{classes_text(depending, CLASSES_NAMED)} leave by {path.egress_text}: {path.reason}",
        also_affects=frozenset({"EGRESS-01", "EGRESS-04", "EGRESS-05", "ROUTE-05", "ROUTE-07"}),
        decision=_BEFORE_THE_DRAW if path.random_rules else _FOR_EVERY_PACKET if path.depends_on_packet else
        f"set a route by {resolved.uplink} alone, in a table that a rule selects for the agent; or drop the other "
        "next hop, which moves the host's own packets as well",
    )  # fmt: skip


def not_the_same_for_all(resolved: ResolvedIntent, _measurements: Measurements) -> Iterator[Cause]:
    """Find a random choice, or a mark of first packets alone, that decides where the agent's probes leave, or whether.

    A multipath route is found later (``depends_on_flow``): the rule that leads to its table comes first.
    """
    paths = [own_path(resolved, protocol) for protocol in resolved.intent.probe.protocols]
    varying = (path for path in paths if path.depends_on_packet or (path.random_rules and path.depends_on_flow))
    path = next(varying, None)
    if path is None:
        return
    if len(path.all_egress) == 1 and not path.depends_on_packet:
        yield Cause(
            "FORWARD_DROPPED", "EGRESS-01",
            f"this host drops a part of the agent's packets: {path.reason}",
            also_affects=EGRESS | {"HOST-04"}, decision="remove that rule, or except the agent's packets from it",
        )  # fmt: skip
        return
    yield Cause(
        "EGRESS_DEPENDS_ON_FLOW", "EGRESS-08",
        f"depending on the {'packet' if path.depends_on_packet else 'flow'}, the agent's packets leave by "
        f"{path.egress_text}: {path.reason}",
        _rule_for_all_draws(resolved), EGRESS | {"ROUTE-02", "ROUTE-03", "ROUTE-05", "ROUTE-06", "ROUTE-07"},
        decision=_FOR_EVERY_PACKET if path.depends_on_packet else _BEFORE_THE_DRAW,
    )  # fmt: skip


def _rule_for_all_draws(resolved: ResolvedIntent) -> Remedy:
    """Return a rule for the agent's subnet before every rule for a mark; empty for an agent without a table."""
    marked = [rule.priority for rule in resolved.snapshot.host.rules_of(4) if rule.fwmark is not None]
    if not resolved.intent.policy_routed or resolved.agent_subnet is None or min(marked, default=0) < 2:
        return NO_REMEDY
    priority = free_priority(resolved, min(FIXED_PRIORITY, min(marked) - 1))
    selector = ("priority", priority, "from", resolved.agent_subnet, "lookup", resolved.table)
    remedy = Remedy((command("ip", "rule", "add", *selector),), (command("ip", "rule", "del", *selector),))
    return correcting_answers(resolved, remedy)


def bypasses_uplink(resolved: ResolvedIntent, _measurements: Measurements) -> Iterator[Cause]:
    """Find a rule or route that sends part of the agent's traffic by another uplink than intended."""
    partition = class_partition(resolved)
    astray = partition.astray()
    bypassing = [traffic_class for traffic_class in astray if traffic_class.verdict is ClassVerdict.ELSEWHERE]
    if not bypassing:
        return
    by_way: dict[tuple[str, str, str], list[TrafficClass]] = {}
    for traffic_class in bypassing:
        path = traffic_class.path
        by_way.setdefault((path.reason, path.egress_text, traffic_class.intended), []).append(traffic_class)
    ways = [
        f"{classes_text(classes, CLASSES_NAMED)}: by {interfaces} instead of {intended}, because of {reason}"
        for (reason, interfaces, intended), classes in by_way.items()
    ]
    more = f"; and more, by {len(ways) - CLASSES_NAMED} other rules or routes" if len(ways) > CLASSES_NAMED else ""
    exceptions = dict.fromkeys(
        _exception(traffic_class, traffic_class.path.egress_text, any_protocol=_leaves_whole(partition, traffic_class))
        for traffic_class in bypassing
    )
    yield Cause(
        "CLASS_BYPASSES_UPLINK", "EGRESS-08",
        "; ".join(ways[:CLASSES_NAMED]) + more,
        site_file=tuple(line for exception in list(exceptions)[:CLASSES_NAMED] for line in exception),
        decision="remove that rule or route if it is a mistake; if it is meant, allow it in the site file"
        if len(ways) == 1
        else "remove the rules and routes that are a mistake; allow those that are meant in the site file",
    )  # fmt: skip


def _leaves_whole(partition: ClassPartition, first: TrafficClass) -> bool:
    """Return whether all that leaves for the destinations of a class leaves as that class does."""
    leaving = [other for other in partition.classes if other.prefix == first.prefix and other.path.egress]
    return all((other.verdict, other.path.egress) == (first.verdict, first.path.egress) for other in leaving)


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
