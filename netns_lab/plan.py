"""The finished description of a lab: machines, the cables between them, and the intent that must hold. Plain data.

A machine's networking has the types of a snapshot, so that a lab can be built from a saved host as well as from a
scenario.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from netns_lab.nft_rules import LabRule
from netns_lab.services.dhcp_server import DHCPPool
from viacheck.model.intent import Intent
from viacheck.model.namespace_state import NetworkState

PROBE_TARGET = "198.51.100.1"
PROBE_TARGET6 = "2001:db8:ffff::1"
PROBE_TIMEOUT = "400ms"
"""In a lab an answer comes at once."""
DHCP_WAIT = "6s"
"""Where every machine of the segment is known: no server of a lab takes longer than 3 s to offer an address."""
RESOLVER = "198.51.100.53"
RT_TABLES = "/etc/iproute2/rt_tables"
HOST = "host"
"""The machine that stands for the agent's host."""
HOST_PORT = "to-host"
"""The switch port that the host's cable is plugged into."""
SWITCH = "switch"
RT_TABLES_TEXT = "255\tlocal\n254\tmain\n253\tdefault\n0\tunspec\n"

AGENT_PATH = "/run/netns/agent"
PACKET_FILTER_TABLE = "viacheck-lab"
QUICK_NEIGHBOURS = ("net/ipv4/neigh/{}/retrans_time_ms", "net/ipv6/neigh/{}/retrans_time_ms")
"""For each interface, as a namespace inherits no default: a silent gateway fails after 150 ms instead of 3 s."""
RETRANSMIT_MS = "50"


@dataclass(frozen=True, slots=True)
class Cable:
    """A point-to-point link between two machines, made as a veth pair."""

    machine: str
    interface: str
    other_machine: str
    other_interface: str


@dataclass(frozen=True, slots=True)
class Machine:
    """One network namespace of the lab and its configuration."""

    name: str
    state: NetworkState = field(default_factory=NetworkState)
    packet_filter: tuple[LabRule, ...] = ()
    answers_on: tuple[str, ...] = ()
    """Addresses on which UDP, TCP and DNS are answered, besides the ARP and ICMP that the kernel answers."""
    dhcp: DHCPPool | None = None
    """The pool of a DHCP server on the machine's first interface."""


@dataclass(frozen=True, slots=True)
class SegmentMachines:
    """The names of the machines on the segment behind an uplink."""

    gateway: str
    switch: str | None = None
    """Joins host, gateway and neighbour; without a switch the cable of the uplink ends at the gateway."""
    neighbour: str | None = None
    """A second machine, where the segment has a switch."""


@dataclass(frozen=True, slots=True)
class Radio:
    """A wireless interface of a machine, on a simulated radio of a virtual machine's kernel."""

    machine: str
    interface: str
    ssid: str
    access_point: bool = False
    """Whether it offers the network; else it joins it as a station."""


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
    segments: dict[str, SegmentMachines]
    """The machines on each uplink's segment."""
    neighbours: tuple[Machine, ...] = ()
    """Machines on the host's segments, besides the gateways."""
    switches: tuple[Machine, ...] = ()
    executables: frozenset[str] = frozenset()
    """The paths of those files that are programs."""
    file_links: dict[str, str] = field(default_factory=dict)
    """Symbolic links among the host's files: the target by the link's path."""
    hidden: tuple[str, ...] = ()
    """Folders and files of this machine that the lab's host must not see; a folder is empty there, and private."""
    untrusted: bool = False
    """The plan holds values of another host: every file of this machine is read-only on the lab's host."""
    leased: str | None = None
    """The agent's interface that a DHCP client holds a lease for."""
    daemons: bool = False
    """Commands of the host leave daemons running."""
    networkd: bool = False
    """systemd-networkd configures the host from its files; such a host has daemons."""
    network_manager: bool = False
    """NetworkManager configures the host from its files; only a whole host can run it."""
    notes: tuple[str, ...] = ()
    """Remarks for the reader of the report."""
    boot: tuple[tuple[str, ...], ...] = ()
    """Commands that configure the host from its files, in order."""
    needs: dict[str, str] = field(default_factory=dict)
    """Programs that must be installed, and the Debian package of each."""
    link_hook: str | None = None
    """A program of the host that runs with the name of an interface whenever the interface comes up."""
    radios: tuple[Radio, ...] = ()
    """Wireless interfaces, access points first; only a virtual machine's kernel has radios."""
    commands: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Commands that make what the builder does not, in order, each with its machine; for a virtual machine."""

    @property
    def boots(self) -> bool:
        """Whether boot commands or systemd-networkd configure the host from its files."""
        return self.networkd or bool(self.boot)

    @property
    def machines(self) -> tuple[Machine, ...]:
        """Every machine: the host first, then the agent, the gateways, their neighbours, the switches."""
        return (self.host, self.agent, *self.gateways, *self.neighbours, *self.switches)


def without_agent(plan: LabPlan, bridge: str) -> LabPlan:
    """Return the same lab without the agent, its bridge and its NAT: a real Docker engine makes those."""
    removed = {bridge, "veth-agent"}
    state = plan.host.state
    host = replace(
        plan.host,
        state=replace(
            state,
            links=tuple(link for link in state.links if link.name not in removed),
            addresses=tuple(address for address in state.addresses if address.interface not in removed),
        ),
        packet_filter=(),
    )
    cables = tuple(cable for cable in plan.cables if cable.other_machine != "agent")
    return replace(plan, host=host, agent=Machine(plan.agent.name), cables=cables, leased=None)
