"""The lab ``blank``: the host that a site file describes, with its own interface names and addresses.

The host has the uplinks, Docker's bridge or the macvlan interface, and the default route. It has no rule and no table
for the agent, and pipework has not run: those are for the commands that a person tries with ``--apply``.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network
from typing import Any

from netns_lab import pipework_host
from netns_lab.draft import LabDraft, LabSegment
from netns_lab.nft_rules import Masquerade
from netns_lab.plan import AGENT_PATH, DHCP_WAIT, PROBE_TARGET6, PROBE_TIMEOUT, LabPlan
from netns_lab.scenarios.nat import AGENT_SUBNET, AGENT_SUBNET6, BRIDGE
from viacheck.model.intent import (
    Intent,
    IpvlanAttach,
    MacvlanAttach,
    NatAttach,
    PipeworkDhcpAttach,
    PipeworkStaticAttach,
)
from viacheck.model.intent_file import IntentError
from viacheck.model.toml_text import toml_key

SITE_LAB = "blank"
SITE_LAB_TITLE = "The host of a site file before anything is configured for the agent: to try your own commands on"
DEFAULT_NETWORK = "bridge"
"""The Docker network whose bridge and subnet are known without a question to Docker."""
LINK_HOOK = "/run/viacheck-link-up"
OWN_INTERFACES = ("lo", "veth-agent")
"""Interfaces that the lab's host has besides its uplinks."""
LEASES = 50
"""Addresses that a lab's DHCP server can hand out at most."""


@dataclass(slots=True)
class _Site:
    """An intent while its lab is planned: what it does not say, and what no lab can have."""

    intent: Intent
    mistakes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self, key: str, text: str) -> None:
        """Add a mistake: a key of the site file, and why no lab follows from it."""
        self.mistakes.append(f"{key}: --lab {SITE_LAB}: {text}")


def plan_of_site(intent: Intent, source: str) -> LabPlan:
    """Return the lab that an intent describes.

    Args:
        intent: the intent of a site file.
        source: the file's name in messages.

    Raises:
        IntentError: the intent does not say what the lab needs, or a lab cannot have it; a line for each key.
    """
    site = _Site(intent)
    lab = LabDraft(SITE_LAB, SITE_LAB_TITLE, "the site file")
    _set_probe_targets(lab, intent)
    default_exit = _default_exit(site)
    addresses = {name: address for name in intent.uplinks if (address := _address(site, name)) is not None}
    bridge, subnet = _bridge(site)
    if not site.mistakes:
        for name, address in addresses.items():
            _add_uplink(lab, site, name, address)
    if site.mistakes:
        raise IntentError([f"{source}: {mistake}" for mistake in site.mistakes])
    _add_default_route(lab, default_exit)
    _attach_agent(lab, site, bridge, subnet)
    _add_sources(lab, site)
    if site.mistakes:
        raise IntentError([f"{source}: {mistake}" for mistake in site.mistakes])
    lab.notes += site.notes
    return lab.finish(_document(lab, site, bridge, subnet), source)


def _set_probe_targets(lab: LabDraft, intent: Intent) -> None:
    lab.probe_target = str(intent.probe.target)
    lab.probe_target6 = str(intent.probe.target6 or PROBE_TARGET6)


def _default_exit(site: _Site) -> str:
    """Return the uplink of the host's own default route."""
    intent = site.intent
    if intent.host.default_exit is not None:
        return intent.host.default_exit
    if intent.egress.table is not None and len(intent.uplinks) > 1:
        site.refuse("host.default_exit", "missing; it needs the uplink of the host's own packets")
    return intent.egress.uplink


def _address(site: _Site, name: str) -> IPv4Interface | None:
    """Return the host's address on an uplink: that of the site file, or one on the gateway's network."""
    uplink, key = site.intent.uplinks[name], f"uplinks.{toml_key(name)}"
    if name in OWN_INTERFACES:
        site.refuse(key, f"its host has an interface {name} of its own")
        return None
    if uplink.gateway is None:
        site.refuse(f"{key}.gateway", "missing; no lab has a point-to-point link")
        return None
    if uplink.gateway6 is not None and uplink.gateway6.is_link_local:
        site.refuse(f"{key}.gateway6", f"found {uplink.gateway6}; it needs an address that is not link-local")
    lan = _lan(site.intent, name)
    network = uplink.address.network if uplink.address is not None else lan
    assumed = network is None
    if network is None:
        network = IPv4Network(f"{uplink.gateway}/24", strict=False)
    if not _usable(uplink.gateway, network):
        site.refuse(
            f"{key}.address",
            f"the gateway {uplink.gateway} is no usable address of {network}; it needs this host's address with its "
            "prefix length, on the gateway's network",
        )
        return None
    if uplink.address is None:
        number = _free_number(network, 9, _taken(site.intent, name))
        if number is None:
            site.refuse(f"{key}.address", f"{network} has no address left for the host")
            return None
        address = IPv4Interface((network.network_address + number, network.prefixlen))
        text = f"the site file does not say this host's address on {name} ({key}.address): the lab has {address}"
        site.notes.append(text + (", on a network that is assumed from the gateway" if assumed else ""))
        return address
    if uplink.address.ip == uplink.gateway or not _usable(uplink.address.ip, network):
        site.refuse(f"{key}.address", f"found {uplink.address}; it needs another address of {network} than the gateway")
        return None
    return uplink.address


def _lan(intent: Intent, name: str) -> IPv4Network | None:
    """Return an uplink's network if [agent.attach] says it."""
    attach = intent.agent.attach
    if isinstance(attach, MacvlanAttach) and attach.parent == name:
        return attach.subnet
    if isinstance(attach, PipeworkStaticAttach) and attach.parent == name:
        return attach.address.network
    return None


def _taken(intent: Intent, name: str) -> Callable[[IPv4Address], bool]:
    """Return whether a machine of an uplink's network, other than its host, has or may get an address."""
    attach, gateway = intent.agent.attach, intent.uplinks[name].gateway
    pool: IPv4Network | None = None
    if isinstance(attach, MacvlanAttach) and attach.parent == name:
        pool = attach.ip_range
    agent = attach.address.ip if isinstance(attach, PipeworkStaticAttach) and attach.parent == name else None
    own = intent.uplinks[name].address
    others = {gateway, agent, intent.probe.target, own.ip if own is not None else None}
    return lambda address: address in others or (pool is not None and address in pool)


def _usable(address: IPv4Address, network: IPv4Network) -> bool:
    """Return whether a machine on a network can have an address."""
    return address in network and address not in (network.network_address, network.broadcast_address)


def _free_number(network: IPv4Network, first: int, taken: Callable[[IPv4Address], bool]) -> int | None:
    """Return a free host number: the first one from ``first`` on, or else from 1 on."""
    for start in (first, 1):
        for number in range(start, network.num_addresses - 1):
            if not taken(network.network_address + number):
                return number
    return None


def _bridge(site: _Site) -> tuple[str, IPv4Network]:
    """Return the bridge and the subnet of an agent behind NAT; those of docker0 for any other agent."""
    attach = site.intent.agent.attach
    if not isinstance(attach, NatAttach):
        if isinstance(attach, IpvlanAttach):
            site.refuse("agent.attach.mode", "found 'ipvlan'; no lab has it")
        return BRIDGE, IPv4Network(AGENT_SUBNET)
    subnet = attach.subnet
    if subnet is None and attach.network != DEFAULT_NETWORK:
        site.refuse("agent.attach.subnet", f"missing; it needs the subnet of the Docker network {attach.network!r}")
    if subnet is not None and subnet.num_addresses < 4:
        site.refuse("agent.attach.subnet", f"found {subnet}; it needs room for the bridge and the agent")
    if subnet is None:
        site.notes.append(
            f"the site file does not say the agent's subnet (agent.attach.subnet): the lab has Docker's, {AGENT_SUBNET}"
        )
    bridge = attach.bridge or (BRIDGE if attach.network == DEFAULT_NETWORK else f"br-{attach.network}"[:15])
    if bridge in (*site.intent.uplinks, *OWN_INTERFACES):
        site.refuse("agent.attach.bridge", f"found {bridge!r}, which is an uplink or an interface of the lab's own")
    return bridge, subnet or IPv4Network(AGENT_SUBNET)


def _add_uplink(lab: LabDraft, site: _Site, name: str, address: IPv4Interface) -> None:
    uplink, attach = site.intent.uplinks[name], site.intent.agent.attach
    assert uplink.gateway is not None
    network = address.network
    subnet6, router6, number6 = None, 1, 9
    if uplink.gateway6 is not None:
        subnet6 = IPv6Network(f"{uplink.gateway6}/64", strict=False)
        router6 = int(uplink.gateway6) - int(subnet6.network_address)
        number6 = 10 if router6 == number6 else number6
    segment = LabSegment(
        f"{name}-net", network, subnet6, int(uplink.gateway) - int(network.network_address), router6
    )  # fmt: skip
    number = int(address.ip) - int(network.network_address)
    neighbour = None
    if not isinstance(attach, NatAttach) and attach.parent == name:
        taken = _taken(site.intent, name)
        neighbour = _free_number(network, 20, lambda other: other == address.ip or taken(other))
        if neighbour is None:
            site.refuse(f"uplinks.{toml_key(name)}.address", f"{network} has no address left for a second machine")
    lab.segment(name, segment, number, number6, neighbour=neighbour)


def _add_default_route(lab: LabDraft, default_exit: str) -> None:
    """Add the host's own default route, which a link watcher restores after a flap, as the host's manager does."""
    main = lab.uplinks[default_exit]
    gateways = [main.gateway, *([main.gateway6] if main.subnet6 is not None else [])]
    lines = [f'#!/bin/sh\n[ "$1" = {shlex.quote(default_exit)} ] || exit 0']
    # The kernel removes IPv6 addresses with the link.
    lines += [
        shlex.join(("ip", "address", "replace", f"{address.address}/{address.prefixlen}", "dev", default_exit))
        for address in lab.host.addresses
        if address.interface == default_exit and address.family == 6
    ]
    for gateway in gateways:
        lab.host.route("default", via=gateway, dev=default_exit)
        lines.append(shlex.join(("ip", "route", "replace", "default", "via", gateway, "dev", default_exit)))
    lab.program(LINK_HOOK, "\n".join([*lines, ""]))
    lab.link_hook = LINK_HOOK


def _attach_agent(lab: LabDraft, site: _Site, bridge: str, subnet: IPv4Network) -> None:
    """Do what Docker does when it starts the agent's container; pipework is for the user's commands."""
    attach = site.intent.agent.attach
    if isinstance(attach, NatAttach):
        has_ipv6 = any(segment.subnet6 is not None for segment in lab.uplinks.values())
        lab.behind_bridge(bridge, str(subnet), AGENT_SUBNET6 if has_ipv6 else None)
        lab.host.packet_filter.append(Masquerade(source=str(subnet), not_oif=bridge))
        return
    segment = lab.uplinks[attach.parent]
    if not isinstance(attach, PipeworkDhcpAttach) and str(attach.gateway) != segment.gateway:
        site.refuse(
            "agent.attach.gateway",
            f"found {attach.gateway}; a lab has one gateway on a network, that of {attach.parent}: {segment.gateway}",
        )
    if isinstance(attach, MacvlanAttach):
        _attach_by_macvlan(lab, site, attach)
        return
    if isinstance(attach, PipeworkDhcpAttach):
        _serve_dhcp(lab, site, attach.parent)
        lab.needs["busybox"] = "busybox-static"
        lab.program(pipework_host.LEASE_SCRIPT, pipework_host.LEASE_TEXT)
    lab.program(pipework_host.PATH, pipework_host.STAND_IN)
    if site.intent.agent.container is not None:
        # The stand-in finds an agent without a container by the container's name.
        lab.file_links[f"/run/netns/{site.intent.agent.container}"] = "agent"
    site.notes.append("pipework has not run yet: the lab has a stand-in for it, which the commands of --apply can run")


def _add_sources(lab: LabDraft, site: _Site) -> None:
    """Give the agent the further addresses that [[agent.source]] names, unless pipework has yet to attach it."""
    if not lab.agent.addresses:
        return
    own = IPv4Interface((lab.agent.addresses[0].address, lab.agent.addresses[0].prefixlen))
    interface = lab.agent.links[0].name
    for number, source in enumerate(site.intent.agent.source, 1):
        key = f"agent.source[{number}]"
        if source.interface not in (None, interface):
            site.refuse(f"{key}.interface", f"found {source.interface!r}; its agent has {interface} alone")
        elif source.address is not None and source.address not in own.network:
            site.refuse(f"{key}.address", f"found {source.address}; it needs an address of {own.network}")
        elif source.address not in (None, own.ip):
            lab.agent.address(interface, f"{source.address}/{own.network.prefixlen}")


def _attach_by_macvlan(lab: LabDraft, site: _Site, attach: MacvlanAttach) -> None:
    """Give the agent the first free address of the pool, as Docker does."""
    used = _used(lab, attach.parent)
    pool = attach.ip_range or attach.subnet
    first = next(
        (
            pool.network_address + number
            for number in range(pool.num_addresses)
            if pool.network_address + number not in used and _usable(pool.network_address + number, attach.subnet)
        ),
        None,
    )
    if first is None:
        site.refuse("agent.attach.ip_range", f"{pool} has no address left for the agent")
        return
    mac = (b"\x02\x42" + first.packed).hex(":")
    lab.on_parent(attach.parent, f"{first}/{attach.subnet.prefixlen}", mac=mac, gateway=str(attach.gateway))


def _used(lab: LabDraft, uplink: str) -> set[IPv4Address]:
    """Return the IPv4 addresses of the machines on an uplink's network."""
    machines = [lab.host, lab.gateways[uplink], *filter(None, [lab.neighbours.get(uplink)])]
    return {IPv4Address(a.address) for machine in machines for a in machine.addresses if a.family == 4}


def _serve_dhcp(lab: LabDraft, site: _Site, parent: str) -> None:
    """Add a DHCP server with the last free addresses of the parent's network."""
    network, used = lab.uplinks[parent].subnet, _used(lab, parent)

    def free(number: int) -> bool:
        return number > 0 and network.network_address + number not in used

    last = next((number for number in range(network.num_addresses - 2, 0, -1) if free(number)), 0)
    first = last
    while free(first - 1) and last - first + 1 < LEASES:
        first -= 1
    server = next((number for number in range(1, first) if free(number)), None)
    if server is None and last > first:
        server, first = first, first + 1
    if server is None:
        site.refuse(f"uplinks.{toml_key(parent)}.address", f"{network} has no addresses left for a DHCP server")
        return
    lab.serve_dhcp(parent, first, last, number=server)


def _document(lab: LabDraft, site: _Site, bridge: str, subnet: IPv4Network) -> dict[str, Any]:
    """Return the site file's document with the lab's agent, which is a namespace, and with all addresses."""
    document = site.intent.as_json()
    attach = document["agent"]["attach"]
    if isinstance(site.intent.agent.attach, NatAttach):
        attach = {"mode": "nat", "bridge": bridge, "subnet": str(subnet)}
    document["agent"] |= {"netns": AGENT_PATH, "attach": attach}
    document["agent"].pop("container", None)
    for name in lab.uplinks:
        address = next(a for a in lab.host.addresses if a.interface == name and a.family == 4)
        document["uplinks"][name]["address"] = f"{address.address}/{address.prefixlen}"
    probe = document.setdefault("probe", {})
    probe.setdefault("timeout", PROBE_TIMEOUT)
    if attach["mode"] == "macvlan":
        probe.setdefault("dhcp_wait", DHCP_WAIT)
    probe["target"] = lab.probe_target
    if any(segment.subnet6 is not None for segment in lab.uplinks.values()):
        probe["target6"] = lab.probe_target6
    return document
