"""The causes in causal order: the deepest comes first, so that one cause is reported once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from viacheck.analysis.container_facts import engine_program
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis import (
    agent_default,
    agent_network,
    answer_route,
    default_exit,
    disruption,
    egress,
    engine_start,
    engine_zone,
    flushed_nat,
    foreign_rules,
    host,
    lost_on_host,
    macvlan,
    nat,
    persistence,
    pipework,
    pipework_reruns,
    routing,
    sources,
    traffic_classes,
    vpn_rules,
)
from viacheck.diagnosis.cause import Cause
from viacheck.diagnosis.missing_programs import naming_missing_programs
from viacheck.diagnosis.remedy import DOCKER, IPTABLES, IPTABLES_LEGACY, with_programs
from viacheck.diagnosis.remedy_effect import predicted
from viacheck.model.measurements import Measurements

Finder = Callable[[ResolvedIntent, Measurements], Iterator[Cause]]
DISRUPTION_FINDERS: tuple[Finder, ...] = (
    disruption.lease_not_renewed,
    engine_start.started_before_parent,
    disruption.agent_did_not_come_back,
    agent_default.default_moved,
    disruption.commands_fail_when_repeated,
    disruption.rules_accumulate,
    foreign_rules.purged_at_start,
    foreign_rules.purged_when_reconfigured,
    flushed_nat.nat_flushed,
    flushed_nat.runtime_only_lost,
    vpn_rules.removed_with_vpn,
    disruption.rule_lost,
    disruption.router_not_followed,
    disruption.route_not_restored,
    disruption.source_kept,
    disruption.leaks_while_down,
    disruption.leaks_at_boot,
)
"""The causes that only an event shows."""
NAT_FINDERS: tuple[Finder, ...] = (
    host.engine_or_agent_away,
    host.network_internal,
    host.uplink_unusable,
    agent_network.apart,
    agent_network.on_other_network,
    agent_network.target_on_host,
    agent_network.default_by_other_network,
    agent_network.no_route,
    nat.uplink_in_bridge,
    host.gateway_silent,
    default_exit.default_exit_wrong,
    default_exit.protocol_leaves_elsewhere,
    default_exit.exit_without_carrier,
    default_exit.exit_silent,
    host.subnet_overlaps,
    host.forwarding_off,
    egress.arp_unanswered,
    host.dropped_on_arrival,
    engine_zone.engine_without_zone,
    host.forward_dropped,
    egress.answers_to_wrong_uplink,
    traffic_classes.not_the_same_for_all,
    routing.rule_faulty,
    routing.rule_shadowed,
    routing.taken_by_rule,
    routing.table_not_in_site_file,
    default_exit.agent_without_table,
    routing.table_faulty,
    routing.table_name_faulty,
    traffic_classes.depends_on_flow,
    nat.source_nat_faulty,
    nat.target_redirected,
    egress.copied,
    answer_route.answers_misrouted,
    answer_route.answers_untracked,
    lost_on_host.ttl_expires,
    egress.reverse_path,
    egress.answers_elsewhere,
    egress.other_router,
    lost_on_host.filter_may_drop,
    egress.packets_lost,
    egress.mtu_trap,
    egress.dns_by_another_path,
    egress.ipv6_escapes,
    traffic_classes.bypasses_uplink,
    sources.source_missing,
    sources.source_astray,
    sources.source_unanswered,
    host.agent_unhealthy,
    routing.local_networks_lost,
    lost_on_host.own_address_silent,
    routing.fails_open,
    persistence.not_written_down,
    persistence.cannot_run_twice,
    *DISRUPTION_FINDERS,
)
BRIDGED_FINDERS: tuple[Finder, ...] = (
    macvlan.engine_cannot,
    macvlan.parent_in_bridge,
    host.engine_or_agent_away,
    agent_network.apart,
    macvlan.parent_down,
    host.uplink_unusable,
    agent_network.target_on_host,
    agent_network.on_other_network,
    macvlan.network_wrong,
    macvlan.not_attached,
    pipework.program_missing,
    pipework.not_applied,
    pipework.wrong_address,
    pipework.wrong_gateway,
    pipework.default_network,
    host.bridged_frames_dropped,
    agent_network.default_by_other_network,
    agent_network.no_route,
    host.gateway_silent,
    macvlan.single_mac,
    macvlan.upstream_drops,
    macvlan.address_conflict,
    macvlan.dhcp_collision,
    default_exit.default_exit_wrong,
    default_exit.protocol_leaves_elsewhere,
    default_exit.exit_without_carrier,
    default_exit.exit_silent,
    pipework.lease_without_client,
    pipework.second_run,
    egress.copied,
    egress.answers_elsewhere,
    egress.other_router,
    egress.packets_lost,
    egress.mtu_trap,
    agent_network.resolver_on_host,
    egress.dns_by_another_path,
    egress.ipv6_escapes,
    traffic_classes.bypasses_uplink,
    sources.source_missing,
    sources.source_astray,
    sources.source_unanswered,
    host.agent_unhealthy,
    pipework_reruns.not_persistent,
    pipework_reruns.boot_waits_for_engine,
    pipework_reruns.not_idempotent,
    *DISRUPTION_FINDERS,
)
"""A bridged agent's packets do not pass the host's routing, packet filter and NAT."""


def causes(resolved: ResolvedIntent, measurements: Measurements) -> list[Cause]:
    """Return every cause that the snapshot and the measurements show, the deepest first."""
    return list(_causes(resolved, measurements))


def diagnose(check: str, resolved: ResolvedIntent, measurements: Measurements) -> Cause | None:
    """Return the cause of a check's failure: the deepest one that this check reports, or that also affects it."""
    in_order = _causes(resolved, measurements)
    cause = next((cause for cause in in_order if _explains(cause, check)), None)
    if cause is None:
        return None
    return naming_missing_programs(predicted(cause, resolved, measurements.traffic), resolved.snapshot)


def _explains(cause: Cause, check: str) -> bool:
    """Whether a cause accounts for a check's failure: what moves the probes moves their traffic class as well."""
    affected = {cause.reported_by, *cause.also_affects}
    return check in affected or (check == "EGRESS-08" and "EGRESS-01" in affected)


def _causes(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    finders = BRIDGED_FINDERS if resolved.bridged else NAT_FINDERS
    every = (cause for finder in finders for cause in finder(resolved, measurements))
    programs = {DOCKER: engine_program(resolved)}
    if IPTABLES_LEGACY not in resolved.snapshot.programs:
        # Before version 1.8 of iptables this is the only backend, and has no name of its own.
        programs[IPTABLES_LEGACY] = IPTABLES
    return (replace(cause, remedy=with_programs(cause.remedy, programs)) for cause in every)
