"""The labs of viacheck: each is a function that describes it, without touching the kernel. ``docs/labs.md`` lists them.

Importing this package registers every lab.
"""

from netns_lab.scenarios.nat import (
    AGENT_SUBNET,
    AGENT_SUBNET6,
    BRIDGE,
    SECOND_ADDRESS,
    TABLE,
    TABLE_NAME,
    USERSPACE_NETWORK,
)

# isort: split
# The NAT chapter comes first in the guide, and so in every list of labs.
from netns_lab.scenarios.bridge import MACVLAN_NETWORK, PARENT
from netns_lab.scenarios.managers import policy_routing_netplan, policy_routing_nm
from netns_lab.scenarios.networkd import policy_routing_networkd
from netns_lab.scenarios.other_kernels import wifi
from netns_lab.scenarios.pipework_boot import pipework_rc_local, pipework_unit
from netns_lab.scenarios.register import (
    BLANK,
    PODMAN_ONLY,
    SCENARIOS,
    VIRTUAL_MACHINES,
    WHOLE_HOSTS,
    Flavour,
    scenario,
)
from netns_lab.scenarios.survival import policy_routing_ifupdown

__all__ = [
    "AGENT_SUBNET",
    "AGENT_SUBNET6",
    "BLANK",
    "BRIDGE",
    "MACVLAN_NETWORK",
    "PARENT",
    "PODMAN_ONLY",
    "SCENARIOS",
    "SECOND_ADDRESS",
    "TABLE",
    "TABLE_NAME",
    "USERSPACE_NETWORK",
    "VIRTUAL_MACHINES",
    "WHOLE_HOSTS",
    "Flavour",
    "pipework_rc_local",
    "pipework_unit",
    "policy_routing_ifupdown",
    "policy_routing_netplan",
    "policy_routing_networkd",
    "policy_routing_nm",
    "scenario",
    "wifi",
]
