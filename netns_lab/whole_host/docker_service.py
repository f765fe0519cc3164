"""The Docker engine of a whole host, as a unit of the host's own systemd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netns_lab.docker_engine.containers import EngineContainers
from netns_lab.docker_engine.daemon import ANSWER_TIMEOUT, EngineFailed
from netns_lab.docker_engine.image import BUSYBOX
from netns_lab.docker_engine.networks import EngineNetworks
from netns_lab.whole_host.power import WholeHost
from viacheck.disruption.docker_control import SERVICE, SERVICE_TIMEOUT

if TYPE_CHECKING:
    from docker import DockerClient

SOCKET_PATH = "/run/docker.sock"
SOCKET = "docker.socket"
"""systemd listens for the engine, and starts the service at the first connection."""


class DockerService:
    """dockerd on one whole host. See :class:`netns_lab.lab.Engine`."""

    def __init__(self, whole_host: WholeHost) -> None:
        """Connect when the client is first needed: a connection would start the engine."""
        self._whole_host = whole_host
        self._client: DockerClient | None = None
        self.containers = EngineContainers(
            lambda: self.client, lambda: self.proc, busybox=f"{whole_host.base}{BUSYBOX}"
        )
        self.networks = EngineNetworks(lambda: self.client)

    @property
    def pid(self) -> int:
        """The host's init, as this process sees it."""
        return self._whole_host.init

    @property
    def root(self) -> str:
        """The host's file system, as this process sees it."""
        return self._whole_host.root

    @property
    def proc(self) -> str:
        """The /proc in which the engine's process numbers are true."""
        return f"{self.root}/proc"

    @property
    def base_url(self) -> str:
        """The address of the engine's API, from boot to boot."""
        return f"unix://{self.root}{SOCKET_PATH}"

    @property
    def hosts_url(self) -> str:
        """The address of the engine's API on the host, where this process has no number."""
        return f"unix://{SOCKET_PATH}"

    def hosts_pid(self, inner: int) -> int:
        """Return the same number: the host counts the processes of its engine."""
        return inner

    @property
    def client(self) -> DockerClient:
        """The Docker SDK's client of this engine."""
        if self._client is None:
            # The import costs 145 ms, which the listing of all labs does not need.
            import docker

            self._client = docker.DockerClient(self.base_url, timeout=ANSWER_TIMEOUT)
        return self._client

    def restart(self) -> None:
        """Restart the service; return when systemd reports that it is ready.

        Raises:
            EngineFailed: it does not start again.
        """
        self.close()
        self._systemctl("restart", SERVICE)

    def stop_daemon(self) -> None:
        """Stop the service, and the socket that would start it again.

        Raises:
            EngineFailed: it does not end.
        """
        self.close()
        self._systemctl("stop", SERVICE, SOCKET)

    def close(self) -> None:
        """Close the client; the engine ends with its host."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _systemctl(self, *arguments: str) -> None:
        result = self._whole_host.host.run(["systemctl", *arguments], SERVICE_TIMEOUT)
        if not result.ok:
            raise EngineFailed(f"{result.command} ended with exit code {result.exit_code}: {result.stderr.strip()}")
