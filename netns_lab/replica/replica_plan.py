"""Describes the replica of a host: its machines and cables, and the state that host and agent must have in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from netns_lab.plan import HOST, LabPlan, Machine, SegmentMachines
from netns_lab.replica.assumed_agent import AgentUnknown, was_hidden, with_assumed_agent
from netns_lab.replica.cabling import AGENT, Cabling
from netns_lab.replica.replica_files import ReplicaFiles, replica_files, resolvers_of
from netns_lab.replica.snapshot_limits import SnapshotImpossible, check_limits
from viacheck.analysis.paths import PathTracer
from viacheck.analysis.predict import other_gateway
from viacheck.analysis.resolved_intent import PROTOCOL_NUMBERS, ResolvedIntent
from viacheck.analysis.traced_path import PathEnd, Traffic
from viacheck.model.intent import Intent
from viacheck.model.intent_file import parse_intent
from viacheck.model.intent_values import seconds
from viacheck.model.namespace_state import Link, NetworkState
from viacheck.model.snapshot import Snapshot

LONGEST_TIMEOUT = 0.4
"""Seconds to wait for a probe's answer: every machine of a replica answers at once."""


class ReplicaImpossible(Exception):
    """No replica of this snapshot can be built; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """The description of a replica."""

    snapshot: Snapshot
    """The snapshot that it replicates."""
    lab: LabPlan
    """The machines and cables."""
    host: NetworkState
    """The final state of the host's namespace."""
    agent: NetworkState | None
    """The final state of the agent's namespace; None for an agent that did not run."""
    shares_host_network: bool
    """The agent is in the host's own namespace."""
    agent_assumed: bool
    """The snapshot does not hold the agent's own state."""
    silent: tuple[str, ...]
    """Uplinks whose gateway did not answer ARP when the snapshot was taken."""
    point_to_point: tuple[str, ...]
    """The host's interfaces that lead to one other end, and use no ARP."""
    wireless: tuple[str, ...]
    """Interfaces that are wireless by the host's /sys."""
    agent_tunnels: tuple[Link, ...] = ()
    """The tunnels in the agent's namespace."""


def plan_replica(snapshot: Snapshot, intent: Intent, name: str) -> ReplicaPlan:
    """Describe the replica of a snapshot's host.

    Raises:
        ReplicaImpossible: when the snapshot lacks a part that cannot be assumed, or holds a value that no host has.
    """
    try:
        check_limits(snapshot)
        return _plan(snapshot, intent, name)
    except (SnapshotImpossible, AgentUnknown) as error:
        raise ReplicaImpossible(str(error)) from None
    except ValueError as error:
        raise ReplicaImpossible(f"the snapshot holds a value that no host has: {error}") from None


def _plan(original: Snapshot, intent: Intent, name: str) -> ReplicaPlan:
    snapshot, notes = original, list[str]()
    if snapshot.agent is None and was_hidden(snapshot):
        snapshot = with_assumed_agent(snapshot, intent)
        notes.append("the snapshot does not hold the agent's namespace: the replica assumes it from engine and intent")
    resolvers, resolver_notes = resolvers_of(snapshot)
    host = replace(snapshot.host, neighbours=snapshot.known_neighbours)
    resolved = ResolvedIntent(intent, snapshot)
    agent = None if resolved.shares_host_network else snapshot.agent
    routed = str(resolved.agent_subnet) if snapshot.subnet_routed else None
    cabling = Cabling(host, agent, intent, resolvers, routed, snapshot.silent_beyond)
    host_addresses = {address.address for address in snapshot.host.addresses}
    notes += [*resolver_notes, *cabling.notes]
    if (router := other_gateway(resolved)) is not None:
        notes.append(f"the agent's router {router}, another machine on the segment, is not reproduced in the replica")
    if snapshot.answers_by is not None:
        notes.append(
            f"answers came in by {snapshot.answers_by}, and not by {intent.egress.uplink}: what the gateway holds for "
            "its address is not on the host, so answers come back by the same uplink here"
        )
    notes += [
        f"no answer came in by {interface} on the host, and none comes in by it here"
        for interface in snapshot.silent_beyond
    ]
    if snapshot.answers_lost is not None:
        notes.append("a part of the answers was lost: what loses packets beyond the host is not reproduced here")
    if snapshot.address_claimed_by:
        notes.append(
            f"{', '.join(snapshot.address_claimed_by)}, another machine on the segment that holds the agent's address, "
            "is not reproduced in the replica (MACVLAN-05)"
        )
    notes += list(_chosen_by_hash(resolved))
    notes += list(_gateways_by_another_uplink(ResolvedIntent(intent, snapshot)))
    notes += [
        f"the host itself answers DNS at {address}: its DNS server is not reproduced in the replica"
        for address in resolvers
        if address in host_addresses
    ]
    files = replica_files(snapshot, intent, resolvers)
    return ReplicaPlan(
        snapshot=original,
        lab=_lab_plan(snapshot, intent, name, cabling, files, notes),
        host=snapshot.host,
        agent=agent,
        shares_host_network=resolved.shares_host_network,
        agent_assumed=original.agent is None,
        silent=tuple(cabling.silent),
        point_to_point=tuple(cabling.point_to_point),
        wireless=tuple(link.name for link in snapshot.host.links if link.wireless),
        agent_tunnels=tuple(cabling.agent_tunnels),
    )


def _chosen_by_hash(resolved: ResolvedIntent) -> Iterator[str]:
    """Yield the routes of which the kernel chooses a next hop by a hash, whose seed is its own in every namespace."""
    decisions = [resolved.agent_decision(protocol) for protocol in resolved.intent.probe.protocols]
    for route in dict.fromkeys(str(decision.route) for decision in decisions if len(decision.exits) > 1):
        yield (
            f"'{route}' has several next hops: the kernel chooses one by a hash of the packet, whose seed is another "
            "here, so that packets may take another one than on the host (EGRESS-01, EGRESS-09)"
        )


def _gateways_by_another_uplink(resolved: ResolvedIntent) -> Iterator[str]:
    """Yield what a replica cannot know of ROUTE-06: whether the network beyond an uplink leads to another's gateway."""
    if resolved.bridged:
        return
    tracer = PathTracer(resolved, answers=False)
    for name, uplink in resolved.intent.uplinks.items():
        if uplink.gateway is None:
            continue
        path = tracer.trace(Traffic(destination=str(uplink.gateway), protocol=PROTOCOL_NUMBERS["icmp"]))
        if path.end is PathEnd.LEAVES and path.egress != {name}:
            yield (
                f"the agent reaches {uplink.gateway}, the gateway of {name}, by {path.egress_text}: whether the "
                "network beyond leads there, as a router of both does, is not on the host; here it does not (ROUTE-06)"
            )


def _lab_plan(
    snapshot: Snapshot, intent: Intent, name: str, cabling: Cabling, files: ReplicaFiles, notes: list[str]
) -> LabPlan:
    return LabPlan(
        name=f"twin:{name}",
        title=f"replica of {intent.site.name}, as it was at {snapshot.taken}",
        guide="",
        host=Machine(HOST, NetworkState(links=tuple(cabling.host_links))),
        agent=Machine(AGENT, NetworkState(links=tuple(cabling.agent_links))),
        gateways=tuple(gateway.freeze() for gateway in cabling.gateways.values()),
        cables=tuple(cabling.cables),
        files=files.texts,
        intent=with_short_timeout(intent),
        segments={uplink: SegmentMachines(cabling.gateways[uplink].name) for uplink in intent.uplinks},
        neighbours=(cabling.open_ends.freeze(),),
        executables=files.executables,
        file_links=files.links,
        hidden=files.hidden,
        untrusted=True,
        notes=(*notes, *files.notes),
    )


def with_short_timeout(intent: Intent) -> Intent:
    """Return the intent with a timeout of probes that suits a lab, where every machine answers at once."""
    if seconds(intent.probe.timeout) <= LONGEST_TIMEOUT:
        return intent
    document = intent.as_json()
    document["probe"] = {**document.get("probe", {}), "timeout": f"{LONGEST_TIMEOUT * 1000:.0f}ms"}
    return parse_intent(document, source=intent.site.name)
