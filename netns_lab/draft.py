"""A lab while a scenario describes it: machines, uplinks, the agent's place, files. Finishing it gives a LabPlan.

A draft can be changed, a plan cannot; neither touches the kernel.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface
from typing import Any

from netns_lab.nft_rules import LabRule
from netns_lab.plan import (
    DHCP_WAIT,
    HOST,
    HOST_PORT,
    PROBE_TARGET,
    PROBE_TARGET6,
    PROBE_TIMEOUT,
    RESOLVER,
    RT_TABLES,
    RT_TABLES_TEXT,
    SWITCH,
    Cable,
    LabPlan,
    Machine,
    Radio,
    SegmentMachines,
)
from netns_lab.services.dhcp_server import DHCPPool
from viacheck.model.address_family import Family
from viacheck.model.intent_file import parse_intent
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.routing_names import TABLE_MAIN


@dataclass(slots=True)
class MachineDraft:
    """A machine while a scenario describes it."""

    name: str
    links: list[Link] = field(default_factory=list)
    addresses: list[Address] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    packet_filter: list[LabRule] = field(default_factory=list)
    answers_on: tuple[str, ...] = ()
    dhcp: DHCPPool | None = None

    def link(
        self,
        name: str,
        kind: str = "veth",
        *,
        master: str | None = None,
        mtu: int = 1500,
        mac: str | None = None,
        mode: str | None = None,
        host_parent: int | None = None,
    ) -> None:
        """Add an interface that is up. Indexes differ between machines: equal indexes delay a veth's carrier events.

        ``host_parent`` is the index of a macvlan's parent among the host's interfaces.
        """
        serial = sum(self.name.encode()) % 199
        index = 2 + len(self.links) + 10 * (1 + serial)
        mac = mac or f"02:00:{serial:02x}:{len(self.name):02x}:{len(self.links):02x}:01"
        link = Link(
            index=index, name=name, kind=kind, flags=("UP",), mac=mac, mtu=mtu, master=master, mode=mode,
            peer_index=host_parent, peer_netnsid=None if host_parent is None else 0,
        )  # fmt: skip
        self.links.append(link)

    def index_of(self, name: str) -> int:
        """Return the index of an interface of the draft."""
        return next(link.index for link in self.links if link.name == name)

    def address(self, interface: str, address: str) -> None:
        """Give an interface an address in CIDR form."""
        parsed = ip_interface(address)
        self.addresses.append(
            Address(
                interface=interface, family=parsed.version, address=str(parsed.ip), prefixlen=parsed.network.prefixlen
            )
        )

    def route(
        self,
        destination: str,
        *,
        via: str | None = None,
        dev: str | None = None,
        table: int = TABLE_MAIN,
        type: str = "unicast",  # noqa: A002 - the keyword of ip-route(8)
        metric: int = 0,
    ) -> None:
        """Add a route; the family of a ``default`` route follows from ``via``."""
        if destination == "default":
            destination = "::/0" if via and ":" in via else "0.0.0.0/0"
        family: Family = 6 if ":" in destination else 4
        hops = (Nexthop(gateway=via, interface=dev),) if via or dev else ()
        self.routes.append(
            Route(family=family, table=table, destination=destination, type=type, nexthops=hops, metric=metric)
        )

    def freeze(self) -> Machine:
        """Return the finished description."""
        state = NetworkState(
            links=tuple(self.links),
            addresses=tuple(self.addresses),
            rules=tuple(self.rules),
            routes=tuple(self.routes),
            sysctls=dict(self.sysctls),
        )
        return Machine(self.name, state, tuple(self.packet_filter), self.answers_on, self.dhcp)


@dataclass(frozen=True, slots=True)
class LabSegment:
    """A physical network outside the host: its subnet, and the gateway on it."""

    name: str
    subnet: IPv4Network
    subnet6: IPv6Network | None = None
    router: int = 1
    """The gateway's host number."""
    router6: int = 1
    """The gateway's host number in the IPv6 subnet."""

    def __getitem__(self, number: int) -> IPv4Interface:
        """Return the segment's address with that host number, with its prefix."""
        return IPv4Interface((self.subnet.network_address + number, self.subnet.prefixlen))

    def v6(self, number: int) -> IPv6Interface:
        """Return the segment's IPv6 address with that host number, with its prefix."""
        if self.subnet6 is None:
            raise ValueError(f"segment {self.name} has no IPv6 subnet")
        return IPv6Interface((self.subnet6.network_address + number, self.subnet6.prefixlen))

    @property
    def gateway(self) -> str:
        """The gateway's address."""
        return str(self[self.router].ip)

    @property
    def gateway6(self) -> str:
        """The gateway's IPv6 address."""
        return str(self.v6(self.router6).ip)


class LabDraft:
    """A lab while a scenario describes it."""

    def __init__(self, name: str, title: str, guide: str) -> None:
        self.name, self.title, self.guide = name, title, guide
        self.host = MachineDraft(HOST)
        self.agent = MachineDraft("agent")
        self.gateways: dict[str, MachineDraft] = {}
        self.cables: list[Cable] = []
        self.files = {RT_TABLES: RT_TABLES_TEXT, "/etc/resolv.conf": f"nameserver {RESOLVER}\n"}
        self.executables: set[str] = set()
        self.file_links: dict[str, str] = {}
        self.uplinks: dict[str, LabSegment] = {}
        self.neighbours: dict[str, MachineDraft] = {}
        self.switches: dict[str, MachineDraft] = {}
        self.hidden: list[str] = []
        self.leased: str | None = None
        self.daemons = False
        self.networkd = False
        self.network_manager = False
        self.notes: list[str] = []
        self.boot: list[tuple[str, ...]] = []
        self.needs: dict[str, str] = {}
        self.link_hook: str | None = None
        self.radios: list[Radio] = []
        self.commands: list[tuple[str, tuple[str, ...]]] = []
        self.probe_target, self.probe_target6 = PROBE_TARGET, PROBE_TARGET6

    def uplink(
        self, interface: str, subnet: str, number: int = 9, subnet6: str | None = None, *, neighbour: int | None = None
    ) -> LabSegment:
        """Give the host an uplink, with a gateway at its other end that leads to the probe target.

        With the host number of a ``neighbour`` the cable ends at a switch, which joins host, gateway and neighbour.
        """
        segment = LabSegment(f"{interface}-net", IPv4Network(subnet), IPv6Network(subnet6) if subnet6 else None)
        return self.segment(interface, segment, number, neighbour=neighbour)

    def segment(
        self, interface: str, segment: LabSegment, number: int, number6: int = 9, *, neighbour: int | None = None
    ) -> LabSegment:
        """Give the host an uplink to a segment: the numbers are those of the host's addresses on it."""
        gateway = MachineDraft(f"gw-{interface}", answers_on=(self.probe_target, RESOLVER))
        gateway.link("lan0")
        gateway.address("lan0", str(segment[segment.router]))
        for address in dict.fromkeys((self.probe_target, RESOLVER)):
            if address != segment.gateway:
                gateway.address("lo", f"{address}/32")
        self.host.link(interface)
        self.host.address(interface, str(segment[number]))
        if segment.subnet6 is not None:
            gateway.address("lan0", str(segment.v6(segment.router6)))
            if self.probe_target6 != segment.gateway6:
                gateway.address("lo", f"{self.probe_target6}/128")
            gateway.answers_on = (*gateway.answers_on, self.probe_target6)
            self.host.address(interface, str(segment.v6(number6)))
        if neighbour is None:
            self.cables.append(Cable("host", interface, gateway.name, "lan0"))
        else:
            self._plug_into_switch(interface, gateway, str(segment[neighbour]))
        self.gateways[interface] = gateway
        self.uplinks[interface] = segment
        return segment

    def _plug_into_switch(self, uplink: str, gateway: MachineDraft, neighbour_address: str) -> None:
        neighbour = MachineDraft(f"lan-{uplink}")
        neighbour.link("lan0")
        neighbour.address("lan0", neighbour_address)
        switch = MachineDraft(f"switch-{uplink}")
        ends = ((HOST_PORT, "host", uplink), ("to-gw", gateway.name, "lan0"), ("to-lan", neighbour.name, "lan0"))
        for port, machine, interface in ends:
            switch.link(port, master=SWITCH)
            self.cables.append(Cable(machine, interface, switch.name, port))
        switch.link(SWITCH, "bridge")
        self.neighbours[uplink], self.switches[uplink] = neighbour, switch

    def serve_dhcp(
        self, uplink: str, first: int, last: int, *, number: int = 3, renew_after: int | None = None
    ) -> None:
        """Add a DHCP server on an uplink's segment that hands out the addresses with these host numbers.

        The server has its own address, so that it stays when the router's address goes.

        Args:
            uplink: the host's interface.
            first: host number of the first address.
            last: host number of the last address.
            number: the server's own host number.
            renew_after: seconds after which clients must renew their lease; None for half of the lease time.
        """
        segment = self.uplinks[uplink]
        self.gateways[uplink].address("lan0", str(segment[number]))
        self.gateways[uplink].dhcp = DHCPPool(
            subnet=str(segment.subnet), first=str(segment[first].ip), last=str(segment[last].ip),
            router=segment.gateway, server=str(segment[number].ip), renew_after=renew_after,
        )  # fmt: skip

    def on_parent(
        self, parent: str, address: str | None, *, interface: str = "eth0", mac: str, gateway: str | None = None
    ) -> None:
        """Put the agent on an uplink's segment by a macvlan interface in bridge mode."""
        self.agent.link(interface, "macvlan", mac=mac, mode="bridge", host_parent=self.host.index_of(parent))
        if address is not None:
            self.agent.address(interface, address)
        if gateway is not None:
            self.agent.route("default", via=gateway, dev=interface)

    def type_on(self, machine: str, *lines: str) -> None:
        """Type commands on a machine of a virtual machine's lab, after the builder has made everything else."""
        self.commands += [(machine, tuple(shlex.split(line))) for line in lines]

    def shell_on(self, machine: str, line: str) -> None:
        """Type a line with pipes or substitutions on a machine of a virtual machine's lab."""
        self.commands.append((machine, ("sh", "-e", "-c", line)))

    def program(self, path: str, text: str) -> None:
        """Give the host an executable file."""
        self.files[path] = text
        self.executables.add(path)

    def behind_bridge(self, bridge: str, subnet: str, subnet6: str | None = None) -> IPv4Network:
        """Put the agent behind a bridge of the host, as Docker's bridge driver does."""
        network = IPv4Network(subnet)
        inside, agent = network.network_address + 1, network.network_address + 2
        self.host.link("veth-agent", master=bridge)
        self.host.link(bridge, "bridge")
        self.host.address(bridge, f"{inside}/{network.prefixlen}")
        self.agent.link("eth0")
        self.agent.address("eth0", f"{agent}/{network.prefixlen}")
        self.agent.route("default", via=str(inside), dev="eth0")
        self.host.sysctls["net/ipv4/ip_forward"] = "1"
        if subnet6 is not None:
            network6 = IPv6Network(subnet6)
            inside6, agent6 = network6.network_address + 1, network6.network_address + 2
            self.host.address(bridge, f"{inside6}/{network6.prefixlen}")
            self.agent.address("eth0", f"{agent6}/{network6.prefixlen}")
            self.agent.route("default", via=str(inside6), dev="eth0")
            self.host.sysctls["net/ipv6/conf/all/forwarding"] = "1"
            for interface, segment in self.uplinks.items():
                if segment.subnet6 is not None:
                    host6 = next(a.address for a in self.host.addresses if a.interface == interface and a.family == 6)
                    self.gateways[interface].route(subnet6, via=host6, dev="lan0")
        self.cables.append(Cable("host", "veth-agent", "agent", "eth0"))
        return network

    def finish(self, intent: dict[str, Any], source: str | None = None) -> LabPlan:
        """Return the finished description.

        Args:
            intent: the document of a site file, without schema and site where the lab gives them.
            source: what a message about a mistake in the intent begins with; None for the lab's name.

        Raises:
            IntentError: the intent is invalid.
        """
        document = {"schema": 1, "site": {"name": self.name}, **intent}
        document.setdefault(
            "uplinks",
            {
                interface: {"gateway": segment.gateway}
                | ({"gateway6": segment.gateway6} if segment.subnet6 is not None else {})
                for interface, segment in self.uplinks.items()
            },
        )
        probe: dict[str, Any] = {"target": self.probe_target, "timeout": PROBE_TIMEOUT}
        if document["agent"]["attach"]["mode"] == "macvlan":
            probe["dhcp_wait"] = DHCP_WAIT
        if any(segment.subnet6 is not None for segment in self.uplinks.values()):
            probe["target6"] = self.probe_target6
        document.setdefault("probe", probe)
        return LabPlan(
            name=self.name,
            title=self.title,
            guide=self.guide,
            host=self.host.freeze(),
            agent=self.agent.freeze(),
            gateways=tuple(gateway.freeze() for gateway in self.gateways.values()),
            cables=tuple(self.cables),
            files=dict(self.files),
            intent=parse_intent(document, source=source or f"lab {self.name}"),
            segments={interface: self._segment_machines(interface) for interface in self.uplinks},
            neighbours=tuple(neighbour.freeze() for neighbour in self.neighbours.values()),
            switches=tuple(switch.freeze() for switch in self.switches.values()),
            executables=frozenset(self.executables),
            file_links=dict(self.file_links),
            hidden=tuple(self.hidden),
            leased=self.leased,
            daemons=self.daemons,
            networkd=self.networkd,
            network_manager=self.network_manager,
            notes=tuple(self.notes),
            boot=tuple(self.boot),
            needs=dict(self.needs),
            link_hook=self.link_hook,
            radios=tuple(self.radios),
            commands=tuple(self.commands),
        )

    def _segment_machines(self, uplink: str) -> SegmentMachines:
        switch, neighbour = self.switches.get(uplink), self.neighbours.get(uplink)
        return SegmentMachines(
            self.gateways[uplink].name, switch.name if switch else None, neighbour.name if neighbour else None
        )
