"""Restart a live host's Docker engine and the agent's container as their operator would.

The engine restarts the container and systemd the engine, so a restart completes even if this process is killed.
"""

from __future__ import annotations

from viacheck.disruption.controls import EventFailed
from viacheck.host.docker import one_line
from viacheck.host.namespace import Namespace

STOP_SECONDS = 10
"""Seconds that ``docker restart`` gives a container to end by itself."""
SERVICE = "docker.service"
SERVICE_TIMEOUT = 60.0


class DockerControl:
    """Control over a live host's engine and container."""

    def __init__(self, host: Namespace, url: str | None, container: str) -> None:
        """Restart nothing yet.

        Args:
            host: the namespace whose systemd restarts the engine.
            url: the engine's address; None for the address in DOCKER_HOST, or Docker's default.
            container: the agent's, by name or id.
        """
        self._host, self._url, self._container = host, url, container

    def engine_obstacle(self) -> str | None:
        """Return why the engine cannot be restarted here, in one line; None when it can."""
        active = self._host.run(["systemctl", "is-active", "--quiet", SERVICE])
        if active.ok:
            return None
        return (
            f"systemd does not run the Docker engine here ('{active.command}' ended with exit code {active.exit_code})"
        )

    def restart_container(self) -> None:
        """Restart the container; return when the engine reports that it runs.

        Raises:
            EventFailed: it does not start again.
        """
        # Imported here because it costs 145 ms, which a run without an engine does not need.
        import docker

        client = docker.DockerClient(base_url=self._url) if self._url else docker.from_env()
        try:
            client.containers.get(self._container).restart(timeout=STOP_SECONDS)
        except (OSError, docker.errors.DockerException) as error:
            raise EventFailed(f"docker restart {self._container}: {one_line(error)}") from error
        finally:
            client.close()

    def restart_engine(self) -> None:
        """Restart the engine; return when systemd reports that it is ready, which is when it answers.

        Raises:
            EventFailed: it does not start again.
        """
        result = self._host.run(["systemctl", "restart", SERVICE], SERVICE_TIMEOUT)
        if not result.ok:
            raise EventFailed(f"{result.command}: exit {result.exit_code}: {result.stderr.strip()}")
