"""Faults that only a whole host shows: the order of its units at boot."""

from __future__ import annotations

from netns_lab.faults.fault import fault
from netns_lab.lab import Lab
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
