"""Causes that lie between a bridged agent and its LAN: the network, its parent, and what its segment lets pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, ip_interface

from viacheck.analysis.dhcp_offers import colliding, offers_evidence, spare_range
from viacheck.analysis.macvlan_facts import (
    address_in_pool,
    data_filtered,
    intended_network,
    lan_subnets,
    network_faults,
    unbridged_links,
)
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.analysis.segment import UPSTREAM_TEXTS, arp_probe_evidence
from viacheck.diagnosis.cause import EGRESS, Cause, command, enter_agent
from viacheck.model.intent import Intent, MacvlanAttach
from viacheck.model.iproute_text import route_command
from viacheck.model.measurements import Measurements
from viacheck.model.result import Evidence, StateEvidence
from viacheck.model.snapshot import TABLE_MAIN, DockerNetwork, IPAMPool, Link
from viacheck.parsers.docker_api import macvlan_supported

REACHES_GATEWAY = frozenset({"MACVLAN-03", "PIPEWORK-04"})
_ASTRAY = EGRESS | REACHES_GATEWAY
"""What breaks when the agent's frames do not get to its LAN's gateway."""


def engine_cannot(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The engine has no macvlan driver, or may not use it."""
    engine, attach = resolved.snapshot.engine, resolved.intent.agent.attach
    if engine is None or not isinstance(attach, MacvlanAttach):
        return
    name = resolved.intent.agent.name
    explains = _ASTRAY | {"MACVLAN-01", "MACVLAN-02", "HOST-07"}
    if engine.rootless:
        yield Cause(
            "ENGINE_TOO_OLD", "HOST-01",
            f"the engine (version {engine.version}) runs rootless, and a rootless engine cannot put a container on "
            f"{attach.parent}: run it as root, or leave the agent behind NAT",
            remedy=(command("systemctl", "enable", "--now", "docker"),),
            undo=(command("systemctl", "disable", "--now", "docker"),), explains=explains,
        )  # fmt: skip
    elif not macvlan_supported(engine.version):
        address = resolved.agent_address or str((attach.ip_range or attach.subnet)[-2])
        words = f"{address}/{attach.subnet.prefixlen}@{attach.gateway}"
        yield Cause(
            "ENGINE_TOO_OLD", "HOST-01",
            f"Docker {engine.version} has no macvlan driver, which came with 1.12: upgrade it, or attach the agent by "
            f"pipework (a container that was started with --net=none)",
            remedy=(command("pipework", attach.parent, name, words),),
            undo=(f"{enter_agent(resolved.intent)} {command('ip', 'link', 'del', 'dev', 'eth1')}",),
            explains=explains,
        )  # fmt: skip


def parent_down(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The parent is down or has no carrier, and the agent's interface with it."""
    parent = resolved.parent_link
    if parent is None or parent.carrier:
        return
    explains = _ASTRAY | {"HOST-03"}
    is_exit = resolved.default_exit in (parent.name, None)
    if is_exit:
        explains |= {"HOST-06", "EGRESS-04"}
    if parent.up:
        yield Cause(
            "PARENT_DOWN", "HOST-02",
            f"{parent.name} has no carrier, and the agent's interface with it: a cable, the port at its other end, or "
            "the radio's association; the agent's interface heals by itself when it is back",
            explains=explains,
        )  # fmt: skip
        return
    gateway = resolved.intent.uplinks[parent.name].gateway
    remedy = [command("ip", "link", "set", "dev", parent.name, "up")]
    default = resolved.host_decision.route
    if is_exit and (default is None or not default.is_default):
        remedy.append(command("ip", "route", "replace", "default", "via", gateway, "dev", parent.name))
    yield Cause(
        "PARENT_DOWN", "HOST-02",
        f"{parent.name} is administratively down, and the agent's interface with it (LOWERLAYERDOWN). The agent's "
        "heals by itself when it comes up; the host's own routes by it do not",
        remedy=tuple(remedy), undo=(command("ip", "link", "set", "dev", parent.name, "down"),), explains=explains,
    )  # fmt: skip


def parent_in_bridge(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The parent is a port of a bridge: the kernel makes no macvlan interface on a port."""
    parent = resolved.parent_link
    if parent is None or parent.master is None:
        return
    reported_by = "MACVLAN-01" if resolved.intent.mode == "macvlan" else "PIPEWORK-03"
    moved = [a for a in resolved.snapshot.host.addresses_of(parent.master) if a.scope == "global"]
    remedy = [command("ip", "link", "set", "dev", parent.name, "nomaster")]
    undo = [command("ip", "link", "set", "dev", parent.name, "master", parent.master)]
    default = resolved.host_decision.route
    for address in moved:
        text = f"{address.address}/{address.prefixlen}"
        remedy += [command("ip", "address", "del", text, "dev", parent.master),
                   command("ip", "address", "add", text, "dev", parent.name)]  # fmt: skip
        undo = [command("ip", "address", "del", text, "dev", parent.name),
                *undo, command("ip", "address", "add", text, "dev", parent.master)]  # fmt: skip
    if default is not None and default.is_default and {hop.interface for hop in default.nexthops} == {parent.master}:
        gateway = resolved.intent.uplinks[parent.name].gateway
        remedy.append(command("ip", "route", "replace", "default", "via", gateway, "dev", parent.name))
        undo.append(route_command("replace", default))
    if resolved.bridged_link is None:
        remedy += attach_commands(resolved)
        undo = [*detach_commands(resolved), *undo]
    yield Cause(
        "BRIDGED_UPLINK", reported_by,
        f"{parent.name} is a port of the bridge {parent.master}, and the kernel makes no macvlan interface on a port "
        f"(device or resource busy): make {parent.master} the parent, or take {parent.name} out of it",
        remedy=tuple(remedy), undo=tuple(undo),
        explains=_ASTRAY | {"HOST-02", "HOST-03", "HOST-06", "HOST-07", "EGRESS-04", "MACVLAN-02", "PIPEWORK-03"},
    )  # fmt: skip


def network_wrong(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The macvlan network was created with options that are not the parent LAN's, or not at all."""
    attach = resolved.intent.agent.attach
    if not isinstance(attach, MacvlanAttach):
        return
    network = intended_network(resolved)
    if network is None and resolved.snapshot.engine is not None:
        yield Cause(
            "AGENT_NOT_ATTACHED", "MACVLAN-01", f"there is no Docker network {attach.network}",
            remedy=tuple(attach_commands(resolved)), undo=tuple(detach_commands(resolved)),
            explains=_ASTRAY | {"MACVLAN-02"},
        )  # fmt: skip
        return
    faults = network_faults(resolved)
    if not faults:
        return
    code, text = faults[0].code, faults[0].text
    sentences = {
        "NETWORK_WRONG_DRIVER": f"{text}; only macvlan puts the agent on {attach.parent}'s LAN",
        "PARENT_WRONG": f"{text}, not {attach.parent}"
        + ("" if network is None or network.parent else "; without a parent Docker makes an isolated dummy interface"),
        "SUBNET_MISMATCH": f"{text}; the intent says {attach.subnet}",
        "GATEWAY_MISMATCH": f"{text}; the intent says {attach.gateway}",
    }
    remedy, undo = _mend_network(resolved, network, code)
    lines = [fault.text for fault in faults]
    yield Cause(
        code, "MACVLAN-01", sentences[code], remedy=tuple(remedy), undo=tuple(undo),
        explains=_ASTRAY | {"MACVLAN-02"}, evidence=(StateEvidence(title="the network", lines=lines),),
    )  # fmt: skip


def not_attached(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The agent is not on the network, or not with an address from its pool."""
    attach = resolved.intent.agent.attach
    if not isinstance(attach, MacvlanAttach) or resolved.snapshot.agent is None:
        return
    if resolved.bridged_address is None:
        others = [a.address for a in resolved.snapshot.agent.addresses if a.scope == "global" and a.family == 4]
        instead = f"; its address is {', '.join(others)}" if others else ""
        yield Cause(
            "AGENT_NOT_ATTACHED", "MACVLAN-02",
            f"{resolved.intent.agent.name} is not attached to {attach.network}{instead}",
            remedy=tuple(attach_commands(resolved)), undo=tuple(detach_commands(resolved)), explains=_ASTRAY,
        )  # fmt: skip
    elif not address_in_pool(resolved):
        pool = attach.ip_range or attach.subnet
        remedy, undo = _mend_network(resolved, intended_network(resolved), "SUBNET_MISMATCH")
        yield Cause(
            "AGENT_NOT_ATTACHED", "MACVLAN-02",
            f"the agent's address {resolved.bridged_address.address} is not from {attach.network}'s pool {pool}",
            remedy=tuple(remedy), undo=tuple(undo), explains=_ASTRAY,
        )  # fmt: skip


def attach_commands(resolved: ResolvedIntent) -> list[str]:
    """How the agent gets to its place: with Docker for a container, by ip(8) for a bare namespace."""
    attach, container = resolved.intent.agent.attach, resolved.intent.agent.container
    if not isinstance(attach, MacvlanAttach):
        return [pipework_command(resolved)]
    if container is None:
        pool = attach.ip_range or attach.subnet
        address = f"{pool[0] if pool != attach.subnet else pool[-2]}/{attach.subnet.prefixlen}"
        away = [inside(resolved, "ip", "link", "set", "dev", link.name, "down") for link in unbridged_links(resolved)]
        return [*away, *_by_hand(resolved, _free_name(resolved), attach.parent, address, str(attach.gateway))]
    commands = [command("docker", "network", "disconnect", name, container) for name in _networks_beside(resolved)]
    commands += [] if intended_network(resolved) is not None else [create_network(attach)]
    return [*commands, command("docker", "network", "connect", attach.network, container)]


def detach_commands(resolved: ResolvedIntent) -> list[str]:
    """What undoes :func:`attach_commands`."""
    attach, container = resolved.intent.agent.attach, resolved.intent.agent.container
    if not isinstance(attach, MacvlanAttach):
        return [inside(resolved, "ip", "link", "del", "dev", "eth1")]
    if container is None:
        gone = inside(resolved, "ip", "link", "del", "dev", _free_name(resolved))
        return [gone, *up_again(resolved, unbridged_links(resolved))]
    commands = [command("docker", "network", "disconnect", attach.network, container)]
    if intended_network(resolved) is None:
        commands.append(command("docker", "network", "rm", attach.network))
    return [
        *commands,
        *(command("docker", "network", "connect", name, container) for name in _networks_beside(resolved)),
    ]


def inside(resolved: ResolvedIntent, *words: object) -> str:
    """A command as it is typed to run in the agent's namespace."""
    return f"{enter_agent(resolved.intent)} {command(*words)}"


def _networks_beside(resolved: ResolvedIntent) -> list[str]:
    engine, attach = resolved.snapshot.engine, resolved.intent.agent.attach
    container = engine.container if engine is not None else None
    wanted = attach.network if isinstance(attach, MacvlanAttach) else "none"
    return [one.network for one in container.attachments if one.network != wanted] if container is not None else []


def up_again(resolved: ResolvedIntent, links: Sequence[Link]) -> list[str]:
    """Bring interfaces of the agent up, and their routes back, which the kernel takes away with them."""
    agent = resolved.snapshot.agent
    found = []
    for link in links if agent is not None else ():
        found.append(inside(resolved, "ip", "link", "set", "dev", link.name, "up"))
        found += [
            f"{enter_agent(resolved.intent)} {route_command('add', route)}"
            for route in agent.table(TABLE_MAIN)  # type: ignore[union-attr]
            if route.protocol != "kernel" and any(hop.interface == link.name for hop in route.nexthops)
        ]
    return found


def _free_name(resolved: ResolvedIntent) -> str:
    """What Docker would call the agent's next interface."""
    agent = resolved.snapshot.agent
    taken = {link.name for link in agent.links} if agent is not None else set()
    return next(name for number in range(len(taken) + 1) if (name := f"eth{number}") not in taken)


def pipework_command(resolved: ResolvedIntent) -> str:
    """The pipework line that attaches the agent as intended."""
    attach, agent = resolved.intent.agent.attach, resolved.intent.agent
    name = agent.container or (agent.netns or "").rpartition("/")[2]
    address = "dhcpcd"
    if attach.mode == "pipework-static":
        address = f"{attach.address}@{attach.gateway}"
    return command("pipework", resolved.parent, name, address)


def create_network(attach: MacvlanAttach, ip_range: IPv4Network | None = None) -> str:
    """The ``docker network create`` that makes the intended network."""
    wanted = ip_range or attach.ip_range
    pool = IPAMPool(subnet=str(attach.subnet), gateway=str(attach.gateway), ip_range=str(wanted) if wanted else None)
    return _create("macvlan", [pool], {"parent": attach.parent}, attach.network)


def _create(driver: str, pools: Sequence[IPAMPool], options: dict[str, str], name: str) -> str:
    words = ["docker", "network", "create", "-d", driver]
    for pool in pools:
        words.append(f"--subnet={pool.subnet}")
        words += [f"--gateway={pool.gateway}"] if pool.gateway else []
        words += [f"--ip-range={pool.ip_range}"] if pool.ip_range else []
    for key, value in options.items():
        words += ["-o", f"{key}={value}"]
    return command(*words, name)


def recreate_network(
    resolved: ResolvedIntent, network: DockerNetwork, attach: MacvlanAttach, ip_range: IPv4Network | None = None
) -> tuple[list[str], list[str]]:
    """Take the agent off a network, make that anew as intended, and put it on again; and how that is undone."""
    container = resolved.intent.agent.container
    attached = resolved.snapshot.engine is not None and resolved.snapshot.engine.container is not None and any(
        one.network == network.name for one in resolved.snapshot.engine.container.attachments
    )  # fmt: skip
    away = [command("docker", "network", "disconnect", network.name, container)] if attached else []
    back = [command("docker", "network", "connect", network.name, container)]
    remove = command("docker", "network", "rm", network.name)
    before = _create(network.driver, network.pools, network.options, network.name)
    undo = [command("docker", "network", "disconnect", network.name, container), remove, before]
    return [*away, remove, create_network(attach, ip_range), *back], [*undo, *(back if attached else [])]


def _mend_network(resolved: ResolvedIntent, network: DockerNetwork | None, code: str) -> tuple[list[str], list[str]]:
    attach = resolved.intent.agent.attach
    assert isinstance(attach, MacvlanAttach)
    if network is not None:
        return recreate_network(resolved, network, attach)
    link, address, pool = resolved.bridged_link, resolved.bridged_address, resolved.agent_pool
    if link is None or address is None or pool is None:
        return [], []
    enter, default, gateway = enter_agent(resolved.intent), resolved.agent_default, str(attach.gateway)
    old = f"{address.address}/{address.prefixlen}"
    replace_default = f"{enter} {command('ip', 'route', 'replace', 'default', 'via', gateway, 'dev', link.name)}"
    restore_default = [f"{enter} {route_command('replace', default)}"] if default is not None else []
    if code == "GATEWAY_MISMATCH":
        return [replace_default], restore_default
    new = f"{address.address if address_in_pool(resolved) else pool[0]}/{attach.subnet.prefixlen}"
    if code == "SUBNET_MISMATCH":

        def exchange(take: str, give: str) -> list[str]:
            return [f"{enter} {command('ip', 'address', 'del', take, 'dev', link.name)}",
                    f"{enter} {command('ip', 'address', 'add', give, 'dev', link.name)}"]  # fmt: skip

        return [*exchange(old, new), replace_default], [*exchange(new, old), *restore_default]
    away = f"{enter} {command('ip', 'link', 'del', 'dev', link.name)}"
    parent = resolved.parent_of(link)
    before = remade(resolved, link, parent.name) if parent is not None else []
    return [away, *_by_hand(resolved, link.name, attach.parent, new, gateway)], [away, *before]


def remade(resolved: ResolvedIntent, link: Link, parent: str) -> list[str]:
    """Commands that make the agent's interface as it is now, once it was taken away."""
    address = resolved.bridged_address
    text = f"{address.address}/{address.prefixlen}" if address is not None else None
    return _by_hand(resolved, link.name, parent, text, _gateway_of(resolved), link)


def _gateway_of(resolved: ResolvedIntent) -> str | None:
    default = resolved.agent_default
    return default.nexthops[0].gateway if default is not None else None


def again(resolved: ResolvedIntent, like: Link, parent: str | None, *, within: bool) -> list[str]:
    """Make an interface that was taken away once more, the same in everything that a person can see."""
    netns = namespace_words(resolved.intent) if within else ""
    words = ["ip", "link", "add", "link", parent, "name", like.name, "index", like.index, "address", like.mac,
             "mtu", like.mtu]  # fmt: skip
    return [f"{command(*words)}{netns} type macvlan mode {like.mode or 'bridge'}"]


def namespace_words(intent: Intent) -> str:
    """How ``ip link add`` is told to make an interface in the agent's namespace."""
    if intent.agent.netns is not None:
        return f" netns {command(intent.agent.netns)}"
    return f" netns $(docker inspect -f '{{{{.State.Pid}}}}' {intent.agent.container})"


def _by_hand(
    resolved: ResolvedIntent, name: str, parent: str, address: str | None, gateway: str | None, like: Link | None = None
) -> list[str]:
    """Make a macvlan interface in a bare namespace, or make one again, with its address and default route."""
    enter = enter_agent(resolved.intent)
    made = (
        again(resolved, like, parent, within=True)
        if like is not None
        else [f"{command('ip', 'link', 'add', 'link', parent, 'name', name)}{namespace_words(resolved.intent)} "
              "type macvlan mode bridge"]
    )  # fmt: skip
    commands = list(made)
    if address is not None:
        commands.append(f"{enter} {command('ip', 'address', 'add', address, 'dev', name)}")
    commands.append(f"{enter} {command('ip', 'link', 'set', 'dev', name, 'up')}")
    if gateway is not None:
        commands.append(f"{enter} {command('ip', 'route', 'add', 'default', 'via', gateway, 'dev', name)}")
    return commands


def single_mac(resolved: ResolvedIntent, _measured: Measurements) -> Iterator[Cause]:
    """The parent is wireless: a station has one MAC address."""
    parent = resolved.parent_link
    if parent is None or not parent.wireless:
        return
    yield Cause(
        "PARENT_SINGLE_MAC", "MACVLAN-06",
        f"{parent.name} is wireless, and an access point knows one MAC address for each station: frames from and to "
        "the agent's own are lost. The guide's advice is NAT: start the agent without --net, behind docker0",
        explains=_ASTRAY,
    )  # fmt: skip


def upstream_drops(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """A switch, an access point or a hypervisor does not carry the agent's frames."""
    facts = measurements.traffic.segment
    if facts is None or facts.second_mac is None:
        return
    probes = facts.second_mac
    lost = probes.upstream in ("foreign-source", "delivery")
    if not lost and not (
        resolved.bridged_link is not None and data_filtered(measurements.traffic, _parent_alone(resolved))
    ):
        return
    what = UPSTREAM_TEXTS[probes.upstream] if lost else "ARP passes, but IP from a second MAC address is dropped"
    evidence: list[Evidence] = [arp_probe_evidence(probes)]
    yield Cause(
        "UPSTREAM_DROPS_MAC", "MACVLAN-06",
        f"upstream of {resolved.parent} {what}: the agent's {probes.agent_mac} is unwelcome beside the parent's "
        f"{probes.parent_mac}. Allow it on the switch port, the access point or the hypervisor (forged transmits, "
        "promiscuous mode), or leave the agent behind NAT",
        explains=_ASTRAY, evidence=tuple(evidence),
    )  # fmt: skip


def _parent_alone(resolved: ResolvedIntent) -> list[str]:
    """Where the agent's own frames must be seen: only on an interface that truly sits on the intended parent."""
    link = resolved.bridged_link
    on_parent = link is not None and resolved.parent_of(link) == resolved.parent_link
    in_lan = resolved.bridged_address is not None and any(
        ip_interface(resolved.bridged_address.address).ip in lan for lan in lan_subnets(resolved)
    )
    return [resolved.parent] if resolved.parent is not None and on_parent and in_lan else []


def address_conflict(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """Another machine on the segment holds the agent's address."""
    facts, address = measurements.traffic.segment, resolved.bridged_address
    if facts is None or address is None:
        return
    others = [claim.mac for claim in facts.claims or ()]
    owners = [a.interface for a in resolved.snapshot.host.addresses if a.address == address.address]
    if not others and not owners:
        return
    who = f"{', '.join(others)} answers ARP for it as well" if others else f"this host's own {owners[0]} has it as well"
    yield Cause(
        "ADDRESS_CONFLICT", "MACVLAN-05",
        f"the agent ({resolved.agent_mac}) is not alone with its address {address.address}: {who}, so that part of "
        "the answers go astray. Give one of the two another address",
        explains=_ASTRAY,
        evidence=(
            StateEvidence(
                title=f"who answers for {address.address}",
                lines=[
                    f"{claim.mac}, asked from the side of {' and '.join(claim.heard_by)}"
                    for claim in facts.claims or ()
                ],
                machines=[claim.mac for claim in facts.claims or ()],
            ),
        ),
    )  # fmt: skip


def dhcp_collision(resolved: ResolvedIntent, measurements: Measurements) -> Iterator[Cause]:
    """A DHCP server on the parent's segment hands out addresses that Docker gives as well, or could one day."""
    pool, attach = resolved.agent_pool, resolved.intent.agent.attach
    if pool is None or not measurements.traffic.offers or not isinstance(attach, MacvlanAttach):
        return
    inside = colliding(measurements.traffic.offers, pool)
    servers = ", ".join(dict.fromkeys(offer.server for offer in measurements.traffic.offers))
    network = intended_network(resolved)
    remedy: list[str] = []
    undo: list[str] = []
    if inside:
        taken = [str(attach.gateway), *resolved.uplink_addresses(attach.parent)]
        spare = spare_range(attach.subnet, measurements.traffic.offers, taken)
        if spare is not None and spare != attach.ip_range and network is not None:
            remedy, undo = recreate_network(resolved, network, attach, spare)
        sentence = (
            f"the DHCP server {servers} offers {', '.join(dict.fromkeys(offer.address for offer in inside))}, which "
            f"{attach.network} gives as well (its pool is {pool}): Docker never asks the server, so sooner or later "
            f"two machines have one address. Have the server leave {pool} out"
        )
    else:
        sentence = (
            f"the DHCP server {servers} gives addresses on {attach.parent}'s segment: none that was asked for lies in "
            f"{attach.network}'s pool {pool}, but only its own configuration keeps it so. Have it leave {pool} out"
        )
    yield Cause(
        "DHCP_COLLISION", "MACVLAN-04", sentence, remedy=tuple(remedy), undo=tuple(undo),
        evidence=tuple(offers_evidence(measurements.traffic.offers)),
    )  # fmt: skip
