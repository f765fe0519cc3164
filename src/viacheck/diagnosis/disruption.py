"""Causes that only an event brings to light: what it took away and nothing brought back, what it added, what leaked.

Each is told by the check of the first event that shows it, and explains those of the other events that show it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from viacheck.analysis.agent_rules import egress_without_uplink
from viacheck.analysis.disruption_text import leak_text
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import Cause, command
from viacheck.model.config_entry import WrittenRoute
from viacheck.model.iproute_text import route_command
from viacheck.model.measurements import DisruptionResult, FlowKind, Measurements
from viacheck.model.result import StateEvidence
from viacheck.model.snapshot import Route
from viacheck.persistence import dhclient_hook
from viacheck.persistence.assess import assess_persistence, must_persist
from viacheck.persistence.config_writer import removed

CHECK_OF = {
    "link-flap": "FLAP-01",
    "carrier-loss": "FLAP-02",
    "ifupdown": "FLAP-03",
    "container-restart": "FLAP-04",
    "engine-restart": "FLAP-05",
    "dhcp-renew": "FLAP-07",
    "address-change": "FLAP-07",
    "reboot": "FLAP-08",
    "networkd-restart": "FLAP-09",
    "device-change": "FLAP-10",
    "rename": "FLAP-10",
}
"""By event, the check that makes it happen."""
OF_LEASE = ("dhcp-renew", "address-change")
LEAK_CHECK = "FLAP-06"


def _showing(measurements: Measurements, shows: Callable[[DisruptionResult], object]) -> list[DisruptionResult]:
    """The trials that show something, in the order of their checks."""
    return [
        disruption_result
        for event in CHECK_OF
        if (disruption_result := measurements.disruptions.get(event)) is not None and shows(disruption_result)
    ]


def _checks(disruptions: list[DisruptionResult]) -> tuple[str, frozenset[str]]:
    """The check that tells, and those that point there."""
    first, *others = (CHECK_OF[disruption_result.event] for disruption_result in disruptions)
    return first, frozenset(others) - {first}


def lease_not_renewed(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Nobody asks the DHCP server again."""
    found = _showing(
        measurements, lambda disruption_result: disruption_result.failure and disruption_result.event in OF_LEASE
    )
    if not found:
        return
    reported_by, others = _checks(found)
    uplink = resolved.uplink
    dhclient = dhclient_hook.runs_here(resolved)
    yield Cause(
        "LEASE_WITHOUT_CLIENT", reported_by,
        f"{found[0].failure}: no DHCP client is at work for {uplink}, whose address and routes go when the lease ends",
        remedy=(command("ifdown", uplink), command("ifup", uplink)) if dhclient else (),
        undo=(f"kill $(cat {command(f'/run/dhclient.{uplink}.pid')})",) if dhclient else (),
        explains=others,
    )  # fmt: skip


def agent_did_not_come_back(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """After a restart the agent's container does not run."""
    found = _showing(
        measurements, lambda disruption_result: disruption_result.failure and disruption_result.event not in OF_LEASE
    )
    name = resolved.intent.agent.container
    if not found or name is None:
        return
    reported_by, others = _checks(found)
    engine = resolved.snapshot.engine
    policy = engine.container.restart_policy if engine is not None and engine.container is not None else ""
    mends = policy == "no" and [disruption_result.event for disruption_result in found] == ["engine-restart"]
    why = ": its restart policy is 'no', so nothing starts it" if mends else ""
    yield Cause(
        "AGENT_NOT_RUNNING", reported_by, f"after {found[0].title} the agent does not run again{why}; {found[0].failure}",
        remedy=(command("docker", "update", "--restart", "unless-stopped", name),) if mends else (),
        undo=(command("docker", "update", "--restart", policy, name),) if mends else (),
        explains=others,
    )  # fmt: skip


def commands_fail_when_repeated(_situation: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """What the uplink's manager runs succeeds once and then no more."""
    found = _showing(measurements, lambda disruption_result: disruption_result.failed_commands)
    if not found:
        return
    reported_by, others = _checks(found)
    first = found[0].failed_commands[0]
    said = " / ".join(line.strip() for line in first.stderr.splitlines() if line.strip())
    yield Cause(
        "NOT_IDEMPOTENT", reported_by,
        f"'{first.command}' fails when it is repeated, and what stands behind the line that failed is not done: {said}",
        explains=others, evidence=(first,),
    )  # fmt: skip


def rules_accumulate(_situation: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """An event leaves rules that were not there before."""
    found = _showing(measurements, lambda disruption_result: disruption_result.rules_added)
    if not found:
        return
    reported_by, others = _checks(found)
    disruption_result = found[0]
    rules = disruption_result.rules_added
    counts = ", ".join(str(len(state.rules)) for state in disruption_result.states if _after_up(state.moment))
    yield Cause(
        "RULES_ACCUMULATE", reported_by,
        f"{disruption_result.title} leaves {len(rules)} more rules ({counts} one after the other): each time a rule is added and "
        f"none is deleted; '{rules[0]}' is one of them",
        explains=others, evidence=(before_and_after(disruption_result),),
    )  # fmt: skip


def _after_up(moment: str) -> bool:
    return moment == "before" or moment.startswith("ifup")


def rule_lost(_situation: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """A rule is gone after an event."""
    found = _showing(measurements, lambda disruption_result: disruption_result.rules_lost)
    if not found:
        return
    reported_by, others = _checks(found)
    yield Cause(
        "RULE_LOST", reported_by,
        f"after {found[0].title} the rule '{found[0].rules_lost[0]}' is gone, and nothing brings it back",
        explains=others, evidence=(before_and_after(found[0]),),
    )  # fmt: skip


def router_not_followed(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """The lease names another router, and a route leads to the old one."""
    found = _showing(
        measurements, lambda disruption_result: disruption_result.stale_routes and not disruption_result.failure
    )
    if not found:
        return
    reported_by, others = _checks(found)
    disruption_result = found[0]
    assert disruption_result.moved_router is not None
    routes = "'; '".join(str(route) for route in disruption_result.stale_routes)
    why = (
        "the agent's DHCP client leaves the route as it is"
        if resolved.bridged
        else "a DHCP client's own script sets the main table at most, and Debian's not even that at a renewal"
    )
    remedy, undo = _lease_hook(resolved, dhclient_hook.follow_router)
    yield Cause(
        "TABLE_WRONG_GATEWAY", reported_by,
        f"after {disruption_result.title} '{routes}' is still there, although the lease names {disruption_result.moved_router[1]}: {why}",
        remedy=remedy, undo=undo, explains=others, evidence=(before_and_after(disruption_result),),
    )  # fmt: skip


def _lease_hook(
    resolved: ResolvedIntent, hook: Callable[[ResolvedIntent], tuple[str, str]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Remedy and undo by a hook of the uplink's DHCP client, where it has one that is known."""
    if resolved.bridged or not dhclient_hook.runs_here(resolved):
        return (), ()
    remedy, undo = hook(resolved)
    return (remedy,), (undo,)


def route_not_restored(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """The rules are there, a route is not."""
    found = _showing(
        measurements, lambda disruption_result: disruption_result.routes_lost and not disruption_result.rules_lost
    )
    if not found:
        return
    reported_by, others = _checks(found)
    disruption_result = found[0]
    gone = "'; '".join(str(route) for route in disruption_result.routes_lost)
    by_object = [route for route in disruption_result.routes_lost if route.nexthop_id is not None]
    if disruption_result.event in OF_LEASE:
        why = "the kernel drops a link's routes with its last address, and keeps the rules"
        remedy, undo = _lease_hook(resolved, dhclient_hook.follow_router)
    elif disruption_result.event == "carrier-loss" and by_object:
        why = f"the kernel drops nexthop object {by_object[0].nexthop_id} with the carrier, and what goes by it"
        remedy, undo = _without_nexthop_objects(by_object)
    else:
        why = "the kernel drops a link's routes when that goes down, and keeps the rules"
        remedy, undo = (), ()
    yield Cause(
        "ROUTE_NOT_RESTORED", reported_by, f"after {disruption_result.title} '{gone}' is gone, and nothing brings it back: {why}",
        remedy=remedy, undo=undo, explains=others, evidence=(before_and_after(disruption_result),),
    )  # fmt: skip


def _without_nexthop_objects(routes: list[Route]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return remedy and undo by routes that name gateway and link themselves: these stay when the carrier goes."""
    return (
        tuple(route_command("replace", replace(route, nexthop_id=None)) for route in routes),
        tuple(route_command("replace", route) for route in routes),
    )


def source_kept(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Packets leave by the uplink with a source that is none of its addresses any more."""
    found = _showing(measurements, _keeps_source)
    if not found:
        return
    reported_by, others = _checks(found)
    remedy, undo = _lease_hook(resolved, dhclient_hook.forget_flows)
    if not remedy and resolved.agent_source is not None:
        remedy = (command("conntrack", "-D", "-s", resolved.agent_source),)
    yield Cause(
        "SOURCE_NOT_UPLINK", reported_by,
        f"after {found[0].title} connection tracking still translates to a source that {resolved.uplink} no longer "
        "has: a flow keeps the translation that it began with",
        remedy=remedy, undo=undo, explains=others,
    )  # fmt: skip


def _keeps_source(disruption_result: DisruptionResult) -> bool:
    return any(flow_result.kind is FlowKind.KEEPS_WRONG_SOURCE for flow_result in disruption_result.flow_results)


def leaks_while_down(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Packets leave by another uplink although the routing alone would not let them."""
    found = _showing(measurements, lambda disruption_result: disruption_result.leaked)
    if not found or egress_without_uplink(resolved) is not None:
        return
    written = _ways_when_down(resolved)
    mends = [removed(one.place.path, one.place.line, line) for one, line in written]
    who = ", ".join(f"{one.place} ('{line.strip()}')" for one, line in written) or "something that acts on the event"
    yield Cause(
        "LEAK_WHILE_DOWN", LEAK_CHECK,
        f"during {found[0].title} {leak_text(found[0])}: the routing as it stands fails closed, so {who} gives the "
        "packets another way",
        remedy=tuple(remedy for remedy, _undo in mends), undo=tuple(undo for _remedy, undo in reversed(mends)),
        explains=frozenset(CHECK_OF[disruption_result.event] for disruption_result in found), evidence=(before_and_after(found[0]),),
    )  # fmt: skip


def _ways_when_down(resolved: ResolvedIntent) -> list[tuple[WrittenRoute, str]]:
    """Routes of the agent's table by other uplinks that are written down for when an interface goes, with their lines.

    The later ones of a file first: the earlier ones keep their numbers when a line is taken out.
    """
    if not must_persist(resolved.intent):
        return []
    found = []
    for one in (route for written in assess_persistence(resolved).written.values() for route in written.routes):
        file = resolved.snapshot.file(one.place.path)
        line = file.text.split("\n")[one.place.line - 1] if file is not None else ""
        elsewhere = any(hop.interface not in (None, resolved.uplink) for hop in one.route.nexthops)
        # A line that goes on in the next, or of which parts are not in the snapshot, is for an editor.
        by_line = one.place.line > 1 and not line.endswith("\\") and "…" not in line
        if one.phase in ("down", "post-down") and one.route.table == resolved.table and elsewhere and by_line:
            found.append((one, line))
    return sorted(found, key=lambda each: (each[0].place.path, -each[0].place.line))


def before_and_after(disruption_result: DisruptionResult) -> StateEvidence:
    """What an event took away and what it added, as evidence."""
    before, after = disruption_result.states[0].lines, disruption_result.states[-1].lines
    gone = [f"- {line}" for line in before if line not in after]
    more = [f"+ {line}" for line in dict.fromkeys(after) if after.count(line) > before.count(line)]
    return StateEvidence(title=f"what is not as before {disruption_result.title}", lines=gone + more or ["nothing"])
