"""Causes that lie in the host itself: engine, uplinks, gateways, forwarding, the default exit."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.nat_facts import agent_flow, forwarding_sysctls_off, overlapping_networks
from viacheck.analysis.packet_filter.evaluate import forwarding
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.cause import EGRESS, Cause, command
from viacheck.model.iproute_text import route_command
from viacheck.model.measurements import Measurements
from viacheck.model.result import StateEvidence

_AGENT_AWAY = EGRESS | {"ROUTE-05", "ROUTE-06", "EGRESS-07"}
_REACHES_GATEWAY = EGRESS | {"MACVLAN-03", "PIPEWORK-04"}
_UPLINK_AWAY = _REACHES_GATEWAY | {"HOST-03", "ROUTE-04", "ROUTE-05", "ROUTE-06", "NAT-02", "EGRESS-07"}
_DEFAULT_AWAY = frozenset({"HOST-03", "HOST-06", "EGRESS-04", "ROUTE-06"})


def engine_or_agent_away(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The engine does not answer, or the agent does not run; what we may not ask says nothing of either."""
    problem = resolved.snapshot.problem("engine")
    agent = resolved.intent.agent
    if any(one.missing for one in (problem, resolved.snapshot.problem("agent")) if one is not None):
        return
    if problem is not None and agent.container is not None:
        yield Cause(
            "ENGINE_UNREACHABLE", "HOST-01", f"the Docker engine cannot be asked: {problem.reason}",
            remedy=("systemctl start docker",), undo=("systemctl stop docker",), explains=_AGENT_AWAY | {"HOST-07"},
        )  # fmt: skip
    elif resolved.snapshot.agent is None:
        reason = resolved.snapshot.problem("container") or resolved.snapshot.problem("agent")
        why = f": {reason.reason}" if reason is not None else ""
        start = (command("docker", "start", agent.container),) if agent.container else ()
        stop = (command("docker", "stop", agent.container),) if agent.container else ()
        yield Cause(
            "AGENT_NOT_RUNNING", "HOST-07", f"the agent {agent.name} does not run or cannot be entered{why}",
            remedy=start, undo=stop, explains=_AGENT_AWAY,
        )  # fmt: skip


def uplink_unusable(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """An uplink is missing, down, without carrier or without address."""
    for name, uplink in resolved.intent.uplinks.items():
        explains = _UPLINK_AWAY if name == resolved.uplink else frozenset[str]()
        if name == resolved.default_exit or resolved.default_exit is None:
            explains |= _DEFAULT_AWAY
        explains |= {"HOST-03", "ROUTE-06"}
        link = resolved.snapshot.host.link(name)
        if link is not None and name == resolved.parent and not link.carrier:
            continue  # PARENT_DOWN tells it
        if link is None:
            yield Cause(
                "UPLINK_MISSING", "HOST-02", f"there is no interface {name}; there are {_names(resolved)}",
                explains=explains,
            )  # fmt: skip
        elif not link.up:
            routes = [command("ip", "route", "replace", "default", "via", uplink.gateway, "dev", name)]
            if name == resolved.uplink and resolved.intent.policy_routed:
                routes = [
                    command(
                        "ip",
                        "route",
                        "replace",
                        "default",
                        "via",
                        uplink.gateway,
                        "dev",
                        name,
                        "table",
                        resolved.table,
                    )
                ]
            elif name != resolved.default_exit and resolved.default_exit is not None:
                routes = []
            yield Cause(
                "UPLINK_DOWN", "HOST-02",
                f"{name} is administratively down, and the kernel has flushed every IPv4 route by it",
                remedy=(command("ip", "link", "set", "dev", name, "up"), *routes),
                undo=(command("ip", "link", "set", "dev", name, "down"),), explains=explains,
            )  # fmt: skip
        elif not link.carrier:
            yield Cause(
                "NO_CARRIER", "HOST-02",
                f"{name} is up but has no carrier: a cable, the port at its other end, or the radio's association",
                explains=explains,
            )  # fmt: skip
        elif link.master is None and not resolved.snapshot.host.addresses_of(name):
            yield Cause(
                "NO_ADDRESS", "HOST-02",
                f"{name} has no IPv4 address, so its gateway {uplink.gateway} cannot be reached; "
                "give it one by hand, or start its DHCP client",
                explains=explains,
            )  # fmt: skip


def gateway_silent(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """A gateway does not answer ARP although the uplink looks well."""
    for name in measurements.traffic.silent_gateways:
        explains = _REACHES_GATEWAY | {"ROUTE-06"} if name == resolved.uplink else frozenset({"ROUTE-06"})
        if name == resolved.default_exit:
            explains |= {"EGRESS-04"}
        yield Cause(
            "GATEWAY_SILENT", "HOST-03",
            f"gateway {resolved.intent.uplinks[name].gateway} does not answer ARP on {name}: it is off, "
            "on another network, or the uplink's address does not belong to this network",
            explains=explains,
        )  # fmt: skip


def default_exit_wrong(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The main table sends the host's own packets by another uplink than the intent says, or by none."""
    wanted = resolved.intent.host.default_exit
    found = resolved.host_decision.interface
    explains = frozenset({"EGRESS-04"})
    if not resolved.intent.policy_routed and not resolved.bridged:
        explains |= EGRESS | {"ROUTE-05"}
    if found is None:
        exit_ = wanted or resolved.uplink
        gateway = resolved.intent.uplinks[exit_].gateway
        yield Cause(
            "DEFAULT_EXIT_MISSING", "HOST-06", f"the host itself has no route to {resolved.target}: no default route",
            remedy=(command("ip", "route", "add", "default", "via", gateway, "dev", exit_),),
            undo=(command("ip", "route", "del", "default", "via", gateway, "dev", exit_),), explains=explains,
        )  # fmt: skip
    elif wanted is not None and found != wanted:
        gateway = resolved.intent.uplinks[wanted].gateway
        route = resolved.host_decision.route
        yield Cause(
            "DEFAULT_EXIT_WRONG", "HOST-06",
            f"the host's own packets leave by {found}, not by {wanted}: {route}",
            remedy=(command("ip", "route", "replace", "default", "via", gateway, "dev", wanted),),
            undo=(route_command("replace", route),) if route is not None else (), explains=explains,
        )  # fmt: skip


def subnet_overlaps(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The agent's subnet is also somebody else's."""
    found = overlapping_networks(resolved)
    if found:
        yield Cause(
            "SUBNET_OVERLAP", "HOST-05",
            f"the agent's subnet {resolved.agent_subnet} overlaps {'; '.join(found)}: one of the two cannot be "
            "reached. Give Docker another subnet ('bip' or 'default-address-pools' in /etc/docker/daemon.json)",
            explains=EGRESS | {"ROUTE-05", "ROUTE-06", "HOST-03"},
        )  # fmt: skip


def forwarding_off(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The kernel does not forward between the bridge and the uplink."""
    off = forwarding_sysctls_off(resolved)
    if "net/ipv4/ip_forward" in off:
        # Turning ip_forward on turns on every interface too (ip-sysctl.rst), so it alone is the mend.
        off = ["net/ipv4/ip_forward"]
    if off:
        dotted = [_dotted(path) for path in off]
        yield Cause(
            "FORWARDING_OFF", "HOST-04", f"the kernel does not forward the agent's packets: {', '.join(dotted)} = 0",
            remedy=tuple(command("sysctl", "-w", f"{name}=1") for name in dotted),
            undo=tuple(command("sysctl", "-w", f"{name}=0") for name in dotted),
            explains=EGRESS | {"ROUTE-05", "ROUTE-06"},
            evidence=(StateEvidence(title="sysctls", lines=[f"{name} = 0" for name in dotted]),),
        )  # fmt: skip


def _dotted(path: str) -> str:
    """Name a sysctl as sysctl(8) takes it: a dot inside an interface's name is written as a slash."""
    return ".".join(part.replace(".", "/") for part in path.split("/"))


def forward_dropped(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """A packet filter rule or policy drops the agent's packets on their way through the host."""
    if resolved.agent_source is None:
        return
    passage = forwarding(resolved.snapshot.host.packet_filter, agent_flow(resolved, resolved.uplink))
    if passage.allowed is not False or passage.chain is None:
        return
    chain, rule = passage.chain, passage.rule
    subnet = resolved.agent_subnet or resolved.agent_source
    where = f"chain {chain.name} of table {chain.table} ({chain.backend})"
    if chain.backend != "nft":
        has_user_chain = any(c.name == "DOCKER-USER" for c in resolved.snapshot.host.packet_filter.chains)
        into = "DOCKER-USER" if has_user_chain else "FORWARD"
        remedy = [command("iptables", "-I", into, "-s", subnet, "-j", "ACCEPT")]
        undo = [command("iptables", "-D", into, "-s", subnet, "-j", "ACCEPT")]
        if not has_user_chain:
            back = ("-d", subnet, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
            remedy.append(command("iptables", "-I", into, *back))
            undo.append(command("iptables", "-D", into, *back))
    elif rule is not None:
        remedy = [command("nft", "delete", "rule", chain.family, chain.table, chain.name, "handle", rule.handle)]
        undo = [f"nft add rule {chain.family} {chain.table} {chain.name} {rule.text}"]
    else:
        remedy = [f"nft chain {chain.family} {chain.table} {chain.name} '{{ policy accept ; }}'"]
        undo = [f"nft chain {chain.family} {chain.table} {chain.name} '{{ policy drop ; }}'"]
    what = f"the rule '{rule.text}'" if rule is not None else "the policy"
    yield Cause(
        "FORWARD_DROPPED", "HOST-04", f"{what} of {where} drops the agent's packets", remedy=tuple(remedy),
        undo=tuple(undo), explains=EGRESS | {"ROUTE-06", "EGRESS-07"},
    )  # fmt: skip


def _names(resolved: ResolvedIntent) -> str:
    return ", ".join(link.name for link in resolved.snapshot.host.links if link.name != "lo")
