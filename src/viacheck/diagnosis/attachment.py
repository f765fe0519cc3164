"""The commands that attach a bridged agent to its LAN, detach it, and create its interface or network again.

Docker attaches a container, ip(8) attaches a bare namespace, and pipework attaches what it is intended for. The causes
of the chapters macvlan and pipework make their remedies of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, ip_address

from viacheck.analysis.agent_network import attachment_to
from viacheck.analysis.container_facts import engine_program
from viacheck.analysis.macvlan_facts import address_in_pool, intended_network, unbridged_links
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.remedy import (
    NO_REMEDY,
    Command,
    Remedy,
    agent_netns,
    command,
    in_agent,
)
from viacheck.model.docker_state import Attachment, DockerNetwork, IPAMPool
from viacheck.model.intent import MacvlanAttach
from viacheck.model.namespace_state import Link
from viacheck.model.route import route_argv
from viacheck.model.routing_names import TABLE_MAIN

PIPEWORK_INTERFACE = "eth1"
"""The name that pipework gives the agent's interface unless its options say otherwise."""


def attach_remedy(resolved: ResolvedIntent) -> Remedy:
    """Return the commands that attach the agent as intended, and those that detach it again."""
    attach, container = resolved.intent.agent.attach, resolved.intent.agent.container
    if not isinstance(attach, MacvlanAttach):
        delete = in_agent(resolved.intent, "ip", "link", "del", "dev", PIPEWORK_INTERFACE)
        return Remedy((pipework_command(resolved),), (delete,))
    if container is None:
        return _attach_namespace(resolved, attach)
    others = _other_attachments(resolved, attach.network)
    back = [connect_command(container, attachment, attachment.gateway_priority) for attachment in others]
    if resolved.snapshot.container is None or any(again is None for again in back):
        return NO_REMEDY
    steps = [command("docker", "network", "disconnect", other.network, container) for other in others]
    rollback = [command("docker", "network", "disconnect", attach.network, container)]
    if intended_network(resolved) is None:
        steps.append(create_network(attach))
        rollback.append(command("docker", "network", "rm", attach.network))
    steps.append(command("docker", "network", "connect", attach.network, container))
    rollback += [again for again in back if again is not None]
    return Remedy(tuple(steps), tuple(rollback))


def connect_command(container: str, attachment: Attachment, priority: int = 0) -> Command | None:
    """Return the command that connects a container as it is connected; None where no command keeps its MAC address.

    ``docker network connect`` has no option for a MAC address: the container must be created again for that.
    """
    if attachment.fixed_mac is not None:
        return None
    options = [f"--ip={attachment.fixed_address}"] if attachment.fixed_address else []
    options += [f"--alias={alias}" for alias in attachment.aliases]
    options += [f"--gw-priority={priority}"] if priority else []
    return command("docker", "network", "connect", *options, attachment.network, container)


def _attach_namespace(resolved: ResolvedIntent, attach: MacvlanAttach) -> Remedy:
    intent, name = resolved.intent, _free_name(resolved)
    pool, others = attach.ip_range or attach.subnet, unbridged_links(resolved)
    address = f"{pool[0] if pool != attach.subnet else pool[-2]}/{attach.subnet.prefixlen}"
    down = [in_agent(intent, "ip", "link", "set", "dev", link.name, "down") for link in others]
    create = command(
        "ip", "link", "add", "link", attach.parent, "name", name, "netns", agent_netns(intent), "type", "macvlan",
        "mode", "bridge",
    )  # fmt: skip
    return Remedy(
        (*down, create, *_configure(resolved, name, address, str(attach.gateway))),
        (in_agent(intent, "ip", "link", "del", "dev", name), *bring_up_again(resolved, others)),
    )


def bring_up_again(resolved: ResolvedIntent, links: Sequence[Link]) -> list[Command]:
    """Return the commands that bring interfaces of the agent up and restore the routes that went down with them."""
    agent = resolved.snapshot.agent
    commands: list[Command] = []
    for link in links if agent is not None else ():
        commands.append(in_agent(resolved.intent, "ip", "link", "set", "dev", link.name, "up"))
        commands += [
            in_agent(resolved.intent, *route_argv("add", route))
            for route in agent.table(TABLE_MAIN)  # type: ignore[union-attr]
            if route.protocol != "kernel" and any(hop.interface == link.name for hop in route.nexthops)
        ]
    return commands


def pipework_command(resolved: ResolvedIntent) -> Command:
    """Return the pipework command that attaches the agent as intended."""
    attach = resolved.intent.agent.attach
    address = f"{attach.address}@{attach.gateway}" if attach.mode == "pipework-static" else "dhcpcd"
    return command("pipework", resolved.parent, pipework_guest(resolved), address)


def pipework_guest(resolved: ResolvedIntent) -> str:
    """Return the name by which pipework finds the agent: its container's, or its namespace's."""
    agent = resolved.intent.agent
    return agent.container or (agent.netns or "").rpartition("/")[2]


def create_network(attach: MacvlanAttach, ip_range: IPv4Network | None = None) -> Command:
    """Return the ``docker network create`` of the intended network."""
    wanted = ip_range or attach.ip_range
    pool = IPAMPool(subnet=str(attach.subnet), gateway=str(attach.gateway), ip_range=str(wanted) if wanted else None)
    return _create(attach.mode, [pool], {"parent": attach.parent}, attach.network)


def _create(
    driver: str, pools: Sequence[IPAMPool], options: dict[str, str], name: str, flags: Sequence[str] = ()
) -> Command:
    arguments = ["docker", "network", "create", "-d", driver, *flags]
    for pool in pools:
        arguments.append(f"--subnet={pool.subnet}")
        arguments += [f"--gateway={pool.gateway}"] if pool.gateway else []
        arguments += [f"--ip-range={pool.ip_range}"] if pool.ip_range else []
        arguments += [f"--aux-address={name}={address}" for name, address in pool.reserved.items()]
    for key, value in options.items():
        arguments += ["-o", f"{key}={value}"]
    return command(*arguments, name)


def recreate_network(
    resolved: ResolvedIntent, network: DockerNetwork, attach: MacvlanAttach, ip_range: IPv4Network | None = None
) -> Remedy:
    """Return the commands that disconnect the agent, create its network again as intended, and connect it.

    Every option of the network and of the agent's connection is kept. The remedy is empty where that is not possible:
    :func:`obstacle_to_recreation` says why.
    """
    container, attachment = resolved.intent.agent.container, attachment_to(resolved, network.name)
    if obstacle_to_recreation(resolved, network, attach) is not None:
        return NO_REMEDY
    disconnect = command("docker", "network", "disconnect", network.name, container)
    again = connect_command(str(container), attachment or Attachment(network=network.name))
    assert again is not None
    remove = command("docker", "network", "rm", network.name)
    flags = [*(["--ipv6"] if network.ipv6 else []), *(["--internal"] if network.internal else [])]
    before = _create(network.driver, network.pools, network.options, network.name, flags)
    wanted = ip_range or attach.ip_range
    old = next((pool for pool in network.pools if pool.subnet == str(attach.subnet)), None)
    pool = IPAMPool(
        subnet=str(attach.subnet), gateway=str(attach.gateway),
        ip_range=str(wanted) if wanted else old.ip_range if old else None, reserved=old.reserved if old else {},
    )  # fmt: skip
    options = {**(network.options if network.driver == attach.mode else {}), "parent": attach.parent}
    beside = [other for other in network.pools if ":" in other.subnet]
    create = _create(attach.mode, [pool, *beside], options, network.name, flags)
    attached = attachment is not None
    return Remedy(
        (*((disconnect,) if attached else ()), remove, create, again),
        (disconnect, remove, before, *((again,) if attached else ())),
    )


def obstacle_to_recreation(resolved: ResolvedIntent, network: DockerNetwork, attach: MacvlanAttach) -> str | None:
    """Return what would be lost if the network was created again; None when nothing is lost."""
    container, attachment = resolved.snapshot.container, attachment_to(resolved, network.name)
    if container is None:
        return "the agent's container is not known"
    if resolved.snapshot.engine is not None and resolved.snapshot.engine.podman:
        return f"podman does not say which address and MAC address {container.name} asked for on {network.name}"
    if network.containers is None:
        return f"it is not known which other containers are on {network.name}"
    if others := [name for name in network.containers if name not in (container.name, resolved.intent.agent.container)]:
        return f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} on {network.name} as well"
    if network.not_kept:
        return f"{network.name} has settings that are not known here: {', '.join(network.not_kept)}"
    if container.namespace_of is not None:
        return f"{network.name} is the network of {container.namespace_of}, which the agent shares"
    if attachment is not None and attachment.fixed_mac is not None:
        connect = f"{engine_program(resolved)} network connect"
        return f"no '{connect}' keeps the MAC address {attachment.fixed_mac} of {container.name}"
    old = next((pool for pool in network.pools if ":" not in pool.subnet), None)
    addresses = list(old.reserved.values()) if old is not None else []
    addresses += [attachment.fixed_address] if attachment is not None and attachment.fixed_address else []
    if outside := [address for address in addresses if ip_address(address) not in attach.subnet]:
        return f"{', '.join(outside)}, reserved or fixed on {network.name}, is outside {attach.subnet}"
    return None


def correct_network(resolved: ResolvedIntent, network: DockerNetwork | None, code: str) -> Remedy:
    """Return the remedy of a network fault: the network is created again, or a bare namespace's interface corrected."""
    attach, intent = resolved.intent.agent.attach, resolved.intent
    assert isinstance(attach, MacvlanAttach)
    if network is not None:
        return recreate_network(resolved, network, attach)
    link, address, pool = resolved.bridged_link, resolved.bridged_address, resolved.agent_pool
    if link is None or address is None or pool is None:
        return NO_REMEDY
    default = resolved.agent_default
    set_default = in_agent(intent, "ip", "route", "replace", "default", "via", attach.gateway, "dev", link.name)
    restore_default: tuple[Command, ...] = ()
    if default is not None:
        restore_default = (in_agent(intent, *route_argv("replace", default)),)
    if code == "GATEWAY_MISMATCH":
        return Remedy((set_default,), restore_default)
    old = f"{address.address}/{address.prefixlen}"
    new = f"{address.address if address_in_pool(resolved) else pool[0]}/{attach.subnet.prefixlen}"
    if code == "SUBNET_MISMATCH":
        return Remedy(
            (*exchange_address(resolved, link, old, new), set_default),
            (*exchange_address(resolved, link, new, old), *restore_default),
        )
    delete, parent = in_agent(intent, "ip", "link", "del", "dev", link.name), resolved.parent_of(link)
    create = command(
        "ip", "link", "add", "link", attach.parent, "name", link.name, "netns", agent_netns(intent), "type", "macvlan",
        "mode", "bridge",
    )  # fmt: skip
    restore = recreate_agent_link(resolved, link, parent.name) if parent is not None else []
    return Remedy(
        (delete, create, *_configure(resolved, link.name, new, str(attach.gateway))), (delete, *restore)
    )  # fmt: skip


def exchange_address(resolved: ResolvedIntent, link: Link, old: str, new: str) -> tuple[Command, Command]:
    """Return the commands that replace an address of the agent's interface."""
    return (
        in_agent(resolved.intent, "ip", "address", "del", old, "dev", link.name),
        in_agent(resolved.intent, "ip", "address", "add", new, "dev", link.name),
    )


def recreate_agent_link(resolved: ResolvedIntent, link: Link, parent: str) -> list[Command]:
    """Return the commands that create the agent's interface as it is in the snapshot, after it was deleted."""
    address, default = resolved.bridged_address, resolved.agent_default
    text = f"{address.address}/{address.prefixlen}" if address is not None else None
    gateway = default.nexthops[0].gateway if default is not None else None
    return [recreate_link(resolved, link, parent, within_agent=True), *_configure(resolved, link.name, text, gateway)]


def recreate_link(resolved: ResolvedIntent, link: Link, parent: str | None, *, within_agent: bool) -> Command:
    """Return the command that creates a macvlan interface again, with the same index, MAC address, MTU and mode."""
    netns = ("netns", agent_netns(resolved.intent)) if within_agent else ()
    return command(
        "ip", "link", "add", "link", parent, "name", link.name, "index", link.index, "address", link.mac,
        "mtu", link.mtu, *netns, "type", "macvlan", "mode", link.mode or "bridge",
    )  # fmt: skip


def _configure(resolved: ResolvedIntent, name: str, address: str | None, gateway: str | None) -> list[Command]:
    """Return the commands that give an interface of the agent its address, bring it up, and set its default route."""
    intent = resolved.intent
    commands: list[Command] = []
    if address is not None:
        commands.append(in_agent(intent, "ip", "address", "add", address, "dev", name))
    commands.append(in_agent(intent, "ip", "link", "set", "dev", name, "up"))
    if gateway is not None:
        commands.append(in_agent(intent, "ip", "route", "add", "default", "via", gateway, "dev", name))
    return commands


def _other_attachments(resolved: ResolvedIntent, wanted: str) -> list[Attachment]:
    """Return the connections of the agent's container to other Docker networks."""
    container = resolved.snapshot.container
    return [on for on in container.attachments if on.network != wanted] if container is not None else []


def _free_name(resolved: ResolvedIntent) -> str:
    """Return the name that Docker would give the agent's next interface."""
    agent = resolved.snapshot.agent
    taken = {link.name for link in agent.links} if agent is not None else set()
    return next(name for number in range(len(taken) + 1) if (name := f"eth{number}") not in taken)
