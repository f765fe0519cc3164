"""A switch's port towards the host that accepts one MAC address only, in the three ways that are met in the field.

An access point and port security drop frames *from* another source, a hypervisor's virtual switch delivers none *to*
another destination, and some networks let ARP pass and drop everything else.
"""

from __future__ import annotations

from netns_lab import nft_rules
from netns_lab.lab import Lab
from netns_lab.nft_rules import DropFrames
from netns_lab.plan import HOST_PORT

TABLE = "viacheck-port"
_IPV4, _IPV6 = 0x0800, 0x86DD


def accept_one_source(lab: Lab, uplink: str, mac: str) -> None:
    """Drop what the host sends from any other MAC address (port security, 802.11 with one station)."""
    _restrict(lab, uplink, DropFrames(device=HOST_PORT, direction="ingress", source_not=mac))


def deliver_to_one(lab: Lab, uplink: str, mac: str) -> None:
    """Deliver to the host what is meant for that MAC address or for a group (a hypervisor without promiscuous mode)."""
    _restrict(lab, uplink, DropFrames(device=HOST_PORT, direction="egress", destination_not=mac))


def carry_data_of_one(lab: Lab, uplink: str, mac: str) -> None:
    """Let ARP pass, and drop IP packets from any other MAC address."""
    _restrict(
        lab,
        uplink,
        DropFrames(device=HOST_PORT, direction="ingress", source_not=mac, ethertype=_IPV4),
        DropFrames(device=HOST_PORT, direction="ingress", source_not=mac, ethertype=_IPV6),
    )


def accept_all(lab: Lab, uplink: str) -> None:
    """Take every restriction away."""
    nft_rules.remove(lab.switch(uplink).namespace, TABLE)


def _restrict(lab: Lab, uplink: str, *rules: DropFrames) -> None:
    accept_all(lab, uplink)
    nft_rules.apply(lab.switch(uplink).namespace, TABLE, rules)
