"""Causes that only an event shows: what it removed and nothing restored, what it added, what leaked.

The check of the first event that shows a cause reports it; the cause also affects the checks of the other events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from viacheck.analysis.agent_rules import egress_without_uplink
from viacheck.analysis.disruption_text import leak_text
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.remedy import (
    NO_REMEDY,
    CommandOutput,
    Remedy,
    command,
    remedy_of,
)
from viacheck.model.check_evidence import StateEvidence
from viacheck.model.config_entry import WrittenRoute
from viacheck.model.intent import FIREWALL_RELOADS, SIDE_EVENTS
from viacheck.model.measurements import DisruptionResult, FlowKind, Measurements
from viacheck.model.route import Route, route_argv
from viacheck.parsers.comments import LEFT_OUT
from viacheck.persistence import dhclient_hook
from viacheck.persistence.assess import assess_persistence, must_persist
from viacheck.persistence.file_edit import ReversibleEdit, delete_line, in_diffs

CHECK_OF: dict[str, str] = {
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
    "networkmanager-restart": "FLAP-11",
    "netplan-apply": "FLAP-11",
    **dict.fromkeys(SIDE_EVENTS, "FLAP-12"),
}
"""By event, the check that carries it out."""
REBOOT = "reboot"
LEASE_EVENTS = ("dhcp-renew", "address-change")
UPLINK_EVENTS = ("link-flap", "carrier-loss", "device-change", "rename")
"""The events after which a network manager that reacts to the link sets its rules and routes again."""
LEAK_CHECK = "FLAP-06"


def _disruptions(measurements: Measurements, condition: Callable[[DisruptionResult], object]) -> list[DisruptionResult]:
    """Return the disruptions that meet a condition, in the order of their checks."""
    in_order = (measurements.disruptions[event] for event in CHECK_OF if event in measurements.disruptions)
    return [result for result in in_order if condition(result)]


def _checks(results: Sequence[DisruptionResult]) -> tuple[str, frozenset[str]]:
    """Return the check that reports a cause, and the checks that it also affects."""
    first, *others = (CHECK_OF[result.event] for result in results)
    return first, frozenset(others) - {first}


def lease_not_renewed(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that no client asks the DHCP server again."""
    failed = _disruptions(measurements, lambda result: result.failure and result.event in LEASE_EVENTS)
    if not failed:
        return
    reported_by, also_affects = _checks(failed)
    uplink, remedy = resolved.uplink, NO_REMEDY
    if dhclient_hook.runs_here(resolved):
        pid = CommandOutput(("cat", f"/run/dhclient.{uplink}.pid"))
        remedy = Remedy((command("ifdown", uplink), command("ifup", uplink)), (command("kill", pid),))
    yield Cause(
        "LEASE_WITHOUT_CLIENT", reported_by,
        f"{failed[0].failure}: no DHCP client renews it, so that the address and routes of {uplink} expire with it",
        remedy, also_affects,
    )  # fmt: skip


def agent_did_not_come_back(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the agent's container does not run after a restart."""
    failed = _disruptions(
        measurements, lambda result: result.failure and not result.host_away and result.event not in LEASE_EVENTS
    )
    container = resolved.intent.agent.container
    if not failed or container is None:
        return
    reported_by, also_affects = _checks(failed)
    engine = resolved.snapshot.engine
    policy = engine.container.restart_policy if engine is not None and engine.container is not None else ""
    why, remedy = "", NO_REMEDY
    if policy == "no" and [result.event for result in failed] == ["engine-restart"]:
        why = ": its restart policy is 'no', so nothing starts it"
        update = ("docker", "update", "--restart")
        remedy = Remedy((command(*update, "unless-stopped", container),), (command(*update, policy, container),))
    yield Cause(
        "AGENT_NOT_RUNNING", reported_by,
        f"after {failed[0].title} the agent does not run again{why}; {failed[0].failure}", remedy, also_affects,
    )  # fmt: skip


def commands_fail_when_repeated(_resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that a command of the uplink's manager succeeds once and then fails."""
    failed = _disruptions(measurements, lambda result: result.failed_commands)
    if not failed:
        return
    reported_by, also_affects = _checks(failed)
    first = failed[0].failed_commands[0]
    stderr = " / ".join(line.strip() for line in first.stderr.splitlines() if line.strip())
    yield Cause(
        "NOT_IDEMPOTENT", reported_by,
        f"'{first.command}' fails when it is repeated, and the commands after the failing line do not run: {stderr}",
        also_affects=also_affects, evidence=(first,),
    )  # fmt: skip


def rules_accumulate(_resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that an event leaves rules that did not exist before."""
    growing = _disruptions(measurements, lambda result: result.rules_added)
    if not growing:
        return
    reported_by, also_affects = _checks(growing)
    first = growing[0]
    counts = [len(state.rules) for state in first.states]
    growth = [count for number, count in enumerate(counts) if count > max(counts[:number], default=-1)]
    yield Cause(
        "RULES_ACCUMULATE", reported_by,
        f"{first.title} leaves {len(first.rules_added)} more rules ({', '.join(map(str, growth))} in sequence): each "
        f"time a command adds a rule and none deletes it, for example '{first.rules_added[0]}'",
        also_affects=also_affects, evidence=(state_changes(first),),
    )  # fmt: skip


def rule_lost(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that a rule is missing after an event."""
    losing = _disruptions(measurements, lambda result: result.rules_lost)
    if not losing:
        return
    reported_by, also_affects = _checks(losing)
    first = losing[0]
    yield Cause(
        "RULE_LOST", reported_by,
        f"after {first.title} the rule '{first.rules_lost[0]}' is missing, and nothing restores it",
        also_affects=also_affects, evidence=(state_changes(first),), decision=_who_restores(resolved, first),
    )  # fmt: skip


def _who_restores(resolved: ResolvedIntent, result: DisruptionResult) -> str | None:
    """Say what a person must choose where no command restores what an event of the uplink, or of others, removes."""
    if result.event in SIDE_EVENTS and result.rules_lost:
        return (
            "find the unit, hook or script that acts on this event and removes the rule (a watch of an engine's events "
            "must name the agent's container), and take that line out"
        )
    if resolved.bridged or result.event not in UPLINK_EVENTS:
        return None
    return (
        f"what sets rule and route again when {resolved.uplink} comes up: their lines in the files of a network "
        "manager that reacts to the link (systemd-networkd, NetworkManager, ifupdown with ifplugd); or accept the "
        f"loss, and leave {result.event} out of egress.survives"
    )


def router_not_followed(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the lease names another router and that a route still uses the old one."""
    stale = _disruptions(measurements, lambda result: result.stale_routes and not result.failure)
    if not stale:
        return
    reported_by, also_affects = _checks(stale)
    first = stale[0]
    assert first.moved_router is not None
    why = (
        "the agent's DHCP client does not change the route"
        if resolved.bridged
        else "a DHCP client's own script sets the main table only, and Debian's script not even that at a renewal"
    )
    yield Cause(
        "TABLE_WRONG_GATEWAY", reported_by,
        f"after {first.title} {_quoted(first.stale_routes)} still exists, although the lease names "
        f"{first.moved_router[1]}: {why}",
        _lease_hook(resolved, dhclient_hook.follow_router), also_affects, (state_changes(first),),
    )  # fmt: skip


def _lease_hook(resolved: ResolvedIntent, hook: Callable[[ResolvedIntent], ReversibleEdit]) -> Remedy:
    """Return a hook of the uplink's DHCP client as the remedy, where the client is known."""
    if resolved.bridged or not dhclient_hook.runs_here(resolved):
        return NO_REMEDY
    return remedy_of([hook(resolved)])


def route_not_restored(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that the rules exist after an event and that a route is missing."""
    losing = _disruptions(measurements, lambda result: result.routes_lost and not result.rules_lost)
    if not losing:
        return
    reported_by, also_affects = _checks(losing)
    first = losing[0]
    by_object = [route for route in first.routes_lost if route.nexthop_id is not None]
    why, remedy = "the kernel removes the routes of a link that goes down, and keeps the rules", NO_REMEDY
    if first.event in LEASE_EVENTS:
        why = "the kernel removes a link's routes with its last address, and keeps the rules"
        remedy = _lease_hook(resolved, dhclient_hook.follow_router)
    elif first.event == "carrier-loss" and by_object:
        why = f"the kernel removes nexthop object {by_object[0].nexthop_id} with the carrier, and every route by it"
        remedy = _without_nexthop_objects(by_object)
    yield Cause(
        "ROUTE_NOT_RESTORED", reported_by,
        f"after {first.title} {_quoted(first.routes_lost)} is missing, and nothing restores it: {why}",
        remedy, also_affects, (state_changes(first),),
        decision=_who_restores(resolved, first) if not remedy else None,
    )  # fmt: skip


def _quoted(routes: Sequence[Route]) -> str:
    return ", ".join(f"'{route}'" for route in routes)


def _without_nexthop_objects(routes: Sequence[Route]) -> Remedy:
    """Return the same routes with gateway and interface of their own: the kernel keeps them without carrier."""
    return Remedy(
        tuple(command(*route_argv("replace", replace(route, nexthop_id=None))) for route in routes),
        tuple(command(*route_argv("replace", route)) for route in routes),
    )


def source_kept(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that packets leave by the uplink with a source that is no longer one of its addresses."""
    keeping = _disruptions(measurements, lambda result: keeps_source(result) and result.event not in FIREWALL_RELOADS)
    if not keeping:
        return
    reported_by, also_affects = _checks(keeping)
    remedy = _lease_hook(resolved, dhclient_hook.forget_flows)
    if not remedy and resolved.agent_source is not None:
        remedy = Remedy((command("conntrack", "-D", "-s", resolved.agent_source),))
    yield Cause(
        "SOURCE_NOT_UPLINK", reported_by,
        f"after {keeping[0].title} connection tracking still translates to a source that {resolved.uplink} no longer "
        "has: a flow keeps its first translation",
        remedy, also_affects,
    )  # fmt: skip


def keeps_source(result: DisruptionResult) -> bool:
    """Return whether a flow goes on with a source that is not the uplink's."""
    return any(flow_result.kind is FlowKind.KEEPS_WRONG_SOURCE for flow_result in result.flow_results)


def leaks_while_down(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that packets leave by another uplink although the host's routing fails closed."""
    leaking = _disruptions(measurements, lambda result: result.leaked and result.event != REBOOT)
    if not leaking or egress_without_uplink(resolved) is not None:
        return
    first, routes = leaking[0], _routes_when_down(resolved)
    who = ", ".join(f"{route.place} ('{line.strip()}')" for route, line in routes) or "something that reacts to it"
    yield Cause(
        "LEAK_WHILE_DOWN", LEAK_CHECK,
        f"during {first.title} {leak_text(first)}: the host's routing fails closed, so {who} adds another route",
        remedy_of(
            in_diffs(resolved.snapshot, (delete_line(route.place.path, route.place.line) for route, _line in routes))
        ),
        frozenset(CHECK_OF[result.event] for result in leaking), (state_changes(first),),
    )  # fmt: skip


def leaks_at_boot(_resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Find that packets leave by another uplink during a reboot, after which the rules and routes are there."""
    for result in _disruptions(measurements, lambda result: result.event == REBOOT and result.leaked):
        if result.rules_lost or result.routes_lost:
            # The boot does not end with the leak, and the missing rule or route is the cause.
            return
        yield Cause(
            "LEAK_AT_BOOT", CHECK_OF[REBOOT],
            f"during {result.title} {leak_text(result)}: the agent runs while a default route is there and its rule is "
            "not",
            evidence=(state_changes(result),),
        )  # fmt: skip


def _routes_when_down(resolved: ResolvedIntent) -> list[tuple[WrittenRoute, str]]:
    """Return the configured routes of the agent's table by other uplinks that are set when an interface goes down.

    Each comes with its line, in the order of the lines.
    """
    if not must_persist(resolved.intent):
        return []
    routes = []
    for route in (route for config in assess_persistence(resolved).configs.values() for route in config.routes):
        file = resolved.snapshot.file(route.place.path)
        line = file.text.split("\n")[route.place.line - 1] if file is not None else ""
        elsewhere = any(hop.interface not in (None, resolved.uplink) for hop in route.route.nexthops)
        # Only an editor can delete a line that continues on the next, or that the snapshot holds in part.
        is_whole = not line.endswith("\\") and LEFT_OUT not in line
        if route.phase in ("down", "post-down") and route.route.table == resolved.table and elsewhere and is_whole:
            routes.append((route, line))
    return sorted(routes, key=lambda entry: (entry[0].place.path, entry[0].place.line))


def state_changes(result: DisruptionResult) -> StateEvidence:
    """Return the rules, routes and addresses that an event removed and added, as evidence."""
    before, after = result.states[0].lines, result.states[-1].lines
    removed = [f"- {line}" for line in before if line not in after]
    added = [f"+ {line}" for line in dict.fromkeys(after) if after.count(line) > before.count(line)]
    return StateEvidence(title=f"changes after {result.title}", lines=removed + added or ["nothing"])
