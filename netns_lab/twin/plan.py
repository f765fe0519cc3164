"""Describes the twin of a host: its machines and cables, and the state that host and agent are to have in it.

What lies beyond the host is made up: behind each uplink a gateway answers as the intent and the host's own neighbour
table say. What the kernel here cannot build is replaced by a cable, and named.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, ip_address, ip_interface

from fixtures.model.intent import Intent, MacvlanAttach, PipeworkStaticAttach, parse_intent, seconds
from fixtures.model.snapshot import Address, Link, NetworkState, Nexthop, Route, Snapshot
from fixtures.reasoning.situation import Situation
from netns_lab.dhcp_server import DHCPPool
from netns_lab.plan import (
    HOST,
    PROBE_TARGET6,
    Cable,
    LabPlan,
    Machine,
    MachineDraft,
    SegmentMachines,
)
from netns_lab.twin.files import files_of, resolvers_of

AGENT = "agent"
BEYOND = "beyond"
"""The machine where every cable ends that leads to no gateway."""
GATEWAY_PORT = "lan0"
MOST_LINKS = 256
LONGEST_TIMEOUT = 0.4
"""Seconds that a probe's answer is waited for: everything that answers here answers at once."""
FAR_INDEX = 100_000
"""Where the indexes of the far ends begin: a pair with equal ones delays its carrier's events."""
_NAME = re.compile(r"[^\s/:\x00-\x1f\x7f]{1,15}")
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_READ = ("links", "addresses", "rules", "routes")
_SILENT = ("FAILED",)
_ALIVE = ("REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT")
_SMALLEST_MTU, _LARGEST_MTU = 68, 65535
_ON_LINK = ("macvlan", "macvtap", "ipvlan")


class NoTwin(Exception):
    """No twin can be built of this snapshot; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Twin:
    """The description of a twin."""

    lab: LabPlan
    host: NetworkState
    """What the host's namespace is to hold in the end."""
    agent: NetworkState | None
    """The same of the agent; None for an agent that was not there."""
    silent: tuple[str, ...]
    """Uplinks whose gateway did not answer ARP when the snapshot was taken."""
    wireless: tuple[str, ...]


def plan_twin(snapshot: Snapshot, intent: Intent, name: str) -> Twin:
    """Describe the twin of a snapshot's host.

    Raises:
        NoTwin: when the snapshot lacks what cannot be made up, or holds what no host has.
    """
    return _Draft(snapshot, intent, name).finish()


class _Draft:
    """A twin while it is described."""

    def __init__(self, snapshot: Snapshot, intent: Intent, name: str) -> None:
        self.snapshot, self.intent, self.name = snapshot, intent, name
        self.notes: list[str] = []
        self.host_state, self.agent_state = snapshot.host, snapshot.agent
        _check(snapshot)
        if self.agent_state is None and self._agent_was_hidden():
            self._make_agent_up()
        self.host_links: list[Link] = []
        self.agent_links: list[Link] = []
        self.cables: list[Cable] = []
        self.gateways: dict[str, MachineDraft] = {}
        self.beyond = MachineDraft(BEYOND)
        self.silent: list[str] = []
        self.resolvers, notes = resolvers_of(snapshot)
        self.notes += notes

    def finish(self) -> Twin:
        for uplink in self.intent.uplinks:
            self.gateways[uplink] = self._gateway(uplink)
        for link in self.host_state.links:
            if link.name != "lo":
                self.host_links.append(self._host_link(link))
        if self.agent_state is not None:
            self.agent_links += [self._agent_link(link) for link in self.agent_state.links if link.name != "lo"]
        own = {address.address for address in self.host_state.addresses}
        self.notes += [
            f"nobody answers for names at {one}, an address of the host itself: the program there is not rebuilt"
            for one in self.resolvers if one in own
        ]  # fmt: skip
        files = files_of(self.snapshot, self.intent, self.resolvers)
        lab = LabPlan(
            name=f"twin:{self.name}",
            title=f"twin of {self.intent.site.name}, as it was at {self.snapshot.taken}",
            guide="",
            host=Machine(HOST, NetworkState(links=tuple(self.host_links))),
            agent=Machine(AGENT, NetworkState(links=tuple(self.agent_links))),
            gateways=tuple(gateway.freeze() for gateway in self.gateways.values()),
            cables=tuple(self.cables),
            files=files.texts,
            intent=_impatient(self.intent),
            segments={uplink: SegmentMachines(self.gateways[uplink].name) for uplink in self.intent.uplinks},
            neighbours=(self.beyond.freeze(),),
            executables=files.executables,
            file_links=files.links,
            hidden=files.hidden,
            notes=(*self.notes, *files.notes),
        )
        wireless = tuple(link.name for link in self.host_state.links if link.wireless)
        return Twin(lab, self.host_state, self.agent_state, tuple(self.silent), wireless)

    # The host's interfaces

    def _host_link(self, link: Link) -> Link:
        built = _plain(link, master=self._master(link))
        if link.kind == "bridge":
            return replace(built, kind="bridge")
        if link.kind == "macvlan" and link.peer_netnsid is None and self._parent_index(link) is not None:
            return replace(built, kind="macvlan", peer_index=link.peer_index, mode=link.mode or "bridge")
        agent_end = self._agent_end(link)
        if agent_end is not None:
            self.cables.append(Cable(HOST, link.name, AGENT, agent_end.name))
            return built
        partner = self._partner(link)
        if partner is not None:
            if link.index < partner.index:
                self.cables.append(Cable(HOST, link.name, HOST, partner.name))
            return built
        uplink = self._leads_to(link)
        if uplink is not None:
            self._plug_into_gateway(link, uplink)
        else:
            self._leave_open(HOST, link)
        self._name_replaced(link, f"{link.name}: ")
        return built

    def _master(self, link: Link) -> str | None:
        master = self.host_state.link(link.master) if link.master is not None else None
        if master is None or master.kind == "bridge":
            return link.master if master is not None else None
        self.notes.append(f"{link.name}: is no longer a part of {master.name}, for which a cable stands")
        return None

    def _parent_index(self, link: Link) -> int | None:
        parent = self.host_state.link_by_index(link.peer_index) if link.peer_index is not None else None
        return parent.index if parent is not None and parent.name != "lo" else None

    def _agent_end(self, link: Link) -> Link | None:
        """The agent's end of a cable, where the other end is this one."""
        if self.agent_state is None or link.kind != "veth" or link.peer_netnsid is None or link.peer_index is None:
            return None
        other = self.agent_state.link_by_index(link.peer_index)
        ours = other is not None and other.kind == "veth" and other.peer_index == link.index
        return other if ours and other is not None and other.peer_netnsid is not None else None

    def _partner(self, link: Link) -> Link | None:
        """The other end of a cable that does not leave the host."""
        if link.kind != "veth" or link.peer_netnsid is not None or link.peer_index is None:
            return None
        other = self.host_state.link_by_index(link.peer_index)
        return other if other is not None and other.kind == "veth" and other.peer_index == link.index else None

    def _leads_to(self, link: Link) -> str | None:
        """The uplink whose segment an interface leads to: it is one itself, or a port of one that is a bridge."""
        if link.name in self.gateways:
            return link.name
        if link.master in self.intent.uplinks and self._is_outside(link):
            return link.master
        by_it = [
            route
            for route in self.host_state.routes
            if any(hop.gateway and hop.interface == link.name for hop in route.nexthops)
        ]
        if not by_it:
            return None
        self.gateways[link.name] = self._gateway(link.name)
        return link.name

    def _is_outside(self, link: Link) -> bool:
        """What has no other end that is known: a network card, in whatever way it is driven."""
        return link.kind != "veth" or link.master not in self.intent.uplinks or not self._has_other_port(link)

    def _has_other_port(self, link: Link) -> bool:
        return any(one.master == link.master and one.kind != "veth" for one in self.host_state.links)

    def _plug_into_gateway(self, link: Link, uplink: str) -> None:
        gateway = self.gateways[uplink]
        if any(one.name == GATEWAY_PORT for one in gateway.links):
            self._leave_open(HOST, link)
            return
        has_carrier = link.carrier or not link.up
        if not has_carrier:
            self.notes.append(f"{link.name} had no carrier: its other end is down")
        port = Link(
            index=FAR_INDEX + link.index, name=GATEWAY_PORT, kind="veth", flags=("UP",) if has_carrier else (),
            mac=self._mac_of_gateway(uplink), mtu=_mtu(link),
        )  # fmt: skip
        gateway.links.append(port)
        self.cables.append(Cable(HOST, link.name, gateway.name, GATEWAY_PORT))

    def _leave_open(self, machine: str, link: Link) -> None:
        far = f"far{len(self.beyond.links)}"
        has_carrier = link.carrier or not link.up
        index = FAR_INDEX + len(self.beyond.links)
        flags = ("UP",) if has_carrier else ()
        self.beyond.links.append(Link(index=index, name=far, kind="veth", flags=flags, mtu=_mtu(link)))
        self.cables.append(Cable(machine, link.name, BEYOND, far))

    def _name_replaced(self, link: Link, what: str) -> None:
        if link.wireless:
            self.notes.append(f"{what}a cable stands for the wireless interface")
        elif link.kind not in (None, "veth"):
            self.notes.append(f"{what}a cable stands for the {link.kind}, which cannot be built here")

    # Beyond the host

    def _gateway(self, uplink: str) -> MachineDraft:
        """The machine behind an uplink: the intent's gateway, and whoever else the host's routes need and know."""
        gateway = MachineDraft(f"gw-{uplink}")
        subnets = [a for a in self.host_state.addresses if a.interface in self._same_segment(uplink)]
        held: dict[str, str] = {}
        for address in dict.fromkeys(self._gateway_addresses(uplink)):
            held[address] = GATEWAY_PORT
        outside = [str(self.intent.probe.target), str(self.intent.probe.target6 or PROBE_TARGET6), *self.resolvers]
        own = {address.address for address in self.host_state.addresses}
        others = {name: self._subnets(name) for name in self.intent.uplinks if name != uplink}
        for address in dict.fromkeys(outside):
            here = any(ip_address(address) in one.network for one in subnets)
            elsewhere = any(ip_address(address) in one for networks in others.values() for one in networks)
            if address in own or (elsewhere and not here):
                continue
            held.setdefault(address, GATEWAY_PORT if here else "lo")
            gateway.answers_on = (*gateway.answers_on, address)
        for address, interface in held.items():
            length = _length(address, subnets) if interface != "lo" else (128 if ":" in address else 32)
            gateway.address(interface, f"{address}/{length}")
        self._lead_back(gateway, uplink)
        if self._state_of(str(self.intent.uplinks[uplink].gateway) if uplink in self.intent.uplinks else "") in _SILENT:
            self.silent.append(uplink)
            self.notes.append(f"the gateway on {uplink} did not answer ARP when the snapshot was taken, nor does it here")
        if self.intent.mode == "pipework-dhcp" and uplink == self.intent.egress.uplink:
            gateway.dhcp = self._pool(uplink, subnets)
        return gateway

    def _same_segment(self, uplink: str) -> set[str]:
        link = self.host_state.link(uplink)
        return {uplink} | ({link.master} if link is not None and link.master is not None else set())

    def _subnets(self, uplink: str) -> list[object]:
        return [a.network for a in self.host_state.addresses if a.interface in self._same_segment(uplink)]
