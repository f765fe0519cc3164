"""The labs of the guide's first half: the agent behind docker0, NATed, with and without policy routing."""

from __future__ import annotations

from typing import Any

from netns_lab.draft import LabDraft
from netns_lab.nft_rules import Masquerade
from netns_lab.plan import RT_TABLES, LabPlan
from netns_lab.scenarios.register import scenario
from viacheck.model.snapshot import Family, Rule

BRIDGE, AGENT_SUBNET, AGENT_SUBNET6 = "docker0", "172.17.0.0/16", "fd00:17::/64"
TABLE, TABLE_NAME = 200, "wlan0rt"
BACKSTOP_METRIC = 4278198272


def _nat_agent() -> dict[str, Any]:
    return {"netns": "/run/netns/agent", "attach": {"mode": "nat", "bridge": BRIDGE}}


_POLICY_INTENT: dict[str, Any] = {
    "agent": _nat_agent(),
    "egress": {"uplink": "wlan0", "table": TABLE, "table_name": TABLE_NAME, "persist": "none", "survives": []},
    "host": {"default_exit": "eth0"},
}
"""What policy routing is to achieve. Typed by hand and meant so: nothing of it must survive anything."""


BY_DEFAULT = {"uplink": "eth0", "persist": "none", "survives": []}
"""Typed by hand, and meant so: nothing brings the host's default route back."""


@scenario("nat", "One uplink, the agent behind docker0", "NAT")
def nat(lab: LabDraft) -> LabPlan:
    """Docker's default: one uplink, masquerade, nothing else."""
    office = lab.uplink("eth0", "10.10.40.0/24")
    lab.host.route("default", via=office.gateway, dev="eth0")
    lab.behind_bridge(BRIDGE, AGENT_SUBNET)
    lab.host.packet_filter.append(Masquerade(source=AGENT_SUBNET, not_oif=BRIDGE))
    return lab.finish({"agent": _nat_agent(), "egress": BY_DEFAULT, "host": {"default_exit": "eth0"}})


def _two_uplinks(lab: LabDraft, ipv6: bool = False) -> None:
    office = lab.uplink("eth0", "10.10.40.0/24", subnet6="2001:db8:40::/64" if ipv6 else None)
    lab.uplink("wlan0", "10.10.50.0/24", subnet6="2001:db8:50::/64" if ipv6 else None)
    lab.host.route("default", via=office.gateway, dev="eth0")
    if ipv6:
        lab.host.route("default", via=office.gateway6, dev="eth0")
    lab.behind_bridge(BRIDGE, AGENT_SUBNET, AGENT_SUBNET6 if ipv6 else None)
    lab.host.packet_filter.append(Masquerade(source=AGENT_SUBNET, not_oif=BRIDGE))


@scenario(
    "nat-multihomed", "Two uplinks, the agent leaves by the default one", "NAT, host with multiple physical interfaces"
)
def nat_multihomed(lab: LabDraft) -> LabPlan:
    """Two uplinks and no policy: the kernel's default route decides."""
    _two_uplinks(lab)
    return lab.finish({"agent": _nat_agent(), "egress": BY_DEFAULT, "host": {"default_exit": "eth0"}})


@scenario(
    "multihomed-blank",
    "Two uplinks and no policy yet: a host to try one's own commands on",
    "NAT, host with multiple physical interfaces",
    blank=True,
)
def multihomed_blank(lab: LabDraft) -> LabPlan:
    """The intent of policy routing, on a host where nothing was done for it."""
    _two_uplinks(lab)
    return lab.finish(_POLICY_INTENT)


@scenario(
    "policy-routing", "The guide's recipe to the letter", "NAT, host with multiple physical interfaces, steps 1-5"
)
def policy_routing(lab: LabDraft) -> LabPlan:
    """One rule from the agent's subnet, one table with nothing but a default route by wlan0."""
    _two_uplinks(lab)
    lab.files[RT_TABLES] += f"{TABLE} {TABLE_NAME}\n"
    lab.host.rules.append(Rule(family=4, priority=32765, source=AGENT_SUBNET, table=TABLE))
    lab.host.route("default", via=lab.uplinks["wlan0"].gateway, dev="wlan0", table=TABLE)
    return lab.finish(_POLICY_INTENT)


@scenario(
    "policy-routing-hardened",
    "The recipe without the holes: local networks stay reachable, fails closed, IPv6 as well",
    "NAT, host with multiple physical interfaces, steps 1-5",
)
def policy_routing_hardened(lab: LabDraft) -> LabPlan:
    """Local networks first, then the agent's table with an unreachable backstop; the same for IPv6."""
    _two_uplinks(lab, ipv6=True)
    lab.files[RT_TABLES] += f"{TABLE} {TABLE_NAME}\n"
    radio = lab.uplinks["wlan0"]
    ways: tuple[tuple[Family, str, str], ...] = (
        (4, AGENT_SUBNET, radio.gateway),
        (6, AGENT_SUBNET6, radio.gateway6),
    )
    for family, subnet, gateway in ways:
        lab.host.rules += [
            Rule(family=family, priority=990, source=subnet, table=254, suppress_prefixlength=0),
            Rule(family=family, priority=1000, source=subnet, table=TABLE),
        ]
        lab.host.route("default", via=gateway, dev="wlan0", table=TABLE)
        everything = "0.0.0.0/0" if family == 4 else "::/0"
        lab.host.route(everything, type="unreachable", metric=BACKSTOP_METRIC, table=TABLE)
    return lab.finish(_POLICY_INTENT)
