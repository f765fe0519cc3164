"""Faults that only a whole host shows: the order of its units at boot, and the files of NetworkManager and netplan."""

from __future__ import annotations

from netns_lab.faults.fault import fault
from netns_lab.lab import Lab
from netns_lab.scenarios.managers import (
    LOOPBACK_PROFILE,
    NETPLAN,
    NM_ROUTE,
    RADIO_PROFILE,
    loopback_profile,
    netplan_yaml,
    radio_profile,
)
from netns_lab.scenarios.survival import AGENT_RULES, BACKSTOP, INTERFACES, LOCAL_RULES, UPLINK_ROUTE, interfaces
from netns_lab.whole_host.root_files import AGENT_UNIT, UNITS, agent_unit

RULES_ONCE = tuple(f"{line} 2>/dev/null || true" for line in (LOCAL_RULES[1], AGENT_RULES[1]))
"""A rule with a priority cannot be added twice; without the deletion before, none is ever missing meanwhile."""


@fault("agent-before-network", "The agent is started before the network, and the rules belong to the second uplink",
       on="policy-routing-ifupdown", breaks={"FLAP-08"}, diagnosis="LEAK_AT_BOOT", flavour="host")  # fmt: skip
def agent_before_network(lab: Lab) -> None:
    # The first uplink has its default route while ifup has not come to the second yet.
    lab.host.write(INTERFACES, interfaces(loopback=(), uplink=(*RULES_ONCE, *BACKSTOP, *UPLINK_ROUTE)))
    lab.host.write(f"{UNITS}/{AGENT_UNIT}", agent_unit(early=True))


@fault("nm-without-rule", "The profiles no longer have the rules and the route", on="policy-routing-nm",
       breaks={"PERSIST-01", "FLAP-08"}, diagnosis="NOT_PERSISTENT", flavour="host")  # fmt: skip
def nm_without_rule(lab: Lab) -> None:
    # NetworkManager takes a link that is up as it finds it, so its restart keeps the present rules and routes.
    lab.host.write(LOOPBACK_PROFILE, loopback_profile())
    lab.host.write(RADIO_PROFILE, radio_profile())


@fault("nm-no-autoconnect", "The uplink's profile was activated by hand and does not connect by itself",
       on="policy-routing-nm", breaks={"PERSIST-01", "FLAP-08"}, diagnosis="NOT_PERSISTENT",
       flavour="host")  # fmt: skip
def nm_no_autoconnect(lab: Lab) -> None:
    lab.host.write(RADIO_PROFILE, radio_profile(*NM_ROUTE, automatic=False))


@fault("netplan-without-rule", "netplan's file no longer has the rules and the route", on="policy-routing-netplan",
       breaks={"PERSIST-01", "FLAP-08", "FLAP-11"}, diagnosis="NOT_PERSISTENT", flavour="host")  # fmt: skip
def netplan_without_rule(lab: Lab) -> None:
    # The files that netplan generated at boot stay until it is applied.
    lab.host.write(NETPLAN, netplan_yaml(rules=False, route=False))
