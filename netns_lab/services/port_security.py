"""Port security on the switch port of a lab's host: the port is limited to one MAC address, in three common forms.

An access point and port security drop frames *from* other sources, a hypervisor's virtual switch delivers no frames
*to* other destinations, and some networks pass ARP and drop everything else.
"""

from __future__ import annotations

from netns_lab import nft_rules
from netns_lab.lab import Lab
from netns_lab.nft_rules import DropFrames
from netns_lab.plan import HOST_PORT

TABLE = "viacheck-port"
_IPV4, _IPV6 = 0x0800, 0x86DD


def accept_one_source(lab: Lab, uplink: str, mac: str) -> None:
    """Drop the host's frames from other MAC addresses (port security, 802.11 with one station)."""
    _restrict(lab, uplink, DropFrames(device=HOST_PORT, direction="ingress", source_not=mac))


def deliver_to_one(lab: Lab, uplink: str, mac: str) -> None:
    """Deliver to the host frames to that MAC address and to groups only (a hypervisor without promiscuous mode)."""
    _restrict(lab, uplink, DropFrames(device=HOST_PORT, direction="egress", destination_not=mac))


def carry_data_of_one(lab: Lab, uplink: str, mac: str) -> None:
    """Pass ARP, and drop IP packets from other MAC addresses."""
    _restrict(
        lab,
        uplink,
        DropFrames(device=HOST_PORT, direction="ingress", source_not=mac, ethertype=_IPV4),
        DropFrames(device=HOST_PORT, direction="ingress", source_not=mac, ethertype=_IPV6),
    )


def accept_all(lab: Lab, uplink: str) -> None:
    """Remove every restriction."""
    nft_rules.remove(lab.switch(uplink).namespace, TABLE)


def _restrict(lab: Lab, uplink: str, *rules: DropFrames) -> None:
    accept_all(lab, uplink)
    nft_rules.apply(lab.switch(uplink).namespace, TABLE, rules)
