"""Describes the twin of a host: its machines and cables, and the state that host and agent are to have in it.

What the kernel here cannot build, such as a vlan or a wireless interface, is replaced by a cable, and named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from netns_lab.draft import MachineDraft
from netns_lab.plan import HOST, Cable, LabPlan, Machine, SegmentMachines
from netns_lab.replica.replica_files import files_of, resolvers_of
from netns_lab.replica.upstream import GATEWAY_PORT, Upstream
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.intent import Intent, MacvlanAttach, PipeworkStaticAttach, parse_intent, seconds
from viacheck.model.snapshot import Address, Link, NetworkState, Nexthop, Route, Snapshot

AGENT = "agent"
OPEN_ENDS = "open-ends"
"""The machine where every cable ends that leads to no gateway."""
MOST_LINKS = 256
LONGEST_TIMEOUT = 0.4
"""Seconds that a probe's answer is waited for: whatever answers in a twin answers at once."""
FAR_INDEX = 100_000
"""Where the indexes of far ends begin: a cable with equal ones delays its carrier's events."""
LONGEST_NAME = 15
"""Octets of an interface's name."""
_NAME = re.compile(r"[^\s/:\x00-\x1f\x7f]+")
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_INDISPENSABLE = ("links", "addresses", "rules", "routes")
_SMALLEST_MTU, _LARGEST_MTU = 68, 65535
_MACVLAN_MODES = ("private", "vepa", "bridge", "passthru", "source")
_SITS_ON_PARENT = ("macvlan", "macvtap", "ipvlan")


class ReplicaImpossible(Exception):
    """No twin can be built of this snapshot; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """The description of a replica."""

    snapshot: Snapshot
    """What it is the twin of."""
    lab: LabPlan
    host: NetworkState
    """What the host's namespace is to hold in the end."""
    agent: NetworkState | None
    """The same of the agent's; None for an agent that was not there."""
    agent_made_up: bool
    """The agent's own state is not in the snapshot."""
    silent: tuple[str, ...]
    """Uplinks whose gateway did not answer ARP when the snapshot was taken."""
    wireless: tuple[str, ...]
    """Interfaces that the host's /sys says to be wireless."""


def plan_replica(snapshot: Snapshot, intent: Intent, name: str) -> ReplicaPlan:
    """Describe the twin of a snapshot's host.

    Raises:
        NoTwin: when the snapshot lacks what cannot be made up, or holds what no host has.
    """
    try:
        return _plan(snapshot, intent, name)
    except ValueError as error:
        raise ReplicaImpossible(f"the snapshot holds what no host has: {error}") from None


def _plan(snapshot: Snapshot, intent: Intent, name: str) -> ReplicaPlan:
    _refuse_what_no_host_has(snapshot)
    source, notes = snapshot, list[str]()
    agent = snapshot.agent
    if agent is None and _was_hidden(snapshot):
        snapshot = _with_agent_made_up(snapshot, intent)
        agent = snapshot.agent
        notes.append("the agent could not be entered when the snapshot was taken: its namespace is made up")
    resolvers, about_resolvers = resolvers_of(snapshot)
    notes += about_resolvers
    wiring = _Wiring(snapshot.host, agent, intent, resolvers)
    wiring.lay()
    notes += wiring.notes
    own = {address.address for address in snapshot.host.addresses}
    notes += [
        f"the host itself answers for names at {one}: the program is not rebuilt" for one in resolvers if one in own
    ]
    files = files_of(snapshot, intent, resolvers)
    lab = LabPlan(
        name=f"replica:{name}",
        title=f"twin of {intent.site.name}, as it was at {snapshot.taken}",
        guide="",
        host=Machine(HOST, NetworkState(links=tuple(wiring.host_links))),
        agent=Machine(AGENT, NetworkState(links=tuple(wiring.agent_links))),
        gateways=tuple(gateway.freeze() for gateway in wiring.gateways.values()),
        cables=tuple(wiring.cables),
        files=files.texts,
        intent=_impatient(intent),
        segments={uplink: SegmentMachines(wiring.gateways[uplink].name) for uplink in intent.uplinks},
        neighbours=(wiring.open_ends.freeze(),),
        executables=files.executables,
        file_links=files.links,
        hidden=files.hidden,
        notes=(*notes, *files.notes),
    )
    wireless = tuple(link.name for link in snapshot.host.links if link.wireless)
    return ReplicaPlan(source, lab, snapshot.host, agent, source.agent is None, tuple(wiring.silent), wireless)


class _Wiring:
    """The interfaces of host and agent, and where the cables from them lead."""

    def __init__(
        self, host: NetworkState, agent: NetworkState | None, intent: Intent, resolvers: tuple[str, ...]
    ) -> None:
        self._host, self._agent, self._intent = host, agent, intent
        self._beyond = Upstream(host, intent, resolvers)
        self.host_links: list[Link] = []
        self.agent_links: list[Link] = []
        self.cables: list[Cable] = []
        self.gateways = {uplink: self._beyond.gateway(uplink) for uplink in intent.uplinks}
        self.open_ends = MachineDraft(OPEN_ENDS)
        self.silent = [uplink for uplink in intent.uplinks if self._beyond.is_silent(uplink)]
        self.notes = [f"the gateway on {one} did not answer ARP then, and does not here" for one in self.silent]

    def lay(self) -> None:
        """Connect everything."""
        self.host_links = [self._host_link(link) for link in self._host.links if link.name != "lo"]
        for gateway in self.gateways.values():
            if not gateway.links:
                _unplugged(gateway)
        if self._agent is not None:
            self.agent_links = [self._agent_link(link) for link in self._agent.links if link.name != "lo"]

    def _host_link(self, link: Link) -> Link:
        built = _cable_end(link, self._master(link))
        if link.kind == "bridge":
            return replace(built, kind="bridge")
        if link.kind == "macvlan" and link.peer_netnsid is None and self._can_be_parent(link.peer_index):
            return replace(built, kind="macvlan", peer_index=link.peer_index, mode=_mode(link))
        inside = self._agents_end(link)
        if inside is not None:
            self.cables.append(Cable(HOST, link.name, AGENT, inside.name))
            return built
        partner = self._partner(link)
        if partner is not None:
            if link.index < partner.index:
                self.cables.append(Cable(HOST, link.name, HOST, partner.name))
            return built
        self._lead_out(link)
        if link.wireless:
            self.notes.append(f"{link.name}: a cable stands for the wireless interface")
        elif link.kind not in (None, "veth"):
            self.notes.append(f"{link.name}: a cable stands for the {link.kind}, which cannot be built here")
        return built

    def _agent_link(self, link: Link) -> Link:
        built = _cable_end(link, None)
        if link.kind in _SITS_ON_PARENT and link.peer_netnsid is not None and self._can_be_parent(link.peer_index):
            if link.kind != "macvlan":
                self.notes.append(f"the agent's {link.name}: a macvlan stands for the {link.kind}")
            return replace(built, kind="macvlan", peer_index=link.peer_index, peer_netnsid=0, mode=_mode(link))
        if not any(cable.other_machine == AGENT and cable.other_interface == link.name for cable in self.cables):
            self._leave_open(AGENT, link)
            self.notes.append(f"the agent's {link.name} leads nowhere here, as its other end is not on the host")
        return built

    def _master(self, link: Link) -> str | None:
        master = self._host.link(link.master) if link.master is not None else None
        if master is None or master.kind == "bridge":
            return link.master if master is not None else None
        self.notes.append(f"{link.name}: is no part of {master.name}, for which a cable stands")
        return None

    def _can_be_parent(self, index: int | None) -> bool:
        """Whether a macvlan can sit on the host's interface of that index."""
        parent = self._host.link_by_index(index) if index is not None else None
        return parent is not None and parent.name != "lo" and parent.master is None and parent.kind != "macvlan"

    def _agents_end(self, link: Link) -> Link | None:
        """The agent's end of a cable whose other end this is."""
        if self._agent is None or link.kind != "veth" or link.peer_netnsid is None or link.peer_index is None:
            return None
        other = self._agent.link_by_index(link.peer_index)
        if other is None or other.kind != "veth" or other.peer_index != link.index or other.peer_netnsid is None:
            return None
        return other

    def _partner(self, link: Link) -> Link | None:
        """The other end of a cable that does not leave the host."""
        if link.kind != "veth" or link.peer_netnsid is not None or link.peer_index is None:
            return None
        other = self._host.link_by_index(link.peer_index)
        if other is None or other is link or other.kind != "veth" or other.peer_index != link.index:
            return None
        return other

    def _lead_out(self, link: Link) -> None:
        """Plug an interface into the gateway that it leads to, or into nothing at all."""
        if not _has_carrier(link):
            self.notes.append(f"{link.name} had no carrier: its other end is down")
        name = link.name
        if link.master in self._intent.uplinks and link is self._way_out_of(link.master):
            name = link.master
        if name not in self.gateways and self._beyond.leads_somewhere(name):
            self.gateways[name] = self._beyond.gateway(name)
        gateway = self.gateways.get(name)
        if gateway is None or any(one.name == GATEWAY_PORT for one in gateway.links):
            self._leave_open(HOST, link)
            return
        port = _far_end(link, FAR_INDEX + link.index, GATEWAY_PORT)
        mac = self._beyond.mac_of_gateway(name)
        gateway.links.append(replace(port, mac=mac if _is_mac(mac) and mac != link.mac else None))
        self.cables.append(Cable(HOST, link.name, gateway.name, GATEWAY_PORT))

    def _way_out_of(self, bridge: str) -> Link | None:
        """The port by which an uplink that is a bridge leaves the host: a card, rather than a cable to a container."""
        ports = [one for one in self._host.links if one.master == bridge]
        outside = [one for one in ports if self._agents_end(one) is None and self._partner(one) is None]
        return min(outside, key=lambda one: one.kind == "veth", default=None)

    def _leave_open(self, machine: str, link: Link) -> None:
        number = len(self.open_ends.links)
        self.open_ends.links.append(_far_end(link, 2 * FAR_INDEX + number, f"far{number}"))
        self.cables.append(Cable(machine, link.name, OPEN_ENDS, f"far{number}"))


def _unplugged(gateway: MachineDraft) -> None:
    """Leave a gateway what it can have without the port that no cable leads to."""
    gateway.addresses = [one for one in gateway.addresses if one.interface != GATEWAY_PORT]
    gateway.answers_on = tuple(one.address for one in gateway.addresses if one.address in gateway.answers_on)
    gateway.routes, gateway.dhcp = [], None


def _cable_end(link: Link, master: str | None) -> Link:
    return Link(
        index=link.index, name=link.name, kind="veth", flags=("UP",) if link.up else (),
        mac=link.mac if _is_mac(link.mac) else None, mtu=_mtu(link), master=master,
    )  # fmt: skip


def _far_end(link: Link, index: int, name: str) -> Link:
    return Link(index=index, name=name, kind="veth", flags=("UP",) if _has_carrier(link) else (), mtu=_mtu(link))


def _has_carrier(link: Link) -> bool:
    """Whether something is at the other end. Of an interface that is down nobody knows: it shall come up when told."""
    return link.carrier or not link.up


def _mode(link: Link) -> str:
    return link.mode if link.kind == "macvlan" and link.mode in _MACVLAN_MODES else "bridge"


def _mtu(link: Link) -> int:
    return min(max(link.mtu, _SMALLEST_MTU), _LARGEST_MTU)


def _is_mac(mac: str | None) -> bool:
    return mac is not None and _MAC.fullmatch(mac) is not None and mac != "00:00:00:00:00:00"


def _impatient(intent: Intent) -> Intent:
    """The same intent, with no longer a wait for answers than a twin needs."""
    if seconds(intent.probe.timeout) <= LONGEST_TIMEOUT:
        return intent
    document = intent.as_json()
    document["probe"] = {**document.get("probe", {}), "timeout": f"{LONGEST_TIMEOUT * 1000:.0f}ms"}
    return parse_intent(document, source=intent.site.name)


def _refuse_what_no_host_has(snapshot: Snapshot) -> None:
    for what in _INDISPENSABLE:
        problem = snapshot.problem(what)
        if problem is not None:
            raise ReplicaImpossible(f"the snapshot lacks the host's {what}: {problem.reason}")
    for place, state in (("host", snapshot.host), ("agent", snapshot.agent)):
        if state is None:
            continue
        if len(state.links) > MOST_LINKS:
            raise ReplicaImpossible(
                f"the {place} has {len(state.links)} interfaces; a twin is built of {MOST_LINKS} at most"
            )
        names = [link.name for link in state.links]
        indexes = [link.index for link in state.links]
        for name in names:
            if not _NAME.fullmatch(name) or name in (".", "..") or len(name.encode()) > LONGEST_NAME:
                raise ReplicaImpossible(f"the {place} has an interface named {name!r}, which is no name for one")
        if len(set(names)) < len(names) or len(set(indexes)) < len(indexes):
            raise ReplicaImpossible(f"the {place} has two interfaces of one name or index")
        if any(not 0 < index < FAR_INDEX for index in indexes):
            raise ReplicaImpossible(f"the {place} has an interface with an index beyond {FAR_INDEX}")


def _was_hidden(snapshot: Snapshot) -> bool:
    """Whether the agent was there and could not be entered for want of privileges."""
    problems = (snapshot.problem(what) for what in ("agent", "container", "engine"))
    return any(problem is not None and problem.missing is not None for problem in problems)


def _with_agent_made_up(snapshot: Snapshot, intent: Intent) -> Snapshot:
    """The snapshot with an agent as the engine and the intent describe it, where its own namespace was not read.

    Raises:
        NoTwin: when not even its address can be told.
    """
    resolved, attach, host = ResolvedIntent(intent, snapshot), intent.agent.attach, snapshot.host
    free = max(link.index for link in host.links) + 1
    loopback = Link(index=1, name="lo", flags=("LOOPBACK", "UP", "LOWER_UP"), mtu=65536)
    address = resolved.agent_address
    if resolved.parent_link is not None:
        if isinstance(attach, PipeworkStaticAttach):
            address = str(attach.address.ip)
        elif isinstance(attach, MacvlanAttach) and address is None:
            address = str((attach.ip_range or attach.subnet)[-2])
        lan = [a for a in host.addresses_of(resolved.parent_link.name) if a.scope == "global"]
        if address is None or not lan:
            raise ReplicaImpossible("the agent's address on its parent is not in the snapshot: take it as root")
        link = Link(
            index=2, name="eth0", kind="macvlan", flags=("UP",), mtu=resolved.parent_link.mtu, mode="bridge",
            peer_index=resolved.parent_link.index, peer_netnsid=0,
        )  # fmt: skip
        gateway, length = resolved.lan_gateway, lan[0].prefixlen
    else:
        bridge = host.link(resolved.bridge) if resolved.bridge is not None else None
        subnet = resolved.agent_subnet
        inside = host.addresses_of(bridge.name) if bridge is not None else ()
        if bridge is None or subnet is None or not inside:
            raise ReplicaImpossible("the agent's bridge or subnet is not in the snapshot: take it as root")
        address = address or next(str(one) for one in subnet.hosts() if str(one) != inside[0].address)
        ports = [one for one in host.links if one.master == bridge.name and one.kind == "veth"]
        port = ports[0] if len(ports) == 1 and ports[0].peer_netnsid is not None else None
        if port is None:
            port = Link(
                index=free, name=f"veth{free}", kind="veth", flags=("UP", "LOWER_UP"), operstate="UP",
                master=bridge.name, mtu=bridge.mtu, peer_index=2, peer_netnsid=0,
            )  # fmt: skip
            host = replace(host, links=(*host.links, port))
        inner = port.peer_index or 2
        link = Link(
            index=inner, name="eth0", kind="veth", flags=("UP",), mtu=port.mtu, peer_index=port.index, peer_netnsid=0
        )
        gateway, length = inside[0].address, subnet.prefixlen
    default = Route(
        family=4, table=254, destination="0.0.0.0/0", nexthops=(Nexthop(gateway=gateway, interface="eth0"),)
    )
    agent = NetworkState(
        links=(loopback, link),
        addresses=(Address(interface="eth0", family=4, address=address, prefixlen=length),),
        routes=(default,),
    )
    return replace(snapshot, host=host, agent=agent)
