"""The labs that only a whole host can run: NetworkManager's key files, and netplan's YAML over systemd-networkd."""

from __future__ import annotations

from typing import Any

from netns_lab.draft import LabDraft
from netns_lab.plan import LabPlan
from netns_lab.scenarios.nat import AGENT_SUBNET, BACKSTOP_METRIC, BRIDGE, TABLE, TABLE_NAME
from netns_lab.scenarios.networkd import CONF, KEEP_ROUTES, KEEP_RULES, OWN_INTERFACES, conf
from netns_lab.scenarios.register import scenario
from netns_lab.scenarios.survival import INTERFACES, unconfigured_uplinks
from viacheck.persistence.netplan import LARGEST_METRIC

GUIDE = "NAT, host with multiple physical interfaces, steps 1-6"
NM_CONF = "/etc/NetworkManager/conf.d/lab.conf"
LOOPBACK_PROFILE, OFFICE_PROFILE, RADIO_PROFILE = (
    f"/etc/NetworkManager/system-connections/{name}.nmconnection" for name in ("lo", "eth0", "wlan0")
)
NETPLAN = "/etc/netplan/50-agent.yaml"
_UUIDS = {name: f"00000000-0000-4000-8000-00000000000{number}" for number, name in enumerate(("lo", "eth0", "wlan0"))}

NM_RULES = (
    f"routing-rule1=priority 990 from {AGENT_SUBNET} table 254 suppress_prefixlength 0",
    f"routing-rule2=priority 1000 from {AGENT_SUBNET} table {TABLE}",
)
NM_BACKSTOP = (f"route9=0.0.0.0/0,,{BACKSTOP_METRIC}", f"route9_options=table={TABLE},type=unreachable")
NM_ROUTE = ("route1=0.0.0.0/0,10.10.50.1", f"route1_options=table={TABLE}")
_NM_CONF_TEXT = """\
[main]
no-auto-default=*

# By its own udev rules NetworkManager leaves veth interfaces alone.
[device-uplinks]
match-device=interface-name:eth0,interface-name:wlan0
managed=1

[keyfile]
unmanaged-devices=interface-name:docker0,interface-name:veth*
"""


def profile(interface: str, address: str, *settings: str, kind: str = "ethernet", automatic: bool = True) -> str:
    """Return a connection profile of NetworkManager with a fixed address (nm-settings-keyfile(5))."""
    lines = [
        "[connection]", f"id={interface}", f"uuid={_UUIDS[interface]}", f"type={kind}", f"interface-name={interface}",
        f"autoconnect={'true' if automatic else 'false'}", "", f"[{kind}]", "", "[ipv4]", "method=manual",
        f"address1={address}", *settings, "", "[ipv6]", f"method={'auto' if kind == 'loopback' else 'disabled'}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def loopback_profile(*settings: str) -> str:
    """Return the profile of the loopback: NetworkManager removes a link's rules with the link, and lo stays."""
    return profile("lo", "127.0.0.1/8", *settings, kind="loopback")


def radio_profile(*settings: str, automatic: bool = True) -> str:
    """Return the profile of wlan0, with its address."""
    return profile("wlan0", "10.10.50.9/24", *settings, automatic=automatic)


@scenario(
    "policy-routing-nm",
    "Hardened policy routing in NetworkManager's key files: it survives every event",
    GUIDE,
    flavours=("host",),
)
def policy_routing_nm(lab: LabDraft) -> LabPlan:
    """Describe rules and backstop in the profile of lo, and the route in that of wlan0."""
    unconfigured_uplinks(lab)
    lab.network_manager = True
    lab.files[INTERFACES] = "source /etc/network/interfaces.d/*\n"
    lab.files[NM_CONF] = _NM_CONF_TEXT
    lab.files[LOOPBACK_PROFILE] = loopback_profile(*NM_RULES, *NM_BACKSTOP)
    lab.files[OFFICE_PROFILE] = profile("eth0", "10.10.40.9/24,10.10.40.1")
    lab.files[RADIO_PROFILE] = radio_profile(*NM_ROUTE)
    return lab.finish(_INTENT)


def netplan_yaml(*, rules: bool = True, route: bool = True) -> str:
    """Write netplan's file, with systemd-networkd as the renderer; a rule there has no suppress_prefixlength."""
    local = "".join(
        f"        - {{from: {AGENT_SUBNET}, to: {subnet}, table: 254, priority: 990}}\n"
        for subnet in ("10.10.40.0/24", "10.10.50.0/24", AGENT_SUBNET)
    )
    own = f"        - {{from: {AGENT_SUBNET}, table: {TABLE}, priority: 1000}}\n"
    backstop = f"        - {{to: 0.0.0.0/0, type: unreachable, table: {TABLE}, metric: {LARGEST_METRIC}}}\n"
    return (
        "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n"
        "    lo:\n      match: {name: lo}\n      addresses: [127.0.0.1/8]\n"
        + (f"      routing-policy:\n{local}{own}      routes:\n{backstop}" if rules else "")
        + "    eth0:\n      addresses: [10.10.40.9/24]\n      link-local: []\n      routes:\n"
        "        - {to: default, via: 10.10.40.1}\n"
        "    wlan0:\n      addresses: [10.10.50.9/24]\n      link-local: []\n"
        + (f"      routes:\n        - {{to: 0.0.0.0/0, via: 10.10.50.1, table: {TABLE}}}\n" if route else "")
    )


@scenario(
    "policy-routing-netplan",
    "Hardened policy routing in netplan's file, over systemd-networkd: it survives every event",
    GUIDE,
    flavours=("host",),
)
def policy_routing_netplan(lab: LabDraft) -> LabPlan:
    """Describe rules and backstop under lo and the route under wlan0; netplan generates networkd's files at boot."""
    unconfigured_uplinks(lab)
    lab.networkd = True
    lab.files[INTERFACES] = OWN_INTERFACES
    lab.files[NETPLAN] = netplan_yaml()
    lab.files[CONF] = conf(KEEP_RULES, KEEP_ROUTES)
    return lab.finish(_INTENT)


NETPLAN_NM_RULES = (
    f"ipv4.routing-rule91: priority 990 from {AGENT_SUBNET} table 254 suppress_prefixlength 0",
    f"ipv4.routing-rule92: priority 1000 from {AGENT_SUBNET} table {TABLE}",
    f'ipv4.route91: "0.0.0.0/0,,{LARGEST_METRIC}"',
    f"ipv4.route91_options: table={TABLE},type=unreachable",
)
NETPLAN_NM_POLICY = (
    "      routing-policy:\n"
    f"        - {{from: {AGENT_SUBNET}, to: {AGENT_SUBNET}, table: 254, priority: 990}}\n"
    f"        - {{from: {AGENT_SUBNET}, table: {TABLE}, priority: 1000}}\n"
)
"""What netplan gives systemd-networkd alone."""


def netplan_nm_yaml(*, policy: str = "", passthrough: tuple[str, ...] = NETPLAN_NM_RULES) -> str:
    """Write netplan's file with NetworkManager as the renderer, which gets rules and backstop as they are."""
    passed_on = "".join(f"          {line}\n" for line in passthrough)
    return (
        "network:\n  version: 2\n  renderer: NetworkManager\n  ethernets:\n"
        "    eth0:\n      addresses: [10.10.40.9/24]\n      routes:\n        - {to: default, via: 10.10.40.1}\n"
        f"    wlan0:\n      addresses: [10.10.50.9/24]\n{policy}"
        + (f"      networkmanager:\n        passthrough:\n{passed_on}" if passthrough else "")
        + f"      routes:\n        - {{to: 0.0.0.0/0, via: 10.10.50.1, table: {TABLE}}}\n"
    )


@scenario(
    "policy-routing-netplan-nm",
    "Hardened policy routing in netplan's file, over NetworkManager: it survives every event",
    GUIDE,
    flavours=("host",),
)
def policy_routing_netplan_nm(lab: LabDraft) -> LabPlan:
    """Describe rules and backstop that netplan passes on to NetworkManager as they are; it has no words for them."""
    unconfigured_uplinks(lab)
    lab.network_manager = True
    lab.files[INTERFACES] = "source /etc/network/interfaces.d/*\n"
    lab.files[NM_CONF] = _NM_CONF_TEXT
    lab.files[NETPLAN] = netplan_nm_yaml()
    # netplan has no profile of the loopback, so that a new activation of wlan0 sets the rules again.
    return lab.finish({**_INTENT, "egress": {**_INTENT["egress"], "leak": "allow"}})


_INTENT: dict[str, Any] = {
    "agent": {"netns": "/run/netns/agent", "attach": {"mode": "nat", "bridge": BRIDGE}},
    "egress": {"uplink": "wlan0", "table": TABLE, "table_name": TABLE_NAME, "leak": "forbid"},
    "host": {"default_exit": "eth0"},
}  # fmt: skip
