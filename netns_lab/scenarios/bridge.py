"""The labs of the guide's second half: the agent is on the LAN with its own MAC address, by macvlan or by pipework."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from netns_lab import pipework_host
from netns_lab.draft import LabDraft, LabSegment
from netns_lab.plan import LabPlan
from netns_lab.scenarios.register import scenario

PARENT = "eth0"
MACVLAN_NETWORK = "macvlan0"
LAN, IP_RANGE = "10.10.40.0/24", "10.10.40.192/27"
HOST_NUMBER, NEIGHBOUR_NUMBER = 9, 20
MACVLAN_MAC = "02:42:0a:0a:28:c0"
"""Docker derives it from the pool's first address."""
PIPEWORK_MAC = "5a:1c:09:e7:33:0f"
"""With pipework the kernel chooses a random address; a lab needs the same address each time."""
PIPEWORK_ADDRESS = "10.10.40.200/24"
CONTAINER = "te-agent"
CONTAINER_GUARD, NAMESPACE_GUARD = (
    pipework_host.container_guard(CONTAINER),
    pipework_host.namespace_guard(CONTAINER),
)


def on_the_lan(lab: LabDraft) -> LabSegment:
    """Describe a host with the parent on a switched segment, and another uplink that the agent must not use."""
    office = lab.uplink(PARENT, LAN, HOST_NUMBER, neighbour=NEIGHBOUR_NUMBER)
    lab.uplink("wlan0", "10.10.50.0/24")
    lab.host.route("default", via=office.gateway, dev=PARENT)
    return office


def _static_intent(office: LabSegment) -> dict[str, Any]:
    return bridged_intent({"mode": "pipework-static", "address": PIPEWORK_ADDRESS, "gateway": office.gateway})


def bridged_intent(attach: dict[str, Any]) -> dict[str, Any]:
    """Return the intent of an agent that is attached to the LAN in this way."""
    return {
        "agent": {"netns": "/run/netns/agent", "attach": {"parent": PARENT, **attach}},
        "egress": {"uplink": PARENT},
        "host": {"default_exit": PARENT},
    }


@scenario("macvlan", "The agent is on the LAN by Docker's macvlan driver", "Bridge, bridging with macvlan")
def macvlan(lab: LabDraft) -> LabPlan:
    """Describe a macvlan interface in bridge mode on eth0, with an address from Docker's pool and a default route."""
    office = on_the_lan(lab)
    lab.on_parent(PARENT, "10.10.40.192/24", mac=MACVLAN_MAC, gateway=office.gateway)
    return lab.finish(bridged_intent(_macvlan_attach(office)))


def _macvlan_attach(office: LabSegment) -> dict[str, Any]:
    return {
        "mode": "macvlan", "network": MACVLAN_NETWORK,
        "subnet": LAN, "gateway": office.gateway, "ip_range": IP_RANGE,
    }  # fmt: skip


@scenario(
    "macvlan-dhcp",
    "The agent is on the LAN by podman's macvlan driver, with a lease that netavark-dhcp-proxy holds",
    "Bridge, bridging with macvlan",
    podman_only=True,
)
def macvlan_dhcp(lab: LabDraft) -> LabPlan:
    """Describe a network without a pool: the segment's DHCP server gives the agent its address and its router."""
    office = on_the_lan(lab)
    lab.serve_dhcp(PARENT, 100, 150)
    lab.on_parent(PARENT, None, mac=MACVLAN_MAC)
    lab.leased = "eth0"
    attach = {"mode": "macvlan", "network": MACVLAN_NETWORK, "subnet": LAN, "gateway": office.gateway}
    return lab.finish(bridged_intent(attach))


@scenario(
    "macvlan-ifupdown",
    "The agent is on the LAN by Docker's macvlan driver; ifupdown brings the parent up and Docker starts the agent",
    "Bridge, bridging with macvlan",
    flavours=("host",),
)
def macvlan_ifupdown(lab: LabDraft) -> LabPlan:
    """Describe two uplinks that ifupdown configures at boot; the engine's disk has the network and the container."""
    office = on_the_lan(lab)
    lab.on_parent(PARENT, "10.10.40.192/24", mac=MACVLAN_MAC, gateway=office.gateway)
    lab.host.links = [replace(link, flags=()) for link in lab.host.links]
    lab.host.addresses.clear()
    lab.host.routes.clear()
    lab.files[pipework_host.INTERFACES] = (
        f"auto lo\niface lo inet loopback\n\nauto {PARENT}\niface {PARENT} inet static\n"
        f"    address {office[HOST_NUMBER]}\n    gateway {office.gateway}\n\n"
        "auto wlan0\niface wlan0 inet static\n    address 10.10.50.9/24\n"
    )
    return lab.finish(bridged_intent(_macvlan_attach(office)))


def _pipework(
    lab: LabDraft, address: str, parent_address: str | None, gateway: str, guard: str = CONTAINER_GUARD
) -> None:
    """Add the files that run pipework again: after a reboot, when the parent comes up, when the container starts."""
    line = pipework_host.command_line(PARENT, CONTAINER, address)
    lab.program(pipework_host.PATH, pipework_host.STAND_IN)
    lab.program(pipework_host.LEASE_SCRIPT, pipework_host.LEASE_TEXT)
    lab.program(pipework_host.RC_LOCAL, pipework_host.rc_local(line))
    lab.files[pipework_host.INTERFACES] = pipework_host.interfaces(
        PARENT, parent_address, gateway, f"{guard} || {line}"
    )
    lab.program(pipework_host.WATCH, pipework_host.WATCH_TEXT)
    lab.files[pipework_host.WATCH_UNIT] = pipework_host.watch_unit(PARENT, CONTAINER, address)
    lab.file_links[pipework_host.WATCH_ENABLED] = pipework_host.WATCH_UNIT
    # The stand-in finds an agent without a container by the container's name.
    lab.file_links[f"/run/netns/{CONTAINER}"] = "agent"
    lab.notes.append(pipework_host.NO_CONTAINER_NOTE)


@scenario(
    "pipework-static", "The agent is on the LAN by pipework, with a fixed address", "Bridge, bridging with pipework"
)
def pipework_static(lab: LabDraft) -> LabPlan:
    """Describe an agent without a Docker network; eth1 is a macvlan on eth0, with pipework's address argument."""
    office = on_the_lan(lab)
    lab.on_parent(PARENT, PIPEWORK_ADDRESS, interface=pipework_host.INTERFACE, mac=PIPEWORK_MAC, gateway=office.gateway)
    _pipework(lab, f"{PIPEWORK_ADDRESS}@{office.gateway}", str(office[HOST_NUMBER]), office.gateway)
    return lab.finish(_static_intent(office))


@scenario(
    "pipework-ifupdown",
    "The agent is on the LAN by pipework, which ifupdown runs when it brings the parent up",
    "Bridge, bridging with pipework, steps 9-10",
)
def pipework_ifupdown(lab: LabDraft) -> LabPlan:
    """Describe a parent that real ifup and ifdown configure; its post-up runs pipework unless the interface exists."""
    office = on_the_lan(lab)
    lab.on_parent(PARENT, PIPEWORK_ADDRESS, interface=pipework_host.INTERFACE, mac=PIPEWORK_MAC, gateway=office.gateway)
    address = f"{PIPEWORK_ADDRESS}@{office.gateway}"
    _pipework(lab, address, str(office[HOST_NUMBER]), office.gateway, NAMESPACE_GUARD)
    # ifupdown sets the parent's address and the routes.
    lab.host.addresses = [address for address in lab.host.addresses if address.interface != PARENT]
    lab.host.routes.clear()
    lab.needs = {"ifup": "ifupdown"}
    lab.boot.append(("ifup", "-a"))
    return lab.finish(_static_intent(office))


@scenario(
    "pipework-dhcp", "The agent is on the LAN by pipework, with a lease", "Bridge, bridging with pipework, step 5a"
)
def pipework_dhcp(lab: LabDraft) -> LabPlan:
    """Describe pipework with an address from the segment's DHCP server, and a client that holds the lease."""
    office = on_the_lan(lab)
    lab.serve_dhcp(PARENT, 100, 150)
    lab.on_parent(PARENT, None, interface=pipework_host.INTERFACE, mac=PIPEWORK_MAC)
    lab.leased = pipework_host.INTERFACE
    _pipework(lab, "dhcpcd", None, office.gateway)
    lab.notes.append(pipework_host.CLIENT_NOTE)
    return lab.finish(bridged_intent({"mode": "pipework-dhcp"}))
