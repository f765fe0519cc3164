"""The labs of a virtual machine: uplinks and attachments of kinds that this machine's kernel may not have.

What the builder does not make, commands of ip(8), tc(8) and wg(8) make, as a person would type them.
"""

from __future__ import annotations

import base64
import hashlib
from ipaddress import IPv4Network
from typing import Any

from netns_lab.draft import LabDraft, LabSegment, MachineDraft
from netns_lab.nft_rules import Masquerade
from netns_lab.plan import AGENT_PATH, HOST, PROBE_TIMEOUT, RESOLVER, RT_TABLES, Cable, LabPlan, Radio
from netns_lab.scenarios.nat import AGENT_SUBNET, BRIDGE, TABLE
from netns_lab.scenarios.register import scenario
from viacheck.model.policy_rule import Rule

MULTIHOMED, MACVLAN = "NAT, host with multiple physical interfaces", "Bridge, bridging with macvlan"
OFFICE, SECOND = "10.10.40.0/24", "10.10.50.0/24"
AGENT_ADDRESS, AGENT_RANGE, AGENT_MAC = "10.10.40.192/24", "10.10.40.192/27", "02:42:0a:0a:28:c0"
TABLE_NAME = "agent"
AGENT = "agent"
LAN = "lan0"
"""The gateway's own interface on the segment, on top of its ports."""
TUNNEL, CARRIER, TUNNEL_PORT = "10.10.60.0/24", "10.10.61.0/24", "51820"
SSID = "viacheck"


def _uplink_by_commands(lab: LabDraft, interface: str, subnet: str, *cards: str) -> None:
    """Describe an uplink that commands make on top of cards, each with a cable to a port of the gateway."""
    segment = LabSegment(f"{interface}-net", IPv4Network(subnet))
    gateway = MachineDraft(f"gw-{interface}", answers_on=(lab.probe_target, RESOLVER))
    for number, card in enumerate(cards):
        lab.host.link(card)
        gateway.link(f"port{number}")
        lab.cables.append(Cable(HOST, card, gateway.name, f"port{number}"))
    for address in (lab.probe_target, RESOLVER):
        gateway.address("lo", f"{address}/32")
    lab.gateways[interface], lab.uplinks[interface] = gateway, segment


def _addresses(lab: LabDraft, interface: str) -> None:
    """Give both ends of an uplink that commands have made their addresses, and bring them up."""
    segment, gateway = lab.uplinks[interface], lab.gateways[interface].name
    lab.type_on(gateway, f"ip link set dev {LAN} up", f"ip address add {segment[segment.router]} dev {LAN}")
    lab.type_on(HOST, f"ip link set dev {interface} up", f"ip address add {segment[9]} dev {interface}")


def _behind_nat(lab: LabDraft) -> None:
    lab.behind_bridge(BRIDGE, AGENT_SUBNET)
    lab.host.packet_filter.append(Masquerade(source=AGENT_SUBNET, not_oif=BRIDGE))


def _office(lab: LabDraft) -> None:
    """Describe the uplink of the host's own default route."""
    office = lab.uplink("eth0", OFFICE)
    lab.host.route("default", via=office.gateway, dev="eth0")


def _policy_routed(lab: LabDraft, uplink: str, route: str, **probe: str) -> LabPlan:
    """Finish a lab whose agent leaves by an uplink with a table of its own; ``probe``: more of the intent's [probe]."""
    _behind_nat(lab)
    lab.files[RT_TABLES] += f"{TABLE} {TABLE_NAME}\n"
    lab.host.rules.append(Rule(family=4, priority=32765, source=AGENT_SUBNET, table=TABLE))
    lab.type_on(HOST, f"ip route add default {route} table {TABLE}")
    document: dict[str, Any] = {
        "agent": {"netns": AGENT_PATH, "attach": {"mode": "nat", "bridge": BRIDGE}},
        "egress": {"uplink": uplink, "table": TABLE, "table_name": TABLE_NAME, "persist": "none", "survives": []},
        "host": {"default_exit": "eth0"},
        "probe": {"target": lab.probe_target, "timeout": PROBE_TIMEOUT, **probe},
    }
    if not route.startswith("via "):
        document["uplinks"] = {"eth0": {"gateway": lab.uplinks["eth0"].gateway}, uplink: {}}
    return lab.finish(document)


def _bridged(lab: LabDraft, mode: str, parent: str) -> LabPlan:
    """Finish a lab whose agent is on the parent's LAN by a driver of Docker."""
    office = lab.uplinks[parent]
    kind = f"address {AGENT_MAC} type macvlan mode bridge" if mode == "macvlan" else "type ipvlan mode l2"
    lab.type_on(HOST, f"ip link add link {parent} name agent0 {kind}", "ip link set dev agent0 netns agent name eth0")
    lab.type_on(HOST, f"ip route add default via {office.gateway} dev {parent}")
    lab.type_on(
        AGENT, "ip link set dev eth0 up", f"ip address add {AGENT_ADDRESS} dev eth0",
        f"ip route add default via {office.gateway} dev eth0",
    )  # fmt: skip
    attach = {
        "mode": mode, "network": f"{mode}0", "parent": parent,
        "subnet": OFFICE, "gateway": office.gateway, "ip_range": AGENT_RANGE,
    }  # fmt: skip
    return lab.finish({
        "agent": {"netns": AGENT_PATH, "attach": attach},
        "egress": {"uplink": parent, "survives": []},
        "host": {"default_exit": parent},
    })  # fmt: skip


def _vlan(lab: LabDraft, interface: str, subnet: str, card: str) -> None:
    """Describe a tagged VLAN on a card, at both ends."""
    tag = interface.rpartition(".")[2]
    _uplink_by_commands(lab, interface, subnet, card)
    lab.type_on(lab.gateways[interface].name, f"ip link add link port0 name {LAN} type vlan id {tag}")
    lab.type_on(HOST, f"ip link add link {card} name {interface} type vlan id {tag}")
    _addresses(lab, interface)


@scenario("vlan", "The agent leaves by a tagged VLAN", MULTIHOMED, flavours=("vm",))
def vlan(lab: LabDraft) -> LabPlan:
    """Describe policy routing by the VLAN 50 of a card."""
    _office(lab)
    _vlan(lab, "eth1.50", SECOND, "eth1")
    return _policy_routed(lab, "eth1.50", f"via {lab.uplinks['eth1.50'].gateway} dev eth1.50")


@scenario("vlan-macvlan", "The agent is on a tagged VLAN by macvlan", MACVLAN, flavours=("vm",))
def vlan_macvlan(lab: LabDraft) -> LabPlan:
    """Describe a macvlan interface whose parent is the VLAN 40 of a card."""
    _vlan(lab, "eth0.40", OFFICE, "eth0")
    return _bridged(lab, "macvlan", "eth0.40")


def _bond(lab: LabDraft, interface: str, subnet: str, *cards: str) -> None:
    """Describe an active-backup bond of two cards, both on one switch."""
    _uplink_by_commands(lab, interface, subnet, *cards)
    gateway = lab.gateways[interface].name
    lab.type_on(gateway, f"ip link add {LAN} type bridge")
    lab.type_on(gateway, *(f"ip link set dev port{number} master {LAN}" for number, _card in enumerate(cards)))
    lab.type_on(HOST, f"ip link add {interface} type bond mode active-backup miimon 100")
    for card in cards:
        lab.type_on(HOST, f"ip link set dev {card} down", f"ip link set dev {card} master {interface}")
    _addresses(lab, interface)


@scenario("bond", "The agent leaves by a bond of two cards", MULTIHOMED, flavours=("vm",))
def bond(lab: LabDraft) -> LabPlan:
    """Describe policy routing by an active-backup bond."""
    _office(lab)
    _bond(lab, "bond0", SECOND, "eth1", "eth2")
    return _policy_routed(lab, "bond0", f"via {lab.uplinks['bond0'].gateway} dev bond0")


@scenario("bond-macvlan", "The agent is on the LAN by macvlan on a bond", MACVLAN, flavours=("vm",))
def bond_macvlan(lab: LabDraft) -> LabPlan:
    """Describe a macvlan interface whose parent is an active-backup bond."""
    _bond(lab, "bond0", OFFICE, "eth0", "eth1")
    return _bridged(lab, "macvlan", "bond0")


@scenario("vrf", "The agent's uplink is in a VRF", MULTIHOMED, flavours=("vm",))
def vrf(lab: LabDraft) -> LabPlan:
    """Describe an uplink in a VRF, whose table has the agent's default route and the way back to its bridge."""
    _office(lab)
    radio = lab.uplink("wlan0", SECOND)
    lab.type_on(
        HOST, f"ip link add vrf0 type vrf table {TABLE}", "ip link set dev vrf0 up", "ip link set dev wlan0 master vrf0"
    )
    lab.type_on(HOST, f"ip route add {AGENT_SUBNET} dev {BRIDGE} table {TABLE}")
    return _policy_routed(lab, "wlan0", f"via {radio.gateway} dev wlan0")


@scenario("ipvlan", "The agent is on the LAN by Docker's ipvlan driver", MACVLAN, flavours=("vm",))
def ipvlan(lab: LabDraft) -> LabPlan:
    """Describe an ipvlan interface in L2 mode, which has its parent's MAC address."""
    lab.uplink("eth0", OFFICE)
    return _bridged(lab, "ipvlan", "eth0")


def _key(machine: str) -> str:
    """Return a private key of wg(8) for one end of a tunnel that carries nothing but a lab's probes."""
    return base64.b64encode(hashlib.sha256(machine.encode()).digest()).decode()


@scenario("wireguard", "The agent leaves by a WireGuard tunnel", MULTIHOMED, flavours=("vm",))
def wireguard(lab: LabDraft) -> LabPlan:
    """Describe policy routing by a tunnel without a gateway, which a card of its own carries."""
    _office(lab)
    _uplink_by_commands(lab, "wg0", TUNNEL, "eth1")
    carrier, gateway = IPv4Network(CARRIER), lab.gateways["wg0"]
    router = carrier.network_address + 1
    gateway.address("port0", f"{router}/{carrier.prefixlen}")
    lab.host.address("eth1", f"{carrier.network_address + 9}/{carrier.prefixlen}")
    for machine, interface, peer, more in (
        (gateway.name, LAN, HOST, f"listen-port {TUNNEL_PORT}"),
        (HOST, "wg0", gateway.name, ""),
    ):
        endpoint = f"endpoint {router}:{TUNNEL_PORT}" if machine == HOST else ""
        lab.type_on(machine, f"ip link add {interface} type wireguard")
        lab.shell_on(
            machine,
            f"echo {_key(machine)} | wg set {interface} {more} private-key /dev/stdin "
            f'peer "$(echo {_key(peer)} | wg pubkey)" {endpoint} allowed-ips 0.0.0.0/0',
        )
    _addresses(lab, "wg0")
    return _policy_routed(lab, "wg0", "dev wg0")


def _worse_wire(lab: LabDraft, netem: str, **probe: str) -> LabPlan:
    _office(lab)
    radio = lab.uplink("wlan0", SECOND)
    lab.type_on(lab.gateways["wlan0"].name, f"tc qdisc add dev {LAN} root netem {netem}")
    return _policy_routed(lab, "wlan0", f"via {radio.gateway} dev wlan0", **probe)


@scenario(
    "lossy", "A third of the answers is lost on the uplink, and the site file allows it", MULTIHOMED, flavours=("vm",)
)
def lossy(lab: LabDraft) -> LabPlan:
    """Describe policy routing by an uplink on which netem drops a third of what comes from the gateway.

    By the model of Gilbert and Elliott no two packets in a row are lost, so that no run loses all three of its probes.
    """
    return _worse_wire(lab, "loss gemodel 50% 100% 100% 0%", loss_allowed="60%")


@scenario("slow", "Answers take 200 ms on the uplink", MULTIHOMED, flavours=("vm",))
def slow(lab: LabDraft) -> LabPlan:
    """Describe policy routing by an uplink on which netem delays what comes from the gateway, as by satellite."""
    # A lab's hosts give a silent neighbour up within 150 ms, before this gateway has answered.
    lab.type_on(HOST, "sysctl -q -w net/ipv4/neigh/wlan0/retrans_time_ms=1000")
    return _worse_wire(lab, "delay 200ms 20ms", timeout="2s")


def _wifi(lab: LabDraft, subnet: str) -> None:
    """Describe an uplink that is a station of an access point: a real association by simulated radios."""
    _uplink_by_commands(lab, "wlan0", subnet)
    gateway = lab.gateways["wlan0"].name
    lab.radios = [Radio(gateway, LAN, SSID, access_point=True), Radio(HOST, "wlan0", SSID)]
    _addresses(lab, "wlan0")


@scenario("wifi", "The agent leaves by Wi-Fi, behind NAT", MULTIHOMED, flavours=("vm",))
def wifi(lab: LabDraft) -> LabPlan:
    """Describe the guide's own case: policy routing by a station of an access point."""
    _office(lab)
    _wifi(lab, SECOND)
    return _policy_routed(lab, "wlan0", f"via {lab.uplinks['wlan0'].gateway} dev wlan0")


@scenario("wifi-ipvlan", "The agent is on a Wi-Fi by ipvlan, with the station's MAC address", MACVLAN, flavours=("vm",))
def wifi_ipvlan(lab: LabDraft) -> LabPlan:
    """Describe an ipvlan interface on a station: the access point sees one MAC address."""
    _wifi(lab, OFFICE)
    return _bridged(lab, "ipvlan", "wlan0")


@scenario(
    "wifi-macvlan", "The agent is on a Wi-Fi by macvlan, which the guide warns of: fails", MACVLAN, flavours=("vm",)
)
def wifi_macvlan(lab: LabDraft) -> LabPlan:
    """Describe a macvlan interface on a station: the access point drops frames with the agent's MAC address."""
    _wifi(lab, OFFICE)
    return _bridged(lab, "macvlan", "wlan0")
