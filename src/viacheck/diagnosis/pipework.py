"""Causes in pipework: the program, the interface that it created, the agent's other networks, and the lease."""

from __future__ import annotations

from collections.abc import Iterator

from viacheck.analysis.macvlan_facts import unbridged_links
from viacheck.analysis.pipework_facts import (
    address_fault,
    default_route_fault,
    docker_networks_beside,
    leftover_links,
    pipework_attach,
    unattended_lease_end,
)
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.attachment import (
    attach_remedy,
    bring_up_again,
    pipework_command,
    recreate_agent_link,
    recreate_link,
)
from viacheck.diagnosis.cause import EGRESS, REACHES_GATEWAY, Cause
from viacheck.diagnosis.remedy import NO_REMEDY, Command, Remedy, command, in_agent
from viacheck.model.intent import PipeworkStaticAttach
from viacheck.model.measurements import Measurements
from viacheck.model.namespace_state import Link
from viacheck.model.route import route_argv

INSTALLED_AS = "/usr/local/sbin/pipework"
SOURCE = "https://raw.githubusercontent.com/jpetazzo/pipework/master/pipework"
_GATEWAY_LOST = EGRESS | REACHES_GATEWAY


def program_missing(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that pipework is not on PATH, or is not executable."""
    if pipework_attach(resolved) is None or "pipework" in resolved.snapshot.programs:
        return
    files = [file for file in resolved.snapshot.files if file.path.rpartition("/")[2] == "pipework" and file.exists]
    if files:
        path, mode = files[0].path, files[0].mode
        yield Cause(
            "PIPEWORK_MISSING", "PIPEWORK-01", f"{path} exists, but is not executable",
            Remedy((command("chmod", "a+x", path),), (command("chmod", f"{mode:04o}", path),)),
        )  # fmt: skip
    else:
        yield Cause(
            "PIPEWORK_MISSING", "PIPEWORK-01",
            "pipework is not on PATH: an attached agent stays attached, but nothing can attach it again. Install it as "
            f"the guide does: {SOURCE} as {INSTALLED_AS}, with mode 755",
        )  # fmt: skip


def default_network(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the agent has a network or an interface beside pipework's."""
    if pipework_attach(resolved) is None:
        return
    networks, links = docker_networks_beside(resolved), unbridged_links(resolved)
    container = resolved.intent.agent.container
    if networks and container is not None:
        yield Cause(
            "DEFAULT_NETWORK_PRESENT", "PIPEWORK-02",
            f"{container} is also on Docker's network {', '.join(networks)}, so its packets can leave by NAT: it was "
            "not started with --net=none",
            Remedy(
                tuple(command("docker", "network", "disconnect", name, container) for name in networks),
                tuple(command("docker", "network", "connect", name, container) for name in networks),
            ),
        )  # fmt: skip
    elif links:
        yield Cause(
            "DEFAULT_NETWORK_PRESENT", "PIPEWORK-02",
            f"the agent also has {', '.join(link.name for link in links)}, which is not pipework's: its packets can "
            "leave by it",
            Remedy(
                tuple(in_agent(resolved.intent, "ip", "link", "set", "dev", link.name, "down") for link in links),
                tuple(bring_up_again(resolved, links)),
            ),
        )  # fmt: skip


def not_applied(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that pipework was not run for this container, or that the container's restart removed its interface."""
    attach = pipework_attach(resolved)
    if attach is None or resolved.snapshot.agent is None:
        return
    link = resolved.bridged_link
    if link is None or not link.up:
        state = "has no interface from pipework" if link is None else f"has {link.name}, which is down"
        yield Cause(
            "PIPEWORK_NOT_APPLIED", "PIPEWORK-03",
            f"{resolved.intent.agent.name} {state}: pipework was not run since the container was last started; each "
            "restart of the container or of the engine removes the interface",
            attach_remedy(resolved) if link is None else _bring_up(resolved, link), _GATEWAY_LOST,
        )  # fmt: skip
        return
    parent = resolved.parent_of(link)
    if parent is None or parent != resolved.parent_link:
        delete = in_agent(resolved.intent, "ip", "link", "del", "dev", link.name)
        restore = recreate_agent_link(resolved, link, parent.name) if parent is not None else ()
        yield Cause(
            "PARENT_WRONG", "PIPEWORK-03",
            f"the agent's {link.name} sits on {parent.name if parent is not None else 'no interface of this host'}, "
            f"not on {attach.parent}",
            Remedy((delete, pipework_command(resolved)), (delete, *restore)), _GATEWAY_LOST,
        )  # fmt: skip


def _bring_up(resolved: ResolvedIntent, link: Link) -> Remedy:
    set_link = ("ip", "link", "set", "dev", link.name)
    return Remedy((in_agent(resolved.intent, *set_link, "up"),), (in_agent(resolved.intent, *set_link, "down"),))


def wrong_address(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that pipework's interface has another address than intended, or no address."""
    attach, link, fault = pipework_attach(resolved), resolved.bridged_link, address_fault(resolved)
    if attach is None or link is None or fault is None:
        return
    if isinstance(attach, PipeworkStaticAttach):
        remedy = _correct_address(resolved, attach, link)
    else:
        delete = in_agent(resolved.intent, "ip", "link", "del", "dev", link.name)
        remedy = Remedy((delete, pipework_command(resolved)))
    yield Cause(
        "PIPEWORK_WRONG_ADDRESS", "PIPEWORK-03", f"{link.name} of the agent: {fault}", remedy, _GATEWAY_LOST,
    )  # fmt: skip


def _correct_address(resolved: ResolvedIntent, attach: PipeworkStaticAttach, link: Link) -> Remedy:
    intent, address, default = resolved.intent, resolved.bridged_address, resolved.agent_default
    steps = [
        in_agent(intent, "ip", "address", "add", attach.address, "dev", link.name),
        in_agent(intent, "ip", "route", "replace", "default", "via", attach.gateway, "dev", link.name),
    ]
    rollback = [in_agent(intent, "ip", "address", "del", attach.address, "dev", link.name)]
    if address is not None:
        old = f"{address.address}/{address.prefixlen}"
        steps.insert(0, in_agent(intent, "ip", "address", "del", old, "dev", link.name))
        rollback.append(in_agent(intent, "ip", "address", "add", old, "dev", link.name))
        if default is not None:
            rollback.append(in_agent(intent, *route_argv("replace", default)))
    return Remedy(tuple(steps), tuple(rollback))


def wrong_gateway(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the agent's default route does not use the intended gateway."""
    intent, link, fault = resolved.intent, resolved.bridged_link, default_route_fault(resolved)
    if pipework_attach(resolved) is None or resolved.snapshot.agent is None or link is None or fault is None:
        return
    wanted = ("default", "via", resolved.lan_gateway, "dev", link.name)
    default = resolved.agent_default
    rollback: Command = in_agent(intent, "ip", "route", "del", *wanted)
    if default is not None and not default.metric:
        rollback = in_agent(intent, *route_argv("replace", default))
    yield Cause(
        "GATEWAY_MISMATCH", "PIPEWORK-04", fault,
        Remedy((in_agent(intent, "ip", "route", "replace", *wanted),), (rollback,)), _GATEWAY_LOST,
    )  # fmt: skip


def lease_without_client(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find that the agent's address is leased and that the client that got the lease has ended."""
    end, address, link = unattended_lease_end(resolved), resolved.bridged_address, resolved.bridged_link
    if end is None or address is None or link is None:
        return
    container, remedy = resolved.intent.agent.container, NO_REMEDY
    if container is not None:
        sidecar = f"{container}-dhcp"
        client = command(
            "docker", "run", "-d", "--name", sidecar, "--restart", "unless-stopped", "--net", f"container:{container}",
            "--cap-add", "NET_ADMIN", "alpine", "udhcpc", "-f", "-i", link.name,
        )  # fmt: skip
        remedy = Remedy((client,), (command("docker", "rm", "-f", sidecar),))
    yield Cause(
        "LEASE_WITHOUT_CLIENT", "PIPEWORK-03",
        f"{address.address} on {link.name} is leased and no DHCP client runs in the agent's namespace (pipework's "
        f"dhclient mode ends it after the first lease): address and default route expire {end}. Run a client beside "
        "the agent, or give pipework a fixed address",
        remedy,
    )  # fmt: skip


def second_run(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """Find the interface that a second run of pipework left behind when it failed."""
    leftovers = leftover_links(resolved)
    if pipework_attach(resolved) is None or not leftovers:
        return
    steps: list[Command] = []
    rollback: list[Command] = []
    for leftover in leftovers:
        link = leftover.link
        parent = resolved.snapshot.host.link_by_index(link.peer_index) if link.peer_index is not None else None
        delete = ("ip", "link", "del", "dev", link.name)
        steps.append(in_agent(resolved.intent, *delete) if leftover.in_agent else command(*delete))
        name = parent.name if parent is not None else resolved.parent
        rollback.append(recreate_link(resolved, link, name, within_agent=leftover.in_agent))
    names = ", ".join(leftover.link.name for leftover in leftovers)
    where = "in the agent" if any(leftover.in_agent for leftover in leftovers) else "on the host"
    yield Cause(
        "PIPEWORK_LEFTOVER", "PIPEWORK-03",
        f"a failed run of pipework left {names} {where}: the agent had its interface already ('File exists'). A line "
        "that runs pipework again must test for the interface first",
        Remedy(tuple(steps), tuple(rollback)),
    )  # fmt: skip
