"""What the engines of a lab's host have in common: where their files, processes and answers are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netns_lab.docker_engine.pid_translation import outer_pid
from netns_lab.docker_engine.sandbox import EngineSandbox

if TYPE_CHECKING:
    from docker import DockerClient


class SandboxedEngine:
    """An engine whose programs run in a sandbox on a lab's host."""

    def __init__(self, sandbox: EngineSandbox, socket: str) -> None:
        """``socket`` is the path of its API in its own file system."""
        self._sandbox, self._socket = sandbox, socket
        self._client: DockerClient | None = None

    @property
    def pid(self) -> int:
        """The first process in its namespaces, as this process sees it; 0 when it is closed."""
        return self._sandbox.pid

    @property
    def root(self) -> str:
        """Its file system, as this process sees it."""
        return self._sandbox.root

    @property
    def proc(self) -> str:
        """The /proc in which its process numbers are true; see viacheck.host.docker.container_namespace."""
        return self._sandbox.proc

    @property
    def base_url(self) -> str:
        """The address of its API, for any client on this machine."""
        return f"unix://{self.root}{self._socket}"

    @property
    def hosts_url(self) -> str:
        """The same: a command of the host sees this machine's processes."""
        return self.base_url

    def hosts_pid(self, inner: int) -> int:
        """Return the number that one of its processes has on this machine."""
        return outer_pid(inner, self.proc)

    def _close_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
