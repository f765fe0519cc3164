"""The labs that survive every event: real ifupdown, with stanzas that can run any number of times, in boot order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from netns_lab.draft import LabDraft
from netns_lab.nft_rules import Masquerade
from netns_lab.plan import RT_TABLES, LabPlan
from netns_lab.scenarios.nat import AGENT_SUBNET, BACKSTOP_METRIC, BRIDGE, TABLE, TABLE_NAME
from netns_lab.scenarios.register import scenario

INTERFACES = "/etc/network/interfaces"
LINK_HOOK = "/etc/network/link-up"
DEFAULT_ROUTE = f"ip route replace default via 10.10.50.1 dev wlan0 table {TABLE}"
LOCAL_RULES = (
    "post-up ip rule del priority 990 2>/dev/null || true",
    f"post-up ip rule add priority 990 from {AGENT_SUBNET} lookup main suppress_prefixlength 0",
)
AGENT_RULES = (
    "post-up ip rule del priority 1000 2>/dev/null || true",
    f"post-up ip rule add priority 1000 from {AGENT_SUBNET} lookup {TABLE_NAME}",
)
BACKSTOP = (f"post-up ip route replace unreachable default metric {BACKSTOP_METRIC} table {TABLE_NAME}",)
UPLINK_ROUTE = (f"post-up {DEFAULT_ROUTE.replace(str(TABLE), TABLE_NAME)}",)
HOOK_TEXT = f'#!/bin/sh\n[ "$1" = wlan0 ] || exit 0\nexec {DEFAULT_ROUTE}\n'
WATCHER_NOTE = (
    f"ifupdown does not notice a link that goes down and up; in this lab a link watcher like ifplugd runs {LINK_HOOK} "
    "whenever an interface comes up"
)

LEASE_HOOK = "/etc/dhcp/dhclient-exit-hooks.d/agent-route"
LEASE_ROUTER = "/run/agent-router"
FIXED_ADDRESS = ("address 10.10.50.9/24",)


def lease_hook(*lines: str, reasons: str = "BOUND | RENEW | REBIND | REBOOT") -> str:
    """Return a hook of dhclient-script(8), which sets the table's default route by the lease's router."""
    lines = (
        f'printf %s "${{new_routers%% *}}" >{LEASE_ROUTER}',
        f'ip route replace default via "${{new_routers%% *}}" dev wlan0 table {TABLE}',
        *lines,
    )
    body = "\n".join(f"        {line}" for line in lines)
    return f'if [ "$interface" = wlan0 ]; then\n    case $reason in\n    {reasons})\n{body}\n        ;;\n    esac\nfi\n'


LEASED_HOOK_TEXT = (
    f'#!/bin/sh\n[ "$1" = wlan0 ] && [ -e {LEASE_ROUTER} ] || exit 0\n'
    f'exec ip route replace default via "$(cat {LEASE_ROUTER})" dev wlan0 table {TABLE}\n'
)


def interfaces(
    *,
    loopback: tuple[str, ...] = (*LOCAL_RULES, *AGENT_RULES, *BACKSTOP),
    uplink: tuple[str, ...] = UPLINK_ROUTE,
    leased: bool = False,
) -> str:
    """Return the host's /etc/network/interfaces (interfaces(5)), with these options for lo and for wlan0.

    ``no-scripts`` keeps the machine's own scripts below /etc/network from running.
    """
    method, address = ("dhcp", ()) if leased else ("static", FIXED_ADDRESS)
    lines = ["no-scripts lo eth0 wlan0", "", "auto lo", "iface lo inet loopback", *_options(*loopback)]
    lines += ["", "auto eth0", "iface eth0 inet static", *_options("address 10.10.40.9/24", "gateway 10.10.40.1")]
    lines += ["", "auto wlan0", f"iface wlan0 inet {method}", *_options(*address, *uplink)]
    return "\n".join(lines) + "\n"


def _options(*lines: str) -> list[str]:
    return [f"    {line}" for line in lines]


@scenario(
    "policy-routing-ifupdown",
    "Hardened policy routing in ifupdown's files: it survives every event",
    "NAT, host with multiple physical interfaces, steps 1-6",
    flavours=("netns", "engine", "host"),
)
def policy_routing_ifupdown(lab: LabDraft) -> LabPlan:
    """Describe rules and backstop under lo and the route under wlan0; real ifup and ifdown read private files."""
    _two_uplinks(lab)
    lab.files[INTERFACES] = interfaces()
    lab.program(LINK_HOOK, HOOK_TEXT)
    survives = ["link-flap", "carrier-loss", "ifupdown", "reboot", "device-change"]
    return lab.finish({**_INTENT, "egress": {**_INTENT["egress"], "survives": survives}})


@scenario(
    "policy-routing-dhcp",
    "Hardened policy routing with a leased address, whose router and address may change: it survives every event",
    "NAT, host with multiple physical interfaces, step 6",
)
def policy_routing_dhcp(lab: LabDraft) -> LabPlan:
    """Describe wlan0 as 'inet dhcp', as in the guide: a real dhclient holds the lease, and its hook sets the route."""
    _two_uplinks(lab)
    # Clients renew after a second, so that no disruption test has to wait long for a renewal.
    lab.serve_dhcp("wlan0", 9, 12, renew_after=1)
    lab.needs["dhclient"] = "isc-dhcp-client"
    lab.daemons = True
    lab.hidden.append("/var/lib/dhcp")
    lab.files[INTERFACES] = interfaces(uplink=(), leased=True)
    lab.files[LEASE_HOOK] = lease_hook()
    lab.program(LINK_HOOK, LEASED_HOOK_TEXT)
    return lab.finish(_INTENT)


_INTENT: dict[str, Any] = {
    "agent": {"netns": "/run/netns/agent", "attach": {"mode": "nat", "bridge": BRIDGE}},
    "egress": {
        "uplink": "wlan0", "table": TABLE, "table_name": TABLE_NAME, "persist": "ifupdown", "leak": "forbid",
    },
    "host": {"default_exit": "eth0"},
}  # fmt: skip


def unconfigured_uplinks(lab: LabDraft) -> None:
    """Describe a host with two uplinks and Docker's bridge, before a network manager has configured the uplinks."""
    lab.uplink("eth0", "10.10.40.0/24")
    lab.uplink("wlan0", "10.10.50.0/24")
    lab.host.links = [replace(link, flags=()) for link in lab.host.links]
    lab.host.addresses.clear()
    lab.behind_bridge(BRIDGE, AGENT_SUBNET)
    lab.host.packet_filter.append(Masquerade(source=AGENT_SUBNET, not_oif=BRIDGE))
    lab.files[RT_TABLES] += f"{TABLE} {TABLE_NAME}\n"


def _two_uplinks(lab: LabDraft) -> None:
    """Describe two unconfigured uplinks that ifupdown configures at boot."""
    unconfigured_uplinks(lab)
    lab.link_hook = LINK_HOOK
    lab.needs = {"ifup": "ifupdown"}
    lab.boot.append(("ifup", "-a"))
    lab.notes.append(WATCHER_NOTE)
