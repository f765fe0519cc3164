"""The Docker networks of a lab's engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import DockerClient


class EngineNetworks:
    """Creates and removes networks; ``docker.errors.APIError`` unless a method says otherwise: the engine refuses."""

    def __init__(self, client: Callable[[], DockerClient]) -> None:
        """Ask for the client at each use: a restart of dockerd gives another client."""
        self._client = client

    def create_bridge(self, name: str, subnet: str, gateway: str | None = None, bridge: str | None = None) -> None:
        """Create a user-defined bridge network.

        Args:
            name: of the Docker network.
            subnet: in CIDR form.
            gateway: the bridge's own address; None for Docker's choice.
            bridge: name of the interface; None for Docker's ``br-<id>``.
        """
        options = {"com.docker.network.bridge.name": bridge} if bridge else {}
        self._create(name, "bridge", options, subnet, gateway, None)

    def create_macvlan(
        self, name: str, parent: str, subnet: str, gateway: str | None = None, ip_range: str | None = None
    ) -> None:
        """Create a macvlan network on an uplink, as ``docker network create -d macvlan`` does."""
        self._create(name, "macvlan", {"parent": parent}, subnet, gateway, ip_range)

    def connect(self, name: str, container: str, *, gateway_priority: int) -> None:
        """Connect a container to a network, as ``docker network connect --gw-priority`` does.

        Before Docker 28 an engine ignores the priority: the network whose name sorts first has the default route.

        Raises:
            requests.HTTPError: when the engine refuses.
        """
        api = self._client().api
        # The SDK has no parameter for the priority.
        answer = api.post(
            f"{api.base_url}/v{api.api_version}/networks/{name}/connect",
            json={"Container": container, "EndpointConfig": {"GwPriority": gateway_priority}},
        )
        answer.raise_for_status()

    def remove(self, name: str) -> None:
        """Remove a network that has no containers (docker network rm)."""
        self._client().networks.get(name).remove()

    def _create(
        self,
        name: str,
        driver: str,
        options: dict[str, str],
        subnet: str,
        gateway: str | None,
        ip_range: str | None,
    ) -> None:
        from docker.types import IPAMConfig, IPAMPool

        pool = IPAMPool(subnet=subnet, gateway=gateway, iprange=ip_range)
        self._client().networks.create(name, driver=driver, options=options, ipam=IPAMConfig(pool_configs=[pool]))
