"""The labs of the guide's first half: the agent is behind docker0 and NAT, with and without policy routing."""

from __future__ import annotations

from typing import Any

from netns_lab.draft import LabDraft
from netns_lab.nft_rules import Masquerade
from netns_lab.plan import RT_TABLES, LabPlan
from netns_lab.scenarios.register import scenario
from viacheck.model.address_family import Family
from viacheck.model.policy_rule import Rule

BRIDGE, AGENT_SUBNET, AGENT_SUBNET6 = "docker0", "172.17.0.0/16", "fd00:17::/64"
TABLE, TABLE_NAME = 200, "wlan0rt"
BACKSTOP_METRIC = 4278198272
USERSPACE_NETWORK = "slirp4netns"
SECOND_ADDRESS = "172.17.0.3"
"""The second address of an agent with two."""


def _nat_agent() -> dict[str, Any]:
    return {"netns": "/run/netns/agent", "attach": {"mode": "nat", "bridge": BRIDGE}}


_POLICY_INTENT: dict[str, Any] = {
    "agent": _nat_agent(),
    "egress": {"uplink": "wlan0", "table": TABLE, "table_name": TABLE_NAME, "persist": "none", "survives": []},
    "host": {"default_exit": "eth0"},
}
"""The intent of policy routing that was typed by hand: it need not survive any event."""

BY_DEFAULT = {"uplink": "eth0", "persist": "none", "survives": []}
"""The egress by a default route that was typed by hand: it need not survive any event."""


@scenario("nat", "One uplink, the agent is behind docker0", "NAT")
def nat(lab: LabDraft) -> LabPlan:
    """Describe Docker's default: one uplink and a masquerade rule."""
    office = lab.uplink("eth0", "10.10.40.0/24")
    lab.host.route("default", via=office.gateway, dev="eth0")
    lab.behind_bridge(BRIDGE, AGENT_SUBNET)
    lab.host.packet_filter.append(Masquerade(source=AGENT_SUBNET, not_oif=BRIDGE))
    return lab.finish({"agent": _nat_agent(), "egress": BY_DEFAULT, "host": {"default_exit": "eth0"}})


@scenario(
    "nat-userspace",
    "Two uplinks, slirp4netns carries the agent's packets: they leave as the host's own",
    "NAT, host with multiple physical interfaces",
    podman_only=True,
)
def nat_userspace(lab: LabDraft) -> LabPlan:
    """Describe a container of podman without a bridge: a program of the host sends what the container sends."""
    return _carried(lab, USERSPACE_NETWORK)


@scenario(
    "nat-rootless",
    "Two uplinks, an ordinary user's podman: pasta carries the agent's packets",
    "NAT, host with multiple physical interfaces",
    podman_only=True,
)
def nat_rootless(lab: LabDraft) -> LabPlan:
    """Describe a container of a rootless podman, on its default network."""
    return _carried(lab, "pasta")


def _carried(lab: LabDraft, network: str) -> LabPlan:
    office = lab.uplink("eth0", "10.10.40.0/24")
    lab.uplink("wlan0", "10.10.50.0/24")
    lab.host.route("default", via=office.gateway, dev="eth0")
    # As systemd sets it: without it the program may not send an ICMP echo.
    lab.host.sysctls["net/ipv4/ping_group_range"] = "0 2147483647"
    agent = {"netns": "/run/netns/agent", "attach": {"mode": "nat", "network": network}}
    return lab.finish({"agent": agent, "egress": BY_DEFAULT, "host": {"default_exit": "eth0"}})


def _two_uplinks(lab: LabDraft, ipv6: bool = False) -> None:
    office = lab.uplink("eth0", "10.10.40.0/24", subnet6="2001:db8:40::/64" if ipv6 else None)
    lab.uplink("wlan0", "10.10.50.0/24", subnet6="2001:db8:50::/64" if ipv6 else None)
    lab.host.route("default", via=office.gateway, dev="eth0")
    if ipv6:
        lab.host.route("default", via=office.gateway6, dev="eth0")
    lab.behind_bridge(BRIDGE, AGENT_SUBNET, AGENT_SUBNET6 if ipv6 else None)
    lab.host.packet_filter.append(Masquerade(source=AGENT_SUBNET, not_oif=BRIDGE))


@scenario(
    "nat-multihomed",
    "Two uplinks, the agent leaves by the default route",
    "NAT, host with multiple physical interfaces",
)
def nat_multihomed(lab: LabDraft) -> LabPlan:
    """Describe two uplinks without policy routing: the default route decides."""
    _two_uplinks(lab)
    return lab.finish({"agent": _nat_agent(), "egress": BY_DEFAULT, "host": {"default_exit": "eth0"}})


@scenario(
    "multihomed-blank",
    "Two uplinks without policy routing: a host to try your own commands on",
    "NAT, host with multiple physical interfaces",
    blank=True,
)
def multihomed_blank(lab: LabDraft) -> LabPlan:
    """Describe the intent of policy routing, on a host that has no rule and no table for it."""
    _two_uplinks(lab)
    return lab.finish(_POLICY_INTENT)


@scenario(
    "policy-routing",
    "Policy routing exactly as in the guide",
    "NAT, host with multiple physical interfaces, steps 1-5",
)
def policy_routing(lab: LabDraft) -> LabPlan:
    """Describe a rule for the agent's subnet and a table that has only a default route by wlan0."""
    _two_uplinks(lab)
    lab.files[RT_TABLES] += f"{TABLE} {TABLE_NAME}\n"
    lab.host.rules.append(Rule(family=4, priority=32765, source=AGENT_SUBNET, table=TABLE))
    lab.host.route("default", via=lab.uplinks["wlan0"].gateway, dev="wlan0", table=TABLE)
    return lab.finish(_POLICY_INTENT)


@scenario(
    "policy-routing-hardened",
    "Policy routing without the guide's gaps: local networks stay reachable, it fails closed, and it covers IPv6",
    "NAT, host with multiple physical interfaces, steps 1-5",
)
def policy_routing_hardened(lab: LabDraft) -> LabPlan:
    """Describe a rule for local networks, then the agent's table with an unreachable backstop; both for IPv6 too."""
    _two_uplinks(lab, ipv6=True)
    lab.files[RT_TABLES] += f"{TABLE} {TABLE_NAME}\n"
    radio = lab.uplinks["wlan0"]
    families: tuple[tuple[Family, str, str], ...] = (
        (4, AGENT_SUBNET, radio.gateway),
        (6, AGENT_SUBNET6, radio.gateway6),
    )
    for family, subnet, gateway in families:
        lab.host.rules += [
            Rule(family=family, priority=990, source=subnet, table=254, suppress_prefixlength=0),
            Rule(family=family, priority=1000, source=subnet, table=TABLE),
        ]
        lab.host.route("default", via=gateway, dev="wlan0", table=TABLE)
        everything = "0.0.0.0/0" if family == 4 else "::/0"
        lab.host.route(everything, type="unreachable", metric=BACKSTOP_METRIC, table=TABLE)
    return lab.finish(_POLICY_INTENT)


@scenario(
    "agent-sources",
    "The agent has two addresses, and a rule sends the packets of the second by another uplink",
    "NAT, host with multiple physical interfaces",
)
def agent_sources(lab: LabDraft) -> LabPlan:
    """Describe an agent that is measured from two of its own addresses, each by an uplink of its own."""
    _two_uplinks(lab)
    lab.agent.address("eth0", f"{SECOND_ADDRESS}/16")
    lab.host.rules.append(Rule(family=4, priority=100, source=f"{SECOND_ADDRESS}/32", table=TABLE))
    lab.host.route("default", via=lab.uplinks["wlan0"].gateway, dev="wlan0", table=TABLE)
    sources = [{"interface": "eth0"}, {"address": SECOND_ADDRESS, "uplink": "wlan0"}]
    return lab.finish(
        {"agent": {**_nat_agent(), "source": sources}, "egress": BY_DEFAULT, "host": {"default_exit": "eth0"}}
    )
