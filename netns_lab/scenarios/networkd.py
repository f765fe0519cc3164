"""The lab that systemd-networkd configures: hardened policy routing in .network files (systemd.network(5))."""

from __future__ import annotations

from netns_lab.draft import LabDraft
from netns_lab.networkd_daemon import PACKAGES
from netns_lab.plan import LabPlan
from netns_lab.scenarios.nat import AGENT_SUBNET, BACKSTOP_METRIC, BRIDGE, TABLE, TABLE_NAME
from netns_lab.scenarios.register import scenario
from netns_lab.scenarios.survival import INTERFACES, unconfigured_uplinks
from viacheck.persistence import networkd

LOOPBACK, OFFICE, RADIO = (f"/etc/systemd/network/10-{name}.network" for name in ("lo", "eth0", "wlan0"))
CONF = "/etc/systemd/networkd.conf.d/10-agent.conf"
KEEP_RULES, KEEP_ROUTES = "ManageForeignRoutingPolicyRules=no\n", "ManageForeignRoutes=no\n"
OWN_INTERFACES = "no-scripts lo\nauto lo\niface lo inet loopback\n"
"""Debian's interfaces(5) of a host where ifupdown configures the loopback only."""
UDEV_NOTE = (
    "systemd-networkd, its bus and networkctl are real; udev does not run in a lab, so the lab writes udev's records "
    "that the interfaces are initialized"
)


def conf(*settings: str) -> str:
    """Return a networkd.conf(5); by default networkd removes the rules and routes that it finds at its start."""
    return "".join(("[Network]\n", *settings))


def rules(table: str = str(TABLE)) -> str:
    """Return the rule for local networks, then the rule for the agent's table."""
    return (
        f"\n[RoutingPolicyRule]\nPriority=990\nFrom={AGENT_SUBNET}\nTable=main\nSuppressPrefixLength=0\n"
        f"\n[RoutingPolicyRule]\nPriority=1000\nFrom={AGENT_SUBNET}\nTable={table}\n"
    )


def route(table: str = str(TABLE)) -> str:
    """Return the table's default route by wlan0."""
    return f"\n[Route]\nDestination=0.0.0.0/0\nGateway=10.10.50.1\nTable={table}\n"


BACKSTOP = f"\n[Route]\nDestination=0.0.0.0/0\nType=unreachable\nMetric={BACKSTOP_METRIC}\nTable={TABLE}\n"


def loopback(*sections: str) -> str:
    """Return the file of the loopback: networkd removes a link's rules and routes with the link, and lo stays."""
    return "".join(("[Match]\nName=lo\n", *sections))


def uplink(*sections: str) -> str:
    """Return the file of wlan0, with its address."""
    return "".join(("[Match]\nName=wlan0\n\n[Network]\nLinkLocalAddressing=no\nAddress=10.10.50.9/24\n", *sections))


@scenario(
    "policy-routing-networkd",
    "Hardened policy routing in systemd-networkd's files: it survives every event",
    "NAT, host with multiple physical interfaces, steps 1-6",
    flavours=("netns", "engine", "host"),
)
def policy_routing_networkd(lab: LabDraft) -> LabPlan:
    """Describe rules and backstop under lo and the route under wlan0; a real systemd-networkd reads private files."""
    unconfigured_uplinks(lab)
    # The lab must not read the machine's own files.
    lab.hidden += [*networkd.FOLDERS, networkd.CONF, *networkd.CONF_FOLDERS]
    lab.files[LOOPBACK] = loopback(rules(), BACKSTOP)
    lab.files[OFFICE] = (
        "[Match]\nName=eth0\n\n[Network]\nLinkLocalAddressing=no\nAddress=10.10.40.9/24\nGateway=10.10.40.1\n"
    )
    lab.files[RADIO] = uplink(route())
    lab.files[CONF] = conf(KEEP_RULES, KEEP_ROUTES)
    lab.files[INTERFACES] = OWN_INTERFACES
    lab.daemons = lab.networkd = True
    lab.needs = {"ifup": "ifupdown", **PACKAGES}
    lab.boot.append(("ifup", "-a"))
    lab.notes.append(UDEV_NOTE)
    return lab.finish(
        {
            "agent": {"netns": "/run/netns/agent", "attach": {"mode": "nat", "bridge": BRIDGE}},
            "egress": {"uplink": "wlan0", "table": TABLE, "table_name": TABLE_NAME, "leak": "forbid"},
            "host": {"default_exit": "eth0"},
        }
    )
