"""The agent's attachment to a macvlan network, made by the Docker engine, or by ip(8) with the same result.

Faults disconnect the agent and connect it again with other options.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from netns_lab.docker_engine.podman import PodmanEngine
from netns_lab.lab import Lab
from netns_lab.plan import QUICK_NEIGHBOURS, RETRANSMIT_MS
from viacheck.model.intent import Intent, MacvlanAttach

INTERFACE = "eth0"
"""Docker's name of the agent's interface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MacvlanNetwork:
    """The options of a Docker macvlan network."""

    name: str
    parent: str
    subnet: str
    gateway: str
    ip_range: str

    @property
    def first_address(self) -> str:
        """The first address that Docker's address management assigns."""
        return str(IPv4Network(self.ip_range).network_address)


def intended(intent: Intent) -> MacvlanNetwork:
    """Return the network of a macvlan lab's intent."""
    attach = intent.agent.attach
    assert isinstance(attach, MacvlanAttach)
    return MacvlanNetwork(
        name=attach.network,
        parent=attach.parent,
        subnet=str(attach.subnet),
        gateway=str(attach.gateway),
        ip_range=str(attach.ip_range or attach.subnet),
    )


def connect(lab: Lab, network: MacvlanNetwork) -> None:
    """Create the network and attach the agent to it.

    Raises:
        docker.errors.APIError: when the engine refuses.
        LabCommandError: when the kernel refuses.
    """
    if lab.engine is not None:
        lab.engine.networks.create_macvlan(
            network.name, network.parent, network.subnet, network.gateway, network.ip_range
        )
        run_agent(lab, network.name)
        return
    address = IPv4Address(network.first_address)
    prefixlen = IPv4Network(network.subnet).prefixlen
    mac = (b"\x02\x42" + address.packed).hex(":")
    lab.host.ip(
        "link", "add", "link", network.parent, "name", INTERFACE, "address", mac, "netns", "agent",
        "type", "macvlan", "mode", "bridge",
    )  # fmt: skip
    for path in QUICK_NEIGHBOURS:
        lab.agent.sysctl(path.format(INTERFACE), RETRANSMIT_MS)
    lab.agent.ip("address", "add", f"{address}/{prefixlen}", "dev", INTERFACE)
    lab.agent.ip("link", "set", "dev", INTERFACE, "up")
    lab.agent.ip("route", "add", "default", "via", network.gateway, "dev", INTERFACE)


def create_leased(engine: PodmanEngine, intent: Intent) -> None:
    """Create the network of a macvlan lab's intent without a pool: the LAN's DHCP server assigns the addresses.

    Raises:
        netns_lab.docker_engine.daemon.EngineFailed: podman refuses.
    """
    network = intended(intent)
    engine.start_dhcp_proxy()
    engine.networks.create_macvlan_dhcp(network.name, network.parent)


def run_agent(lab: Lab, network: str) -> None:
    """Run the agent's container on a network of the engine.

    Raises:
        docker.errors.APIError: when the engine refuses.
    """
    assert lab.engine is not None
    lab.engine.containers.run(lab.agent_container, network=network, restart="unless-stopped")
    lab.set_agent_namespace(lab.engine.containers.namespace(lab.agent_container))


def disconnect(lab: Lab) -> None:
    """Remove the agent from its network, and the network too."""
    if lab.engine is not None:
        lab.engine.containers.remove(lab.agent_container)
        lab.engine.networks.remove(intended(lab.plan.intent).name)
    else:
        lab.agent.ip("link", "del", "dev", INTERFACE)


def reconnect(lab: Lab, **options: str) -> None:
    """Create the network again; ``options`` replace those of the intent."""
    disconnect(lab)
    connect(lab, replace(intended(lab.plan.intent), **options))
