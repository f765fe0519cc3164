"""Causes in the agent's own namespace and attachment: the host's network, a tunnel, another network, no default route.

The first hop of the agent's packets is its own routing; what happens later is not to blame for what it decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from viacheck.analysis.agent_network import (
    ApartBy,
    OtherDefault,
    apart_from_attachment,
    attached_elsewhere,
    attachment_to,
    intended_docker_network,
    intended_link,
    isolated_from_host,
    no_own_route,
    other_default,
    own_interface_of,
    own_resolvers_apart,
)
from viacheck.analysis.container_facts import engine_name, engine_program
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.attachment import connect_command
from viacheck.diagnosis.cause import EGRESS, REACHES_GATEWAY, Cause
from viacheck.diagnosis.remedy import NO_REMEDY, Command, Remedy, command, in_agent, set_agent_default
from viacheck.model.intent import NatAttach
from viacheck.model.measurements import Measurements
from viacheck.model.routing_names import TABLE_MAIN
from viacheck.model.toml_text import toml_text

_PAST_ATTACHMENT = EGRESS | REACHES_GATEWAY | {
    "HOST-04", "HOST-05", "NAT-01", "NAT-02", "ROUTE-02", "ROUTE-03", "ROUTE-05", "ROUTE-06", "ROUTE-07", "EGRESS-07",
    "EGRESS-08", "EGRESS-09",
}  # fmt: skip
_OF_ATTACHMENT = frozenset({
    "NAT-03", "MACVLAN-01", "MACVLAN-02", "MACVLAN-05", "MACVLAN-06", "PIPEWORK-02", "PIPEWORK-03",
})  # fmt: skip
GATEWAY_PRIORITY_SINCE = 28
"""The first engine with ``docker network connect --gw-priority``."""


def apart(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find an agent that shares the host's network, or whose own default route leads into a tunnel."""
    network = apart_from_attachment(resolved)
    if network is None:
        return
    if network.kind is ApartBy.HOST_NETWORK:
        subnet = f" for {resolved.agent_subnet}" if resolved.agent_subnet is not None else ""
        yield Cause(
            "AGENT_ON_HOST_NETWORK", _attachment_check(resolved),
            f"{network.text} and leave by {resolved.host_decision.interface or 'no interface'}; no rule{subnet}, no "
            "source NAT and no bridge applies to them",
            also_affects=_PAST_ATTACHMENT | _OF_ATTACHMENT,
            decision="create the container again on a Docker network (not '--network host'), or accept that the host's "
            "own routing decides for it",
        )  # fmt: skip
    elif network.kind is ApartBy.USERSPACE:
        yield from _on_userspace_network(resolved, network.text)
    else:
        yield Cause(
            "AGENT_USES_TUNNEL", "EGRESS-01",
            f"{network.text}: the agent's packets leave this host inside the tunnel's own packets",
            also_affects=_PAST_ATTACHMENT,
            decision="if the tunnel is meant, judge where its own packets go: probe the tunnel's far end; if not, end "
            "the program that makes the tunnel",
        )  # fmt: skip


def _on_userspace_network(resolved: ResolvedIntent, text: str) -> Iterator[Cause]:
    """Yield the cause of packets that the intent wants on another way than the host's own."""
    carrier, leaves_by = resolved.snapshot.carrier, resolved.host_decision.interface
    named = intended_docker_network(resolved) in (carrier, *_networks(resolved))
    if named and leaves_by == resolved.uplink and not resolved.intent.policy_routed:
        return
    file = ("[agent.attach]", 'mode = "nat"', f"network = {toml_text(str(carrier))}")
    yield Cause(
        "AGENT_ON_USERSPACE_NETWORK", "EGRESS-01" if named else _attachment_check(resolved),
        f"{text}. They leave by {leaves_by or 'no interface'} as the host's own packets do; no rule for the agent's "
        "subnet, no bridge and no forwarding applies to them",
        also_affects=_PAST_ATTACHMENT | _OF_ATTACHMENT,
        site_file=() if named else file,
        decision="create the container again on a network of podman with a bridge, as root, or accept that the host's "
        "own routing decides for it",
    )  # fmt: skip


def _networks(resolved: ResolvedIntent) -> list[str]:
    container = resolved.snapshot.container
    return [on.network for on in container.attachments] if container is not None else []


def _attachment_check(resolved: ResolvedIntent) -> str:
    """Return the check that judges the agent's attachment."""
    if isinstance(resolved.intent.agent.attach, NatAttach):
        return "NAT-03"
    return "PIPEWORK-02" if resolved.intent.mode.startswith("pipework") else "MACVLAN-02"


def on_other_network(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find a container on a Docker network that a person named, and the site file does not: the file is wrong."""
    elsewhere, container = attached_elsewhere(resolved), resolved.intent.agent.container
    wanted = intended_docker_network(resolved)
    if elsewhere is None or container is None or wanted is None:
        return
    if not elsewhere.named_by_person and resolved.bridged:
        return  # macvlan.network_wrong and macvlan.not_attached: the agent was started without its network
    exists = resolved.snapshot.engine is not None and resolved.snapshot.engine.network(wanted) is not None
    connect = f"connect {container} to {wanted} ({engine_program(resolved)} network connect)"
    there = connect if exists else f"create {wanted} first"
    yield Cause(
        "AGENT_NOT_ATTACHED", _attachment_check(resolved),
        elsewhere.text + ("" if exists else f"; there is no Docker network {wanted}"),
        also_affects=_PAST_ATTACHMENT | _OF_ATTACHMENT | {"HOST-05"},
        site_file=elsewhere.site_file,
        decision=f"correct the site file if {container} is where it should be (docker compose puts the project's name "
        f"before a network's name); else {there}",
    )  # fmt: skip


def default_by_other_network(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the agent's default route leads by another of its networks."""
    other = other_default(resolved)
    if other is None or apart_from_attachment(resolved) is not None:
        return
    wanted = intended_docker_network(resolved) if resolved.intent.agent.container is not None else None
    name = f"{engine_name(resolved)}'s network {other.network}" if other.network else f"its interface {other.interface}"
    remedy, decision = prefer_intended(resolved, other, wanted)
    yield Cause(
        "DEFAULT_BY_OTHER_NETWORK", "EGRESS-01",
        f"the agent's own routing sends its packets by {name} ('{other.route}'), not by "
        f"{other.intended.name}" + (f" on {wanted}" if wanted else ""),
        remedy, _PAST_ATTACHMENT, decision=decision,
    )  # fmt: skip


def prefer_intended(resolved: ResolvedIntent, other: OtherDefault, wanted: str | None) -> tuple[Remedy, str | None]:
    """Return the commands that give the intended network the default route, and what else a person must decide.

    The decision is there where the commands hold only until the container restarts.
    """
    engine, container = resolved.snapshot.engine, resolved.intent.agent.container
    attachment = attachment_to(resolved, wanted) if wanted is not None else None
    gateway = _gateway(resolved)
    now = Remedy()
    old = other.route
    if not old.is_default:
        return now, f"the route '{old}' in the agent's namespace decides: remove it if it is a mistake"
    if gateway is not None:
        now = set_agent_default(resolved.intent, gateway, other.intended.name, old)
    if engine is None or container is None or attachment is None or other.network is None:
        return now, None
    if engine.podman:
        return now, _until_restart(
            f"podman gives the container a default route by each network, all with metric 100: create {other.network} "
            f"again with '-o no_default_route=1' or --internal, or {wanted} with '-o metric=50'"
        )
    number = re.match(r"v?(\d+)", engine.version)
    if number is None or int(number[1]) >= GATEWAY_PRIORITY_SINCE:
        beside = attachment_to(resolved, other.network)
        priority = (beside.gateway_priority if beside is not None else 0) + 1
        disconnect = command("docker", "network", "disconnect", wanted, container)
        preferred = connect_command(container, attachment, priority)
        before = connect_command(container, attachment, attachment.gateway_priority)
        if preferred is None or before is None:
            return now, _until_restart(f"create the container again with --gw-priority for {wanted}")
        return Remedy((disconnect, preferred), (disconnect, before)), None
    return now, _until_restart(
        f"before Docker 28, the network whose name sorts first has the default route: give {other.network} a name "
        f"behind {wanted}, create it with --internal, or upgrade and use 'docker network connect --gw-priority'"
    )


def _until_restart(lasting: str) -> str:
    return f"the command holds until the container restarts. To make it last, {lasting}"


def _gateway(resolved: ResolvedIntent) -> str | None:
    """Return the gateway that the agent must use on its intended network; None where it is not known."""
    if resolved.bridged:
        return resolved.lan_gateway
    addresses = resolved.snapshot.host.addresses_of(resolved.bridge) if resolved.bridge is not None else ()
    return next((address.address for address in addresses if address.scope == "global"), None)


def no_route(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the agent's own routing has no route to the probe target."""
    reason, link, gateway = no_own_route(resolved), intended_link(resolved), _gateway(resolved)
    if reason is None:
        return
    remedy = NO_REMEDY
    agent = resolved.snapshot.agent
    has_default = agent is not None and any(route.is_default for route in agent.table(TABLE_MAIN))
    if link is not None and gateway is not None and not has_default:
        route = ("default", "via", gateway, "dev", link.name)
        steps: list[Command] = [in_agent(resolved.intent, "ip", "route", "add", *route)]
        rollback: list[Command] = [in_agent(resolved.intent, "ip", "route", "del", *route)]
        if not link.up:
            steps.insert(0, in_agent(resolved.intent, "ip", "link", "set", "dev", link.name, "up"))
            rollback = [in_agent(resolved.intent, "ip", "link", "set", "dev", link.name, "down")]
        remedy = Remedy(tuple(steps), tuple(rollback))
    container = resolved.intent.agent.container
    restart = (
        f"; '{engine_program(resolved)} restart {container}' sets {engine_name(resolved)}'s default route again"
        if container and not has_default
        else ""
    )
    yield Cause(
        "AGENT_NO_ROUTE", "EGRESS-01",
        f"{reason}, so its own kernel refuses packets to {resolved.target}{restart}",
        remedy, _PAST_ATTACHMENT,
    )  # fmt: skip


def target_on_host(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the probe target is an address of the Docker host itself, which no packet leaves for."""
    interface = own_interface_of(resolved, resolved.target)
    if interface is None:
        return
    isolated = (
        f", and {resolved.intent.mode} isolates the agent from its own host" if isolated_from_host(resolved) else ""
    )
    yield Cause(
        "TARGET_IS_HOST", "HOST-06",
        f"the probe target {resolved.target} is this host's own address on {interface}: no packet to it leaves the "
        f"host{isolated}",
        also_affects=_PAST_ATTACHMENT | {"EGRESS-04"},
        decision="name an address beyond the uplink that answers ping as target of [probe] in the site file",
    )  # fmt: skip


def resolver_on_host(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the agent's resolver is the Docker host itself, from which macvlan and ipvlan isolate the agent."""
    own = own_resolvers_apart(resolved)
    if not own:
        return
    who = resolved.intent.agent.container or "the agent"
    yield Cause(
        "RESOLVER_IS_HOST", "EGRESS-05",
        f"the agent's resolver {', '.join(own)} is this host itself, and {resolved.intent.mode} isolates the agent "
        "from its own host: no name is resolved",
        decision=f"give {who} a resolver beyond the uplink ('--dns' when it is created), or give the host a macvlan "
        f"interface of its own on {resolved.parent} that answers",
    )  # fmt: skip
