"""The description of a lab: machines, cables between them, and the intent that must hold. Plain data.

A machine's networking is described with the very types of a snapshot, so that a lab can be built from a saved host as
well as from a scenario.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface
from typing import Any

from fixtures.model.intent import Intent, parse_intent
from fixtures.model.snapshot import (
    TABLE_MAIN,
    Address,
    Family,
    Link,
    NetworkState,
    Nexthop,
    Route,
    Rule,
)
from netns_lab.nftables import LabRule

PROBE_TARGET = "198.51.100.1"
PROBE_TARGET6 = "2001:db8:ffff::1"
RESOLVER = "198.51.100.53"
RT_TABLES = "/etc/iproute2/rt_tables"
RT_TABLES_TEXT = "255\tlocal\n254\tmain\n253\tdefault\n0\tunspec\n"


@dataclass(frozen=True, slots=True)
class Cable:
    """A point-to-point link between two machines, made as a veth pair."""

    machine: str
    interface: str
    other_machine: str
    other_interface: str


@dataclass(frozen=True, slots=True)
class Machine:
    """One network namespace of the lab and what is configured in it."""

    name: str
    state: NetworkState = field(default_factory=NetworkState)
    packet_filter: tuple[LabRule, ...] = ()
    answers_on: tuple[str, ...] = ()
    """Addresses on which UDP, TCP and DNS are answered, besides the ARP and ICMP that the kernel answers."""


@dataclass(frozen=True, slots=True)
class LabPlan:
    """A whole lab, ready to be built."""

    name: str
    title: str
    guide: str
    host: Machine
    agent: Machine
    gateways: tuple[Machine, ...]
    cables: tuple[Cable, ...]
    files: dict[str, str]
    """Private files of the host, by absolute path."""
    intent: Intent

    @property
    def machines(self) -> tuple[Machine, ...]:
        """Every machine: the host first, then the agent, then the gateways."""
        return (self.host, self.agent, *self.gateways)


@dataclass(slots=True)
class MachineDraft:
    """A machine while it is being described."""

    name: str
    links: list[Link] = field(default_factory=list)
    addresses: list[Address] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    packet_filter: list[LabRule] = field(default_factory=list)
    answers_on: tuple[str, ...] = ()

    def link(self, name: str, kind: str = "veth", *, master: str | None = None, mtu: int = 1500) -> None:
        """Add an interface that is up. Indexes differ between machines: equal ones delay a veth's carrier events."""
        serial = sum(self.name.encode()) % 199
        index = 2 + len(self.links) + 10 * (1 + serial)
        mac = f"02:00:{serial:02x}:{len(self.name):02x}:{len(self.links):02x}:01"
        self.links.append(Link(index=index, name=name, kind=kind, flags=("UP",), mac=mac, mtu=mtu, master=master))

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
        type: str = "unicast",  # noqa: A002 - the word of ip-route(8)
        metric: int = 0,
    ) -> None:
        """Add a route; ``default`` may be given with ``via`` telling the family."""
        if destination == "default":
            destination = "::/0" if via and ":" in via else "0.0.0.0/0"
        family: Family = 6 if ":" in destination else 4
        hops = (Nexthop(gateway=via, interface=dev),) if via or dev else ()
        self.routes.append(
            Route(family=family, table=table, destination=destination, type=type, nexthops=hops, metric=metric)
        )

    def freeze(self) -> Machine:
        """The finished description."""
        state = NetworkState(
            links=tuple(self.links),
            addresses=tuple(self.addresses),
            rules=tuple(self.rules),
            routes=tuple(self.routes),
            sysctls=dict(self.sysctls),
        )
        return Machine(self.name, state, tuple(self.packet_filter), self.answers_on)


@dataclass(frozen=True, slots=True)
class Segment:
    """A physical network outside the host: its subnet, and the gateway that answers on it."""

    name: str
    subnet: IPv4Network
    subnet6: IPv6Network | None = None

    def __getitem__(self, number: int) -> IPv4Interface:
        """The segment's address with that host number, with its prefix."""
        return IPv4Interface((self.subnet.network_address + number, self.subnet.prefixlen))

    def v6(self, number: int) -> IPv6Interface:
        """The segment's IPv6 address with that host number, with its prefix."""
        if self.subnet6 is None:
            raise ValueError(f"segment {self.name} has no IPv6 subnet")
        return IPv6Interface((self.subnet6.network_address + number, self.subnet6.prefixlen))

    @property
    def gateway(self) -> str:
        """The gateway's address."""
        return str(self[1].ip)

    @property
    def gateway6(self) -> str:
        """The gateway's IPv6 address."""
        return str(self.v6(1).ip)


class Draft:
    """A lab while a scenario describes it."""

    def __init__(self, name: str, title: str, guide: str) -> None:
        self.name, self.title, self.guide = name, title, guide
        self.host = MachineDraft("host")
        self.agent = MachineDraft("agent")
        self.gateways: dict[str, MachineDraft] = {}
        self.cables: list[Cable] = []
        self.files = {RT_TABLES: RT_TABLES_TEXT, "/etc/resolv.conf": f"nameserver {RESOLVER}\n"}
        self.uplinks: dict[str, Segment] = {}

    def uplink(self, interface: str, subnet: str, number: int = 9, subnet6: str | None = None) -> Segment:
        """Give the host an uplink, with a gateway at its other end that leads to the probe target."""
        segment = Segment(f"{interface}-net", IPv4Network(subnet), IPv6Network(subnet6) if subnet6 else None)
        gateway = MachineDraft(f"gw-{interface}", answers_on=(PROBE_TARGET, RESOLVER))
        gateway.link("lan0")
        gateway.address("lan0", str(segment[1]))
        for address in (PROBE_TARGET, RESOLVER):
            gateway.address("lo", f"{address}/32")
        self.host.link(interface)
        self.host.address(interface, str(segment[number]))
        if segment.subnet6 is not None:
            gateway.address("lan0", str(segment.v6(1)))
            gateway.address("lo", f"{PROBE_TARGET6}/128")
            gateway.answers_on = (*gateway.answers_on, PROBE_TARGET6)
            self.host.address(interface, str(segment.v6(number)))
        self.cables.append(Cable("host", interface, gateway.name, "lan0"))
        self.gateways[interface] = gateway
        self.uplinks[interface] = segment
        return segment

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

    def finish(self, intent: dict[str, Any]) -> LabPlan:
        """The finished description, with the intent that must hold in it."""
        document = {"schema": 1, "site": {"name": self.name}, **intent}
        document.setdefault(
            "uplinks",
            {
                interface: {"gateway": segment.gateway}
                | ({"gateway6": segment.gateway6} if segment.subnet6 is not None else {})
                for interface, segment in self.uplinks.items()
            },
        )
        probe: dict[str, Any] = {"target": PROBE_TARGET, "timeout": "400ms"}
        if any(segment.subnet6 is not None for segment in self.uplinks.values()):
            probe["target6"] = PROBE_TARGET6
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
            intent=parse_intent(document, source=f"lab {self.name}"),
        )


def without_agent(plan: LabPlan, bridge: str) -> LabPlan:
    """The same lab without the agent, its bridge and its NAT: what is left for a real Docker engine to make."""
    gone = {bridge, "veth-agent"}
    state = plan.host.state
    host = replace(
        plan.host,
        state=replace(
            state,
            links=tuple(link for link in state.links if link.name not in gone),
            addresses=tuple(address for address in state.addresses if address.interface not in gone),
        ),
        packet_filter=(),
    )
    cables = tuple(cable for cable in plan.cables if cable.other_machine != "agent")
    return replace(plan, host=host, agent=Machine(plan.agent.name), cables=cables)
