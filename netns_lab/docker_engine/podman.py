"""Podman in a lab's host namespace: its service on a socket, and the containers and networks that its commands make.

Podman has no daemon: ``podman run`` starts a container, netavark makes its network, and the service on the socket only
answers questions. Programs and libraries are those of a release's base root; its files are on a tmpfs.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from netns_lab.docker_engine.containers import EngineContainers, RestartPolicy
from netns_lab.docker_engine.daemon import ANSWER_TIMEOUT, LOG_LINES, RETRY_EVERY, START_TIMEOUT, EngineFailed, listens
from netns_lab.docker_engine.image import BUSYBOX, IMAGE, image_tar
from netns_lab.docker_engine.networks import EngineNetworks
from netns_lab.docker_engine.sandbox import ENVIRONMENT, STOP_TIMEOUT, EngineSandbox, SandboxFailed
from netns_lab.docker_engine.sandboxed_engine import SandboxedEngine
from viacheck.host.docker import PODMAN_SOCKET
from viacheck.host.namespace import Namespace
from viacheck.host.pid_sandbox import child_of

if TYPE_CHECKING:
    from docker import DockerClient

RELEASE = "trixie"
"""The release whose podman a lab runs."""
NAME = "podman"
"""The name of this engine in a lab's name: ``engine:nat@podman``."""
DHCP_PROXY = ("/usr/lib/podman/netavark", "dhcp-proxy", "--activity-timeout", "0")
"""netavark-dhcp-proxy.service, which holds the leases of containers on networks with DHCP."""
DHCP_PROXY_SOCKET = "/run/podman/nv-proxy.sock"
USER, USER_HOME, USER_RUNTIME = "1000", "/run/operator", "/run/user/1000"
"""The ordinary user that runs a rootless podman."""
AS_USER = (
    "setpriv", "--reuid", USER, "--regid", USER, "--init-groups",
    "env", f"HOME={USER_HOME}", f"XDG_RUNTIME_DIR={USER_RUNTIME}",
)  # fmt: skip
USER_NETWORK = "pasta"
"""The network of a rootless podman's containers for which none is named."""
# The machine's own hierarchy may be of version 1, which podman 5 refuses. Containers stay in the cgroup of the lab, so
# that none is left behind, and no overlay lies on the overlay of the base root.
_PREPARE = """
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/podman /etc/containers
cat >/etc/containers/storage.conf <<'END'
[storage]
driver = "overlay"
graphroot = "/run/containers-data"
runroot = "/run/containers"
rootless_storage_path = "$HOME/storage"
END
cat >/etc/containers/containers.conf
"""
# Its own device node: that of the machine may be for root alone, where no udev runs.
_PREPARE_USER = """
mount -t tmpfs tmpfs /dev/net
mknod -m 666 /dev/net/tun c 10 200
useradd --uid "$1" lab
mkdir -p "$2" "$3/podman"
chown "$1:$1" "$2" "$3" "$3/podman"
chmod 1777 /tmp
"""
_SETTINGS = """\
[containers]
cgroups = "disabled"
log_driver = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
default_subnet = {subnet}
"""


class PodmanContainers(EngineContainers):
    """Containers that are started by ``podman run``."""

    def __init__(
        self, client: Callable[[], DockerClient], proc: Callable[[], str], podman: Callable[..., str], busybox: str
    ) -> None:
        """``podman`` runs a command of podman, and returns its output."""
        super().__init__(client, proc, busybox)
        self._podman, self._image_made = podman, False

    def run(
        self,
        name: str,
        *,
        network: str = NAME,
        image: str = IMAGE,
        address: str | None = None,
        restart: RestartPolicy | None = None,
        dns: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        capabilities: Sequence[str] = (),
    ) -> int:
        """Run a container that sleeps until it is stopped; see :meth:`EngineContainers.run`.

        Raises:
            EngineFailed: podman refuses.
        """
        if image == IMAGE and not self._image_made:
            self._podman("import", "-", IMAGE, stdin=image_tar(self._busybox))
            self._image_made = True
        options = ["--init", "--name", name, "--hostname", name, "--network", network]
        options += ["--ip", address] if address else []
        options += ["--restart", restart] if restart else []
        options += [word for server in dns for word in ("--dns", server)]
        options += [word for key, value in (environment or {}).items() for word in ("--env", f"{key}={value}")]
        options += [word for capability in capabilities for word in ("--cap-add", capability)]
        self._podman("run", "--detach", *options, image, "sleep", "infinity")
        return self.pid(name)


class PodmanNetworks(EngineNetworks):
    """Networks that are made by ``podman network create``."""

    def __init__(self, client: Callable[[], DockerClient], podman: Callable[..., str]) -> None:
        """``podman`` runs a command of podman, and returns its output."""
        super().__init__(client)
        self._podman = podman

    def create_bridge(self, name: str, subnet: str, gateway: str | None = None, bridge: str | None = None) -> None:
        """Create a bridge network; see :meth:`EngineNetworks.create_bridge`.

        Raises:
            EngineFailed: podman refuses.
        """
        options = ["--interface-name", bridge] if bridge else []
        self._create_pool(name, "bridge", subnet, gateway, None, options)

    def create_macvlan(
        self, name: str, parent: str, subnet: str, gateway: str | None = None, ip_range: str | None = None
    ) -> None:
        """Create a macvlan network on an uplink, as ``podman network create -d macvlan`` does.

        Raises:
            EngineFailed: podman refuses.
        """
        self._create_pool(name, "macvlan", subnet, gateway, ip_range, ["--opt", f"parent={parent}"])

    def create_macvlan_dhcp(self, name: str, parent: str) -> None:
        """Create a macvlan network whose addresses the LAN's DHCP server assigns.

        Raises:
            EngineFailed: podman refuses.
        """
        self._podman("network", "create", "-d", "macvlan", "--ipam-driver", "dhcp", "-o", f"parent={parent}", name)

    def connect(self, name: str, container: str, *, gateway_priority: int) -> None:
        """Connect a container to a network; podman knows no priority, and the last network has the default route.

        Raises:
            EngineFailed: podman refuses.
        """
        del gateway_priority
        self._podman("network", "connect", name, container)

    def _create_pool(
        self, name: str, driver: str, subnet: str, gateway: str | None, ip_range: str | None, options: Sequence[str]
    ) -> None:
        pool = ["--subnet", subnet, *(["--gateway", gateway] if gateway else [])]
        pool += ["--ip-range", ip_range] if ip_range else []
        self._podman("network", "create", "--driver", driver, *pool, *options, name)


class PodmanEngine(SandboxedEngine):
    """Podman with its service. Made by :meth:`start`, ended by :meth:`close` or by the end of this process.

    Attributes:
        containers: its containers.
        networks: its networks.
    """

    containers: EngineContainers
    networks: PodmanNetworks

    def __init__(self, sandbox: EngineSandbox, busybox: str, *, rootless: bool) -> None:
        """Use :meth:`start`."""
        super().__init__(sandbox, f"{USER_RUNTIME}/podman/podman.sock" if rootless else PODMAN_SOCKET)
        self._as_user = AS_USER if rootless else ()
        self._service: subprocess.Popen[bytes] | None = None
        self._proxy: subprocess.Popen[bytes] | None = None
        self.containers = PodmanContainers(lambda: self.client, lambda: self.proc, self.podman, busybox)
        self.networks = PodmanNetworks(lambda: self.client, self.podman)

    @classmethod
    def start(cls, host: Namespace, *, subnet: str, base: Path, rootless: bool = False) -> Self:
        """Start podman's service on a host's namespace, and wait until it listens.

        Args:
            host: where podman0 and the packet filter's rules are made.
            subnet: of podman's own network.
            base: the root of the release that has podman.
            rootless: an ordinary user runs it.

        Raises:
            EngineFailed: it does not listen in time, with its output.
        """
        try:
            sandbox = EngineSandbox(host, START_TIMEOUT, base)
        except SandboxFailed as error:
            raise EngineFailed(str(error)) from error
        engine = cls(sandbox, f"{base}{BUSYBOX}", rootless=rootless)
        try:
            settings = _SETTINGS.format(subnet=json.dumps(subnet))
            engine.run("sh", "-ec", _PREPARE, stdin=settings.encode())
            if rootless:
                engine.run("sh", "-ec", _PREPARE_USER, "sh", USER, USER_HOME, USER_RUNTIME)
            engine.start_service()
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def client(self) -> DockerClient:
        """The Docker SDK's client of podman's service.

        Raises:
            EngineFailed: while the service is stopped.
        """
        if self._service is None:
            raise EngineFailed("podman's service is not running")
        if self._client is None:
            import docker

            self._client = docker.DockerClient(self.base_url, timeout=ANSWER_TIMEOUT)
        return self._client

    def podman(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run a command of podman as the user who runs the service, and return its output.

        Raises:
            EngineFailed: it fails; the message has the last line of its errors.
        """
        return self.run(*self._as_user, "podman", *arguments, stdin=stdin)

    def run(self, *argv: str, stdin: bytes = b"") -> str:
        """Run a program in podman's file system and namespaces, and return its output.

        Raises:
            EngineFailed: it fails; the message has the last line of its errors.
        """
        # conmon outlives podman, and holds the streams that it was started with.
        with open(f"{self.root}/run/errors", "wb+") as errors, open(f"{self.root}/run/output", "wb+") as output:
            done = subprocess.run(
                self._sandbox.command(*argv), input=stdin, stdout=output, stderr=errors, env=ENVIRONMENT, check=False
            )
            errors.seek(0)
            output.seek(0)
            if done.returncode:
                lines = errors.read().decode(errors="replace").strip().splitlines()
                reason = lines[-1] if lines else "no output"
                command = argv[argv.index("podman") :] if "podman" in argv else argv
                raise EngineFailed(f"{shlex.join(command[:3])} ended with exit code {done.returncode}: {reason}")
            return output.read().decode(errors="replace")

    def start_service(self) -> None:
        """Start the service that answers on the socket, and wait until it listens.

        Raises:
            EngineFailed: it does not listen in time, with the end of its output.
        """
        command = ("podman", "system", "service", "--time", "0", f"unix://{self._socket}")
        with open(f"{self.root}/run/service.log", "ab") as log:
            self._service = self._start(*self._as_user, *command, log=log)
        self._wait_for(self._service, self._socket, "service.log")

    def start_dhcp_proxy(self) -> None:
        """Start the proxy that asks the DHCP server of a LAN in a container's place, and wait until it listens.

        Raises:
            EngineFailed: it does not listen in time, with the end of its output.
        """
        with open(f"{self.root}/run/proxy.log", "ab") as log:
            self._proxy = self._start(*DHCP_PROXY, log=log)
        self._wait_for(self._proxy, DHCP_PROXY_SOCKET, "proxy.log")

    def _start(self, *argv: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._sandbox.command(*argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRONMENT,
            process_group=0,
        )  # fmt: skip

    def _wait_for(self, process: subprocess.Popen[bytes], path: str, log: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not listens(f"{self.root}{path}"):
            if process.poll() is not None or time.monotonic() > deadline:
                lines = Path(f"{self.root}/run/{log}").read_text(errors="replace").splitlines()[-LOG_LINES:]
                raise EngineFailed("\n".join([f"nothing listens on {path}; the last lines of {log}:", *lines]))
            time.sleep(RETRY_EVERY)

    def stop_daemon(self) -> None:
        """Stop the service; the containers run on.

        Raises:
            EngineFailed: it does not end in time.
        """
        self._close_client()
        if self._service is None:
            return
        if self._service.poll() is None:
            os.kill(child_of(self._service.pid), signal.SIGTERM)
        try:
            self._service.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise EngineFailed(f"podman's service does not end within {STOP_TIMEOUT:g} s") from None
        self._service = None

    def restart(self) -> None:
        """Restart the service; the containers run on.

        Raises:
            EngineFailed: it does not end, or does not listen again.
        """
        self.stop_daemon()
        self.start_service()

    def close(self) -> None:
        """End podman, its containers and its mounts at once."""
        self._close_client()
        self._sandbox.close()
        for process in (self._service, self._proxy):
            if process is not None:
                process.wait(STOP_TIMEOUT)
        self._service = self._proxy = None
