"""The Docker engine, its networks and the agent's container, as far as a snapshot keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field

USERSPACE_NETWORKS = ("slirp4netns", "pasta")
"""Programs that carry a container's packets in place of a bridge (podman-run(1), ``--network``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IPAMPool:
    """One subnet of a Docker network's address management."""

    subnet: str
    gateway: str | None = None
    ip_range: str | None = None
    reserved: dict[str, str] = field(default_factory=dict)
    """``--aux-address``: addresses that the engine gives to no container, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerNetwork:
    """A Docker network: an allow-list of the fields of ``docker network inspect``."""

    name: str
    id: str
    driver: str
    internal: bool = False
    ipv6: bool = False
    pools: tuple[IPAMPool, ...] = ()
    parent: str | None = None
    """``-o parent=``: the macvlan parent; of podman, ``network_interface``."""
    bridge: str | None = None
    """Name of the bridge interface on the host, for the bridge driver."""
    options: dict[str, str] = field(default_factory=dict)
    address_management: str | None = None
    """Of podman: ``dhcp``, the LAN's DHCP server assigns the addresses; ``none``, they are not assigned.

    None: the engine assigns them.
    """
    not_kept: tuple[str, ...] = ()
    """Settings that the network has and a snapshot does not hold: labels, other options, ``--attachable``."""
    containers: tuple[str, ...] | None = None
    """The containers on it, stopped ones too; None when they are not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A container's connection to a Docker network."""

    network: str
    address: str | None = None
    prefixlen: int | None = None
    gateway: str | None = None
    mac: str | None = None
    ipv6_address: str | None = None
    fixed_address: str | None = None
    """``--ip``: the address that the container asked for; None where the engine chose it."""
    fixed_mac: str | None = None
    """``--mac-address``."""
    aliases: tuple[str, ...] = ()
    """``--network-alias``: its other names on this network."""
    gateway_priority: int = 0
    """``--gw-priority``: the network with the highest one has the container's default route (since Docker 28)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    """The state of a container in the engine's own terms (docker inspect, State)."""

    status: str = ""
    """``created``, ``running``, ``paused``, ``restarting``, ``removing``, ``exited`` or ``dead``; empty: not known."""
    exit_code: int = 0
    out_of_memory: bool = False
    error: str = ""
    """The engine's message about its last start."""
    restarts: int = 0
    """How often the restart policy has started it again."""
    started: str = ""
    finished: str = ""
    health: str = ""
    """``starting``, ``healthy``, ``unhealthy``; empty without a health check."""

    @property
    def paused(self) -> bool:
        """Whether its processes are frozen (docker pause)."""
        return self.status == "paused"

    @property
    def restarting(self) -> bool:
        """Whether the engine waits before it starts the container again, as after each end of its program."""
        return self.status == "restarting"


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerContainer:
    """The agent's container: an allow-list of the fields of ``docker inspect``, without the environment's values."""

    name: str
    id: str
    running: bool
    pid: int
    image: str = ""
    network_mode: str = ""
    restart_policy: str = "no"
    dns: tuple[str, ...] = ()
    environment_names: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    """Those of the container whose network namespace it shares, if it shares one."""
    namespace_of: str | None = None
    """The name of the container whose network namespace it shares (``--network container:NAME``)."""
    state: ContainerState = ContainerState()


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerEngine:
    """The Docker engine, its networks and the agent's container."""

    version: str
    api_version: str
    rootless: bool = False
    podman: bool = False
    """Podman answers Docker's API; its networks are those of its own answer, where it gives that."""
    networks: tuple[DockerNetwork, ...] = ()
    container: DockerContainer | None = None

    @property
    def program(self) -> str:
        """The program that a person types commands for the engine with."""
        return "podman" if self.podman else "docker"

    def network(self, name: str) -> DockerNetwork | None:
        """Return the Docker network of that name; None when it does not exist."""
        return next((network for network in self.networks if network.name == name), None)
