"""Drafts site.toml from a snapshot.

A draft says what the host shows now, which is not always what its operator wants: each value has a comment that says
what to confirm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_network

from viacheck.model.docker_state import DockerNetwork
from viacheck.model.exit_status import UsageError
from viacheck.model.intent import DEFAULT_TARGET
from viacheck.model.namespace_state import Address, NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop
from viacheck.model.routing_names import TABLE_MAIN
from viacheck.model.site_agents import LONGEST_AGENT_NAME, in_agents_tables
from viacheck.model.snapshot import Snapshot
from viacheck.model.toml_text import toml_key, toml_text

CORRECT = "CORRECT THIS"
KERNEL_TABLES = (0, 252, 253, 254, 255)
DRAFTED_DRIVERS = ("bridge", "macvlan", "ipvlan")
"""Docker's drivers that a mode of the site file stands for."""


@dataclass(frozen=True, slots=True)
class DefaultExit:
    """The uplink and the gateway of a default route."""

    interface: str
    gateway: str | None
    table: int
    metric: int


@dataclass(frozen=True, slots=True)
class DraftedAttachment:
    """How the agent is attached: the lines of [agent.attach], and the subnet and interfaces that follow from them."""

    lines: tuple[str, ...]
    subnet: IPv4Network | None = None
    bridge: str | None = None
    parent: str | None = None
    gateway: str | None = None
    pipework: bool = False


@dataclass(frozen=True, slots=True)
class DraftedTarget:
    """An address that answers the probes, and why it is likely to do so."""

    address: IPv4Address
    why: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft of site.toml, and what its reader must know beside it."""

    text: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _OfAgent:
    """The part of a draft that is one agent's."""

    lines: list[str]
    """[agent], [agent.attach] and [egress]."""
    gateways: dict[str, str | None]
    """The uplinks that its attachment and the default routes show, with their gateways."""
    bridge: str | None


def draft(
    snapshots: Mapping[str, Snapshot],
    table_names: Mapping[int, str],
    manager_of: Callable[[str], str | None],
    *,
    netns: str | None = None,
    runs_pipework: bool = True,
    target: DraftedTarget | None = None,
) -> Draft:
    """Return a draft of site.toml from what snapshots show.

    Args:
        snapshots: the state of the host with each agent, by the name of its container; an empty name for an agent
            that is no container, or not known.
        table_names: the registered names of routing tables.
        manager_of: returns the network manager of an interface; None when no manager names it.
        netns: the agent's network namespace, for an agent that is no container.
        runs_pipework: whether a file of the host runs pipework again.
        target: an address beyond the uplink that answers ping; None when none did, or none was asked.

    Raises:
        UsageError: when no default route shows an uplink, or an agent has no network of its own.
    """
    first = next(iter(snapshots.values()))
    host, exits = first.host, default_exits(first.host)
    agents = {
        name: _of_agent(snapshot, table_names, manager_of, name or None, netns, runs_pipework)
        for name, snapshot in snapshots.items()
    }
    gateways = {name: gateway for of_agent in agents.values() for name, gateway in of_agent.gateways.items()}
    bridges = {of_agent.bridge for of_agent in agents.values()}
    others = _other_uplinks(host, gateways, exits, bridges)
    lines = [
        "# Drafted by `viacheck site init` from what this host shows now, which may not be what you want:",
        "# review it; the marked lines need you.",
        "schema = 1",
        "# allow_disruptive = true  # lets --allow-disruptive interrupt this host's network",
        "",
        "[site]",
        f"name = {toml_text(first.hostname or 'this-host')}  # the name of this installation in reports",
        "",
    ]
    names = agent_names(snapshots)
    for name, of_agent in agents.items():
        text = "\n".join(of_agent.lines)
        lines += [text if len(agents) == 1 else in_agents_tables(names[name], text), ""]
    lines += [*_uplink_lines(host, gateways, exits), *_offered_uplinks(others)]
    main = next((exit_ for exit_ in exits if exit_.table == TABLE_MAIN and exit_.interface in gateways), None)
    if main is not None:
        lines += [
            "",
            "[host]",
            f"default_exit = {toml_text(main.interface)}  # where the host's own packets must leave",
        ]
    lines += ["", *_probe_lines(target), ""]
    remarks = [f"{name} may be an uplink too, but no default route names its gateway" for name in others]
    return Draft("\n".join(lines), tuple(remarks))


def agent_names(containers: Iterable[str]) -> dict[str, str]:
    """Return a name of the site file for each container: its own, with '-' for what such a name cannot hold."""
    names: dict[str, str] = {}
    for container in containers:
        name = re.sub(r"[^A-Za-z0-9_-]", "-", container).lstrip("-_")[:LONGEST_AGENT_NAME] or "agent"
        number = 2
        while name in names.values():
            name = f"{name[: LONGEST_AGENT_NAME - 3]}-{number}"
            number += 1
        names[container] = name
    return names


def _of_agent(
    snapshot: Snapshot,
    table_names: Mapping[int, str],
    manager_of: Callable[[str], str | None],
    container: str | None,
    netns: str | None,
    runs_pipework: bool,
) -> _OfAgent:
    agent = snapshot.container
    if agent is not None and agent.network_mode == "host":
        raise UsageError(
            f"{agent.name} shares the host's network (--network host): its packets are the host's own, and cannot be "
            "judged apart; give the container a network"
        )
    exits = default_exits(snapshot.host)
    attached = _attachment(snapshot)
    gateways: dict[str, str | None] = {}
    for default_exit in exits:
        link = snapshot.host.link(default_exit.interface)
        if default_exit.gateway is not None or (link is not None and link.point_to_point):
            gateways.setdefault(default_exit.interface, default_exit.gateway)
    if attached.parent and attached.gateway:
        gateways[attached.parent] = attached.gateway
    if not gateways:
        raise UsageError(
            "no default route of this host names a gateway, so no uplink is known: bring the uplinks up, "
            "or write the file by hand"
        )
    own_address = _own_address(snapshot, attached)
    lines = [
        *_agent_lines(snapshot, container, netns),
        "",
        "[agent.attach]",
        *attached.lines,
        "",
        *_egress_lines(snapshot.host, table_names, manager_of, attached, gateways, exits, own_address),
        *_unkept_pipework(attached, runs_pipework),
    ]
    return _OfAgent(lines, gateways, attached.bridge)


def default_exits(host: NetworkState) -> list[DefaultExit]:
    """Return the exits of all IPv4 default routes: the main table first, then by metric."""
    exits = [
        DefaultExit(hop.interface, hop.gateway, route.table, route.metric)
        for route in host.routes
        if route.family == 4 and route.is_default and route.type == "unicast"
        for hop in route.nexthops
        if hop.interface is not None
    ]
    return sorted(exits, key=lambda exit_: (exit_.table != TABLE_MAIN, exit_.metric, exit_.table))


def _agent_lines(snapshot: Snapshot, container: str | None, netns: str | None) -> Iterator[str]:
    yield "[agent]"
    if netns is not None:
        of_process = re.match(r"/proc/\d+/", netns)
        remark = "  # the number in /proc/NUMBER changes when the process restarts" if of_process else ""
        yield f"netns = {toml_text(netns)}{remark}"
    elif container is not None:
        yield f"container = {toml_text(container)}"
    else:
        yield f'container = "te-agent"  # {CORRECT}: name of the agent\'s container (`docker ps`)'
    for problem in (snapshot.problem("engine"), snapshot.problem("agent")):
        if problem is not None:
            yield f"# Could not be read: {_comment(problem.reason)}"


def _comment(text: str) -> str:
    """Return text as a TOML comment can hold it: one line of printable characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _attachment(snapshot: Snapshot) -> DraftedAttachment:
    """Return how the agent is attached: by Docker's answer, else by its own interface, else by docker0."""
    engine = snapshot.engine
    if engine is not None and engine.container is not None:
        for attachment in engine.container.attachments:
            network = engine.network(attachment.network)
            if network is not None and network.driver in DRAFTED_DRIVERS:
                return _on_network(network)
    if snapshot.agent is not None:
        return _on_interface(snapshot.host, snapshot.agent, pipework="pipework" in snapshot.programs)
    network = engine.network("bridge") if engine is not None else None
    if network is not None:
        return _on_network(network)
    on_docker0 = snapshot.host.addresses_of("docker0")
    return DraftedAttachment(
        lines=('mode = "nat"', f'network = "bridge"  # {CORRECT}: nothing shows how the agent is attached'),
        subnet=IPv4Network(str(on_docker0[0].network)) if on_docker0 else None,
        bridge="docker0",
    )


def attachment_lines(network: DockerNetwork) -> tuple[str, ...]:
    """Return the lines of [agent.attach] for a Docker network; none for a driver that no mode stands for."""
    lines = _on_network(network).lines if network.driver in DRAFTED_DRIVERS else ()
    return tuple(line for line in lines if not line.startswith("#"))


def _on_network(network: DockerNetwork) -> DraftedAttachment:
    pool = next((pool for pool in network.pools if ip_network(pool.subnet).version == 4), None)
    subnet = IPv4Network(pool.subnet) if pool is not None else None
    named = f"network = {toml_text(network.name)}"
    if network.driver == "bridge":
        subnet_line = (f"# subnet = {toml_text(pool.subnet)}  # without it, each run asks Docker",) if pool else ()
        return DraftedAttachment(('mode = "nat"', named, *subnet_line), subnet=subnet, bridge=network.bridge)
    lines = [f"mode = {toml_text(network.driver)}", named]
    if network.parent is not None:
        lines.append(f"parent = {toml_text(network.parent)}")
    if pool is not None:
        lines.append(f"subnet = {toml_text(pool.subnet)}")
        lines += [f"gateway = {toml_text(pool.gateway)}"] if pool.gateway else []
        # A range of podman need not be a subnet.
        lines += [f"ip_range = {toml_text(pool.ip_range)}"] if pool.ip_range and "-" not in pool.ip_range else []
    elif network.address_management == "dhcp":
        lines.append(f"# {CORRECT}: subnet and gateway, which the LAN's DHCP server assigns")
    return DraftedAttachment(tuple(lines), parent=network.parent, gateway=pool.gateway if pool else None)


def _on_interface(host: NetworkState, agent: NetworkState, *, pipework: bool) -> DraftedAttachment:
    """Return the attachment by the interface of the agent's default route, or else of its only address."""
    lines: tuple[str, ...]
    exits = [exit_ for exit_ in default_exits(agent) if exit_.table == TABLE_MAIN]
    names = [exit_.interface for exit_ in exits]
    names += [address.interface for address in agent.addresses if address.family == 4]
    name = next((name for name in names if name != "lo"), None)
    link = agent.link(name) if name is not None else None
    addresses = agent.addresses_of(name) if name is not None else ()
    if link is None or not addresses:
        return DraftedAttachment(('mode = "nat"', f'network = "bridge"  # {CORRECT}: the agent has no address yet'))
    address = addresses[0]
    other_end = host.link_by_index(link.peer_index) if link.peer_index is not None else None
    gateway = exits[0].gateway if exits else None
    bridge = other_end.master if other_end is not None else None
    if link.kind == "macvlan" and other_end is not None:
        if gateway and not pipework and "dynamic" not in address.flags:
            lines = (
                'mode = "macvlan"',
                f'network = "macvlan0"  # {CORRECT}: the name of the Docker network',
                f"parent = {toml_text(other_end.name)}",
                f'subnet = "{address.network}"',
                f'gateway = "{gateway}"',
            )
            return DraftedAttachment(lines, parent=other_end.name, gateway=gateway)
        return _by_pipework(other_end.name, address, gateway)
    if bridge is not None and gateway is not None and all(own.address != gateway for own in host.addresses):
        # The agent's gateway is another machine, so the bridge leads to a LAN.
        return _by_pipework(bridge, address, gateway)
    lines = ('mode = "nat"', f'subnet = "{address.network}"  # the agent\'s own address is {address.address}')
    if bridge is not None:
        lines += (f"bridge = {toml_text(bridge)}",)
    return DraftedAttachment(lines, subnet=IPv4Network(str(address.network)), bridge=bridge)


def _by_pipework(parent: str, address: Address, gateway: str | None) -> DraftedAttachment:
    parent_line = f"parent = {toml_text(parent)}"
    if "dynamic" in address.flags:
        lines: tuple[str, ...] = ('mode = "pipework-dhcp"', parent_line)
    else:
        gateway_line = (
            f'gateway = "{gateway}"' if gateway else f"# {CORRECT}: gateway = (the agent has no default route)"
        )
        address_line = f'address = "{address.address}/{address.prefixlen}"'
        lines = ('mode = "pipework-static"', parent_line, address_line, gateway_line)
    return DraftedAttachment(lines, parent=parent, gateway=gateway, pipework=True)


def _uplink_lines(host: NetworkState, gateways: dict[str, str | None], exits: list[DefaultExit]) -> Iterator[str]:
    yield "# Every interface that leads to a physical network."
    for name, gateway in gateways.items():
        tables = sorted(
            {exit_.table for exit_ in exits if (exit_.interface, exit_.gateway) == (name, gateway)}, reverse=True
        )
        where = " and ".join("main" if table == TABLE_MAIN else str(table) for table in tables)
        yield f"[uplinks.{toml_key(name)}]"
        if gateway is None:
            yield f"# point to point, so without a gateway; the default route of table {where}. A VPN is no uplink"
            continue
        yield f"gateway = {toml_text(gateway)}" + (f"  # the default route of table {where}" if tables else "")
        others = {exit_.gateway for exit_ in exits if exit_.interface == name and exit_.gateway} - {gateway}
        for other in sorted(others):
            yield f"# {CORRECT}: another default route on it uses {other}"
        for gateway6 in [hop.gateway for hop in _default_hops6(host) if hop.interface == name and hop.gateway][:1]:
            yield f"gateway6 = {toml_text(gateway6)}"


def _offered_uplinks(names: list[str]) -> Iterator[str]:
    for name in names:
        yield f"# [uplinks.{toml_key(name)}]  # no default route names its gateway; an uplink too?"
        yield "# gateway ="


def _other_uplinks(
    host: NetworkState, gateways: Mapping[str, str | None], exits: list[DefaultExit], bridges: set[str | None]
) -> list[str]:
    """Return the interfaces that may be uplinks too, although no default route names a gateway on them."""
    by_route = {exit_.interface for exit_ in exits}
    names = []
    for link in host.links:
        own = link.master is None and "LOOPBACK" not in link.flags and link.name not in bridges
        outward = link.kind is None or (link.kind != "bridge" and bool(host.addresses_of(link.name)))
        if link.name not in gateways and own and (outward or link.name in by_route):
            names.append(link.name)
    return names


def target_candidates(snapshot: Snapshot) -> list[IPv4Address]:
    """Return addresses beyond the host's networks that may answer ping, the likeliest first: the resolvers."""
    own = own_networks(snapshot)
    resolvers = map(_ipv4, (*(snapshot.resolvers or ()), *(snapshot.host_resolvers or ())))
    beyond = [
        address
        for address in dict.fromkeys(filter(None, resolvers))
        if not (address.is_loopback or address.is_multicast or any(address in network for network in own))
    ]
    return [*beyond, DEFAULT_TARGET]


def own_networks(snapshot: Snapshot) -> list[IPv4Network]:
    """Return the IPv4 networks of the host and of the agent."""
    addresses = (*snapshot.host.addresses, *(snapshot.agent.addresses if snapshot.agent is not None else ()))
    networks = (ip_network(f"{entry.address}/{entry.prefixlen}", strict=False) for entry in addresses)
    return [network for network in networks if isinstance(network, IPv4Network)]


def _probe_lines(target: DraftedTarget | None) -> Iterator[str]:
    yield "[probe]"
    if target is not None:
        yield f'target = "{target.address}"  # {target.why}: any address beyond the uplink that answers ping'
    else:
        yield f'# target = ""  # {CORRECT}: no address beyond the uplink answered ping; name one that does'
    yield 'protocols = ["icmp", "udp", "tcp"]'


def _ipv4(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except ValueError:
        return None


def _default_hops6(host: NetworkState) -> Iterator[Nexthop]:
    for route in host.routes:
        if route.family == 6 and route.is_default and route.type == "unicast":
            yield from route.nexthops


def _egress_lines(
    host: NetworkState,
    table_names: Mapping[int, str],
    manager_of: Callable[[str], str | None],
    attached: DraftedAttachment,
    gateways: dict[str, str | None],
    exits: list[DefaultExit],
    own_address: IPv4Address | None,
) -> Iterator[str]:
    yield "[egress]"
    if attached.parent is not None:
        yield f"uplink = {toml_text(attached.parent)}  # a bridged agent leaves by its parent"
        return
    usable = [exit_ for exit_ in exits if exit_.interface in gateways]
    first = usable[0].interface if usable else next(iter(gateways))
    rule = _policy_rule(host, attached, own_address)
    if rule is None:
        yield f"uplink = {toml_text(first)}  # {CORRECT}: no rule is for the agent; this is the host's own uplink"
        return
    chosen = next((exit_.interface for exit_ in usable if exit_.table == rule.table), None)
    if chosen is None:
        yield f"uplink = {toml_text(first)}  # {CORRECT}: table {rule.table} has no default route to show the uplink"
    else:
        yield f"uplink = {toml_text(chosen)}  # where the agent's packets must leave"
    yield f"table = {rule.table}  # from the rule: {_comment(str(rule))}"
    if rule.table is not None and rule.table in table_names:
        yield f"table_name = {toml_text(table_names[rule.table])}"
    manager = manager_of(chosen or first)
    if manager is None:
        yield f'persist = "none"  # {CORRECT}: no network manager names the uplink, so a reboot loses rule and route'
    else:
        yield f"persist = {toml_text(manager)}  # the manager of the uplink, which must restore rule and route"


def _unkept_pipework(attached: DraftedAttachment, runs_pipework: bool) -> Iterator[str]:
    if attached.pipework and not runs_pipework:
        yield f'persist = "none"  # {CORRECT}: no file of this host runs pipework again, so a reboot detaches the agent'


def _own_address(snapshot: Snapshot, attached: DraftedAttachment) -> IPv4Address | None:
    """Return the agent's first address on its network, which it sends from; None when it is not known."""
    texts = [address.address for address in snapshot.agent.addresses] if snapshot.agent is not None else []
    texts += [attachment.address or "" for attachment in snapshot.container.attachments] if snapshot.container else []
    addresses = filter(None, map(_ipv4, texts))
    return next((address for address in addresses if attached.subnet is not None and address in attached.subnet), None)


def _policy_rule(host: NetworkState, attached: DraftedAttachment, own_address: IPv4Address | None) -> Rule | None:
    """Return the first rule that sends the agent's packets to another table than the kernel's."""
    for rule in host.rules_of(4):
        if rule.action != "lookup" or rule.table in KERNEL_TABLES or rule.invert:
            continue
        if rule.source is not None and attached.subnet is not None:
            source = IPv4Network(rule.source, strict=False)
            # A rule for one address may be for another one than the agent sends from.
            if own_address in source if own_address is not None else source.overlaps(attached.subnet):
                return rule
        elif rule.iif is not None and rule.iif == attached.bridge:
            return rule
    return None
