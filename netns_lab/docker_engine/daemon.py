"""A real Docker engine inside a lab's host namespace, with a real container as the agent.

Everything that the engine is made of lives in a process and mount namespace of its own, whose first process ends when
this process does, in whatever way, and takes the rest with it. Its files stand on a tmpfs in there; only cgroup folders
reach outside, and they are swept.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, cast

from netns_lab.docker_engine.image import BUSYBOX, image_tar
from viacheck.host.command import CommandResult
from viacheck.host.docker import container_namespace
from viacheck.host.namespace import Namespace
from viacheck.host.pid_sandbox import child_of, end, read_line

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

IMAGE = "viacheck-agent:lab"
START_TIMEOUT = 20.0
"""Seconds; a start takes 0.3 s on an idle machine."""
STOP_TIMEOUT = 20.0
"""Seconds; dockerd gives its containers 15."""
ANSWER_TIMEOUT = 30
RETRY_EVERY = 0.002
LOG_LINES = 15

CGROUPS = "/sys/fs/cgroup"
CGROUP_PREFIX = "viacheck-engine-"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PACKAGES = {"dockerd": "docker.io", "docker-init": "docker.io", "iptables": "iptables"}

# The first process of the engine's process namespace: dash waits for its input to end, and reaps what is orphaned.
# /etc/docker is hidden because dockerd 20.10 writes a key there; the resolver's file is kept where it lies below /run.
# A lab's host has a /sys of its own on top of the one that has the cgroups.
FIRST_PROCESS = """
set -e
resolvers=$(cat /etc/resolv.conf 2>/dev/null) || true
resolvers_file=$(readlink -f /etc/resolv.conf) || true
mount -t tmpfs tmpfs /run
while [ -z "$(ls -A /sys/fs/cgroup)" ]; do umount /sys; done
if [ -n "$resolvers" ] && [ ! -e /etc/resolv.conf ]; then
    mkdir -p "${resolvers_file%/*}"
    printf '%s\\n' "$resolvers" >"$resolvers_file"
fi
if [ -d /etc/docker ]; then mount -t tmpfs tmpfs /etc/docker; fi
echo ready
cat >/dev/null
"""
READY = b"ready"

ENVIRONMENT = {"PATH": SEARCH_PATH}
"""All that dockerd sees of ours: no proxies, no DOCKER_ variables."""

_engine_numbers = itertools.count(1)

Restart = Literal["always", "unless-stopped", "on-failure"]


class EngineFailed(Exception):
    """dockerd did not start or ended; the message has its last log lines."""


class EngineLeftovers(Exception):
    """Something of an engine is still there after it was closed; the message names it."""


def missing_packages() -> list[str]:
    """Debian packages that an engine lab needs and that are not installed."""
    missing = {package for program, package in PACKAGES.items() if shutil.which(program, path=SEARCH_PATH) is None}
    if not _is_static(BUSYBOX):
        missing.add("busybox-static")
    return sorted(missing)


def _is_static(program: str) -> bool:
    try:
        with open(program, "rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    # A dynamic ELF file names its loader (/lib64/ld-linux…) behind the program headers; see elf(5), PT_INTERP.
    return start.startswith(b"\x7fELF") and b"/ld-" not in start


def unavailable() -> str | None:
    """Why no engine can run here, in one line with what would help; None when one can."""
    if os.geteuid() != 0:
        return "an engine lab needs root: dockerd mounts file systems and makes cgroups"
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        return "an engine lab needs the machine's root; this is root of a user namespace only"
    missing = missing_packages()
    if missing:
        return f"an engine lab needs packages that are not installed: apt-get install {' '.join(missing)}"
    disruption_result = _cgroup_folders(f"{CGROUP_PREFIX}{_owner()}-trial", _hierarchies())
    try:
        for folder in disruption_result:
            os.mkdir(folder)
            os.rmdir(folder)
    except OSError as error:
        return f"an engine lab needs cgroups that can be written: {error.filename}: {error.strerror}"
    return None if disruption_result else f"an engine lab needs cgroups: nothing is mounted on {CGROUPS}"


class Engine:
    """A running dockerd. Made by :meth:`start`, ended by :meth:`close` or by the end of this process.

    Attributes:
        host: the namespace whose interfaces, routes and packet filter the engine works on.
        pid: the engine's first process, as this process sees it; 0 once it is closed.
        base_url: where the engine's API is, for any client on this machine.
        proc: the /proc in which the process numbers that the engine tells are true
            (for :func:`viacheck.host.docker.container_namespace`).
    """

    def __init__(self, host: Namespace, settings: Mapping[str, object]) -> None:
        """Use :meth:`start`. ``settings`` are keys of daemon.json (dockerd(8))."""
        self.host = host
        self._cgroup = f"{CGROUP_PREFIX}{_owner()}-{next(_engine_numbers)}"
        self._settings = {
            "hosts": ["unix:///run/docker.sock"],
            "data-root": "/run/docker-data",
            "exec-root": "/run/docker",
            "pidfile": "/run/docker.pid",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": f"/{self._cgroup}",
            "storage-driver": "overlay2",
            **settings,
        }
        self._first: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._client: DockerClient | None = None
        self.pid = 0

    @classmethod
    def start(
        cls,
        host: Namespace,
        *,
        subnet: str = "172.17.0.0/16",
        gateway: str | None = None,
        settings: Mapping[str, object] | None = None,
        timeout: float = START_TIMEOUT,
    ) -> Self:
        """Start an engine that works on ``host``, and wait until it answers.

        The namespace may be empty: uplinks can come and go later, dockerd does not look at them.

        Args:
            host: where docker0 and the packet filter's rules are made.
            subnet: of docker0.
            gateway: docker0's own address; None for the first of the subnet.
            settings: more keys of daemon.json, such as ``{"iptables": False}``.
            timeout: seconds until the engine must answer.

        Raises:
            EngineFailed: when it does not, with its last log lines.
        """
        network = ip_network(subnet)
        bip = f"{gateway or network[1]}/{network.prefixlen}"
        sweep_cgroups()
        engine = cls(host, {"bip": bip, **(settings or {})})
        try:
            engine._make_namespaces(timeout)
            engine.start_daemon(timeout=timeout)
        except BaseException:
            engine.close()
            raise
        return engine

    def _make_namespaces(self, timeout: float) -> None:
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", FIRST_PROCESS]
        self._first = self.host.call(
            lambda: subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT
            )
        )
        said = read_line(self._first, timeout)
        if said.strip() != READY:
            raise EngineFailed(f"no namespaces for the engine: {said.decode(errors='replace').strip() or 'no answer'}")
        self.pid = child_of(self._first.pid)

    @property
    def root(self) -> str:
        """The engine's file system, as this process sees it."""
        return f"/proc/{self.pid}/root"

    @property
    def proc(self) -> str:
        """The /proc in which the process numbers that the engine tells are true."""
        return f"{self.root}/proc"

    @property
    def base_url(self) -> str:
        """Where the engine's API is."""
        return f"unix://{self.root}/run/docker.sock"

    @property
    def client(self) -> DockerClient:
        """The Docker SDK's client of this engine.

        Raises:
            EngineFailed: while the daemon is stopped.
        """
        if self._client is None:
            raise EngineFailed("dockerd is not running")
        return self._client

    def start_daemon(self, settings: Mapping[str, object] | None = None, timeout: float = START_TIMEOUT) -> None:
        """Start dockerd after :meth:`stop_daemon`, and wait until it answers.

        Args:
            settings: keys of daemon.json that are other than before; None as a value takes a key away.
            timeout: seconds until it must answer.

        Raises:
            EngineFailed: when it does not, with its last log lines.
        """
        self._settings.update(settings or {})
        kept = {key: value for key, value in self._settings.items() if value is not None}
        Path(f"{self.root}/run/daemon.json").write_text(json.dumps(kept))
        with open(f"{self.root}/run/dockerd.log", "ab") as log:
            self._daemon = subprocess.Popen(
                self._inside("dockerd", "--config-file", "/run/daemon.json"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=ENVIRONMENT,
            )
        self._client = self._connect(self._daemon, time.monotonic() + timeout)

    def _inside(self, *argv: str) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", *argv]

    def _connect(self, daemon: subprocess.Popen[bytes], deadline: float) -> DockerClient:
        # Costs 145 ms, which dockerd needs anyway; and runs without an engine need not pay for it.
        import docker

        # dockerd listens long before it answers, so this is short, and the wait is in the first request.
        path = f"{self.root}/run/docker.sock"
        while not _listens(path):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise EngineFailed(self._failure(daemon))
            time.sleep(RETRY_EVERY)
        try:
            client = docker.DockerClient(self.base_url, timeout=max(1, round(deadline - time.monotonic())))
        except docker.errors.DockerException as error:
            # A connection that broke off: dockerd is about to end, and its log says why.
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(1.0)
            raise EngineFailed(self._failure(daemon)) from error
        client.api.timeout = ANSWER_TIMEOUT
        return client

    def _failure(self, daemon: subprocess.Popen[bytes]) -> str:
        what = "does not answer" if daemon.returncode is None else f"ended with exit code {daemon.returncode}"
        return "\n".join([f"dockerd {what}; its last words:", *self.log()])

    def log(self, lines: int = LOG_LINES) -> list[str]:
        """The last lines of dockerd's log."""
        try:
            with open(f"{self.root}/run/dockerd.log", errors="replace") as log:
                return [line.rstrip("\n") for line in deque(log, maxlen=lines)]
        except OSError:
            return []

    def stop_daemon(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop dockerd the way its service does (SIGTERM); it stops its containers first.

        Raises:
            EngineFailed: when it does not end in time.
        """
        if self._daemon is None:
            return
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._daemon.poll() is None:
            os.kill(child_of(self._daemon.pid), signal.SIGTERM)
        try:
            self._daemon.wait(timeout)
        except subprocess.TimeoutExpired:
            raise EngineFailed("\n".join([f"dockerd does not end within {timeout:g} s:", *self.log()])) from None
        self._daemon = None

    def restart(self, settings: Mapping[str, object] | None = None) -> None:
        """Restart dockerd in the same namespaces; containers come back only if their restart policy says so.

        Raises:
            EngineFailed: when it does not end or does not answer again.
        """
        self.stop_daemon()
        self.start_daemon(settings)

    def create_bridge_network(
        self, name: str, subnet: str, gateway: str | None = None, bridge: str | None = None
    ) -> None:
        """Create a user-defined bridge network.

        Args:
            name: of the Docker network.
            subnet: in CIDR form.
            gateway: the bridge's own address; None for Docker's choice.
            bridge: name of the interface; None for Docker's ``br-<id>``.

        Raises:
            docker.errors.APIError: when the engine refuses.
        """
        options = {"com.docker.network.bridge.name": bridge} if bridge else {}
        self._create_network(name, "bridge", options, subnet, gateway, None)

    def create_macvlan_network(
        self, name: str, parent: str, subnet: str, gateway: str | None = None, ip_range: str | None = None
    ) -> None:
        """Create a macvlan network on an uplink, as ``docker network create -d macvlan`` does.

        Raises:
            docker.errors.APIError: when the engine refuses.
        """
        self._create_network(name, "macvlan", {"parent": parent}, subnet, gateway, ip_range)

    def _create_network(
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
        self.client.networks.create(name, driver=driver, options=options, ipam=IPAMConfig(pool_configs=[pool]))

    def run_agent(
        self,
        name: str,
        *,
        network: str = "bridge",
        image: str = IMAGE,
        address: str | None = None,
        restart: Restart | None = None,
        dns: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        capabilities: Sequence[str] = (),
    ) -> int:
        """Run a container as the agent: it sleeps until it is stopped.

        Args:
            name: of the container; Docker wants two characters at least.
            network: ``bridge``, ``none``, or the name of a network made before.
            image: the stand-in, which is imported when it is first needed.
            address: the agent's address, on a network made before; None for Docker's choice.
            restart: the container's restart policy; None to leave it stopped.
            dns: resolvers; empty for the host's.
            environment: the container's variables.
            capabilities: added to Docker's defaults, such as ``NET_ADMIN``.

        Returns:
            The container's first process, as this process sees it.

        Raises:
            docker.errors.APIError: when the engine refuses.
        """
        if image == IMAGE:
            self._import_image()
        # Without an endpoint the SDK passes the network as it is; with one it must name it.
        endpoint = {network: self.client.api.create_endpoint_config(ipv4_address=address)} if address else None
        container = self.client.containers.create(
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
            # Its init ends at SIGTERM, where sleep as first process would keep docker stop waiting for ten seconds.
            init=True,
        )
        container.start()
        return self.agent_pid(name)

    def _import_image(self) -> None:
        if not self.client.api.images(IMAGE, quiet=True):
            repository, _, tag = IMAGE.partition(":")
            self.client.api.import_image_from_data(image_tar(), repository=repository, tag=tag)

    def _container(self, name: str) -> Container:
        return self.client.containers.get(name)

    def stop_agent(self, name: str) -> None:
        """Stop the container (docker stop)."""
        self._container(name).stop()

    def start_agent(self, name: str) -> int:
        """Start the container again (docker start), and return its new process."""
        self._container(name).start()
        return self.agent_pid(name)

    def restart_agent(self, name: str) -> int:
        """Restart the container (docker restart), and return its new process."""
        self._container(name).restart()
        return self.agent_pid(name)

    def remove_agent(self, name: str) -> None:
        """Stop and remove the container (docker rm --force)."""
        self._container(name).remove(force=True)

    def run_in_agent(self, name: str, argv: Sequence[str]) -> CommandResult:
        """Run one of the image's programs inside the container (docker exec)."""
        answer = self._container(name).exec_run(list(argv), demux=True)
        stdout, stderr = cast("tuple[bytes | None, bytes | None]", answer.output)
        return CommandResult(
            tuple(argv),
            answer.exit_code or 0,
            (stdout or b"").decode(errors="replace"),
            (stderr or b"").decode(errors="replace"),
        )

    def agent_namespace(self, name: str) -> Namespace:
        """The container's network namespace, as it is now; each restart of the container gives it another one.

        Raises:
            viacheck.host.docker.ContainerNotRunning: when it is stopped.
        """
        return container_namespace(self._inner_pid(name), name, self.proc)

    def agent_pid(self, name: str) -> int:
        """The container's first process, as this process sees it; 0 when the container is stopped."""
        inner = self._inner_pid(name)
        return outer_pid(inner, self.proc) if inner else 0

    def _inner_pid(self, name: str) -> int:
        pid = self._container(name).attrs["State"]["Pid"]
        assert isinstance(pid, int)
        return pid

    def close(self) -> None:
        """End the engine, its containers and its mounts at once, and sweep what would stay.

        Raises:
            EngineLeftovers: when something does not go.
        """
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._first is not None:
            end(self._first, STOP_TIMEOUT)
            self._first = None
            # The number may soon be another process's.
            self.pid = 0
        if self._daemon is not None:
            self._daemon.wait(STOP_TIMEOUT)
            self._daemon = None
        left = _remove_cgroup(self._cgroup, time.monotonic() + 2.0)
        if left:
            raise EngineLeftovers(f"cgroup folders that do not go: {', '.join(left)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def outer_pid(inner: int, proc: str) -> int:
    """Translate a process number of another process namespace into this one's (pid_namespaces(7)).

    Args:
        inner: the number in there.
        proc: that namespace's /proc.

    Raises:
        ProcessLookupError: when the process has ended.
    """
    try:
        netns, started = os.stat(f"{proc}/{inner}/ns/net"), _start_time(inner, proc)
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                lines = status.read_text().splitlines()
                numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
                # How many levels deep the namespace lies is not known, and several engines may use the same number: the
                # network namespace tells these apart, and the start time what else has the number at another level.
                outer = int(status.parent.name)
                same_place = str(inner) in numbers[1:] and os.path.samestat(os.stat(status.parent / "ns/net"), netns)
                if same_place and _start_time(outer) == started:
                    return outer
    except FileNotFoundError:
        pass
    raise ProcessLookupError(f"process {inner} of {proc} has ended")


def _owner() -> str:
    """Our own process, told apart from a later one with the same number by its start time (proc(5), field 22)."""
    return f"{os.getpid()}-{_start_time(os.getpid())}"


def _start_time(pid: int, proc: str = "/proc") -> str | None:
    try:
        # The second field is the command in parentheses, which may hold anything.
        return Path(f"{proc}/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _hierarchies() -> list[str]:
    """Where cgroup hierarchies are mounted: one of version 2, or one for each controller of version 1."""
    with open("/proc/self/mounts") as mounts:
        entries = [line.split() for line in mounts]
    return [
        place
        for _, place, kind, *_ in entries
        if kind in ("cgroup", "cgroup2") and (place == CGROUPS or place.startswith(f"{CGROUPS}/"))
    ]


def _cgroup_folders(name: str, hierarchies: Iterable[str]) -> list[str]:
    return [f"{place}/{name}" for place in hierarchies]


def _remove_cgroup(name: str, deadline: float) -> list[str]:
    """Remove a cgroup with everything below it from all hierarchies; returns what does not go until the deadline."""
    left = [folder for folder in _cgroup_folders(name, _hierarchies()) if not _remove_tree(folder)]
    while left and time.monotonic() < deadline:
        time.sleep(RETRY_EVERY)
        left = [folder for folder in left if not _remove_tree(folder)]
    return left


def _remove_tree(folder: str) -> bool:
    # A cgroup's files go with its folder; a folder with processes in it refuses (EBUSY).
    for below, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(below)
    return not os.path.isdir(folder)


def sweep_cgroups() -> None:
    """Remove the empty cgroup folders of engines whose owner was killed; those of living owners stay."""
    names = {name for place in _hierarchies() for name in os.listdir(place) if name.startswith(CGROUP_PREFIX)}
    for name in names:
        pid, _, started = name.removeprefix(CGROUP_PREFIX).rpartition("-")[0].partition("-")
        if not pid.isdecimal() or _start_time(int(pid)) != started:
            _remove_cgroup(name, deadline=0.0)
