"""The containers of a lab's engine: the agent's, and any other that a test runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

from netns_lab.docker_engine.image import BUSYBOX, IMAGE, import_image
from netns_lab.docker_engine.pid_translation import outer_pid
from viacheck.host.command import CommandResult
from viacheck.host.docker import container_namespace
from viacheck.host.namespace import Namespace

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

RestartPolicy = Literal["always", "unless-stopped", "on-failure", "no"]


class EngineContainers:
    """Runs, stops and enters containers by name. Every method raises ``docker.errors.APIError`` when Docker refuses."""

    def __init__(self, client: Callable[[], DockerClient], proc: Callable[[], str], busybox: str = BUSYBOX) -> None:
        """Ask for the client at each use: a restart of dockerd gives another client.

        Args:
            client: returns the client of the engine.
            proc: returns the /proc in which the engine's process numbers are true.
            busybox: the static program that the image is made of.
        """
        self._client, self._proc, self._busybox = client, proc, busybox

    def run(
        self,
        name: str,
        *,
        network: str = "bridge",
        image: str = IMAGE,
        address: str | None = None,
        restart: RestartPolicy | None = None,
        dns: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        capabilities: Sequence[str] = (),
    ) -> int:
        """Run a container that sleeps until it is stopped.

        Args:
            name: of the container; Docker wants two characters at least.
            network: ``bridge``, ``none``, or the name of a network that exists.
            image: the lab's own image is imported when it is first needed.
            address: the container's address, on a network that exists; None for Docker's choice.
            restart: the container's restart policy; None for Docker's default, which never restarts it.
            dns: resolvers; empty for the host's.
            environment: the container's variables.
            capabilities: added to Docker's defaults, such as ``NET_ADMIN``.

        Returns:
            The container's first process, as this process sees it.
        """
        client = self._client()
        if image == IMAGE:
            import_image(client, self._busybox)
        # Without an endpoint the SDK passes the network as it is; with an endpoint the key must name the network.
        endpoint = {network: client.api.create_endpoint_config(ipv4_address=address)} if address else None
        container = client.containers.create(
            image,
            ["sleep", "infinity"],
            name=name,
            hostname=name,
            network=network,
            networking_config=endpoint,
            restart_policy={"Name": restart} if restart else None,  # type: ignore[arg-type]  # unless-stopped is unknown
            dns=list(dns) or None,
            environment=dict(environment or {}),
            cap_add=list(capabilities) or None,
            # Docker's init ends at SIGTERM; sleep as first process would keep docker stop waiting for ten seconds.
            init=True,
        )
        container.start()
        return self.pid(name)

    def stop(self, name: str) -> None:
        """Stop a container (docker stop)."""
        self._get(name).stop()

    def start(self, name: str) -> int:
        """Start a stopped container (docker start), and return its new process."""
        self._get(name).start()
        return self.pid(name)

    def restart(self, name: str) -> int:
        """Restart a container (docker restart), and return its new process."""
        self._get(name).restart()
        return self.pid(name)

    def pause(self, name: str) -> None:
        """Freeze the processes of a container (docker pause)."""
        self._get(name).pause()

    def remove(self, name: str) -> None:
        """Stop and remove a container (docker rm --force)."""
        self._get(name).remove(force=True)

    def set_restart_policy(self, name: str, policy: RestartPolicy) -> None:
        """Change the restart policy of a container (docker update --restart)."""
        self._get(name).update(restart_policy={"Name": policy})  # type: ignore[arg-type]

    def execute(self, name: str, argv: Sequence[str]) -> CommandResult:
        """Run a program of the image inside a container (docker exec)."""
        answer = self._get(name).exec_run(list(argv), demux=True)
        stdout, stderr = cast("tuple[bytes | None, bytes | None]", answer.output)
        return CommandResult(
            tuple(argv),
            answer.exit_code or 0,
            (stdout or b"").decode(errors="replace"),
            (stderr or b"").decode(errors="replace"),
        )

    def namespace(self, name: str) -> Namespace:
        """Open a container's network namespace; each restart of the container gives it another namespace.

        Raises:
            viacheck.host.docker.ContainerNotRunning: when it is stopped.
        """
        return container_namespace(self._inner_pid(name), name, self._proc())

    def pid(self, name: str) -> int:
        """Return a container's first process, as this process sees it; 0 when it has ended."""
        inner = self._inner_pid(name)
        try:
            return outer_pid(inner, self._proc()) if inner else 0
        except ProcessLookupError:
            # The engine does not know yet.
            return 0

    def _get(self, name: str) -> Container:
        return self._client().containers.get(name)

    def _inner_pid(self, name: str) -> int:
        pid = self._get(name).attrs["State"]["Pid"]
        assert isinstance(pid, int)
        return pid
