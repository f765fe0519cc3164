"""A live host's Docker engine and the agent's container, restarted as their operator would.

Whoever runs the thing does the restart, the engine or systemd: once asked for, it is finished also when this process is
killed in the middle.
"""

from __future__ import annotations

from viacheck.disruption.controls import EventFailed
from viacheck.host.docker import one_line
from viacheck.host.namespace import Namespace

STOP_SECONDS = 10
"""What ``docker restart`` gives a container to end by itself."""
SERVICE = "docker.service"
SERVICE_TIMEOUT = 60.0


class DockerControl:
    """What restarts engine and container of a live host."""

    def __init__(self, host: Namespace, url: str | None, container: str) -> None:
        """Nothing is restarted yet.

        Args:
            host: where systemd is asked.
            url: the engine's address; None for what DOCKER_HOST or Docker's default says.
            container: the agent's, by name or id.
        """
        self._host, self._url, self._container = host, url, container

    def not_restarted_by(self) -> str | None:
        """Why the engine cannot be restarted here, in one line; None when it can."""
        asked = self._host.run(["systemctl", "is-active", "--quiet", SERVICE])
        if asked.ok:
            return None
        return f"systemd does not run the Docker engine here ('{asked.command}' ended with exit code {asked.exit_code})"

    def restart_container(self) -> None:
        """Restart the container; returns when the engine says that it runs.

        Raises:
            EventFailed: when it does not start again.
        """
        # Imported here because it costs 145 ms, which a run without an engine need not pay.
        import docker

        client = docker.DockerClient(base_url=self._url) if self._url else docker.from_env()
        try:
            client.containers.get(self._container).restart(timeout=STOP_SECONDS)
        except (OSError, docker.errors.DockerException) as error:
            raise EventFailed(f"docker restart {self._container}: {one_line(error)}") from error
        finally:
            client.close()

    def restart_engine(self) -> None:
        """Restart the engine; returns when systemd says that it is ready, which it is when it answers.

        Raises:
            EventFailed: when it does not start again.
        """
        done = self._host.run(["systemctl", "restart", SERVICE], SERVICE_TIMEOUT)
        if not done.ok:
            raise EventFailed(f"{done.command}: exit {done.exit_code}: {done.stderr.strip()}")
