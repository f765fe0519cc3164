"""A running dockerd in a lab's host namespace: how it starts, stops and restarts, and where it answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Self

from netns_lab import cgroups
from netns_lab.docker_engine.containers import EngineContainers
from netns_lab.docker_engine.image import BUSYBOX
from netns_lab.docker_engine.networks import EngineNetworks
from netns_lab.docker_engine.sandbox import ENVIRONMENT, STOP_TIMEOUT, EngineSandbox, SandboxFailed
from netns_lab.docker_engine.sandboxed_engine import SandboxedEngine
from viacheck.host.namespace import Namespace
from viacheck.host.pid_sandbox import child_of

if TYPE_CHECKING:
    from docker import DockerClient

START_TIMEOUT = 60.0
"""Seconds; a start takes 0.3 s on an idle machine."""
ANSWER_TIMEOUT = 30
RETRY_EVERY = 0.002
LOG_LINES = 15


class EngineFailed(Exception):
    """dockerd did not start or ended; the message has its last log lines."""


class EngineLeftovers(Exception):
    """Part of an engine is still there after it was closed; the message names it."""


class DockerDaemon(SandboxedEngine):
    """A running dockerd. Made by :meth:`start`, ended by :meth:`close` or by the end of this process.

    Attributes:
        host: the namespace whose interfaces, routes and packet filter the engine works on.
        containers: the engine's containers.
        networks: the engine's networks.
    """

    def __init__(
        self, host: Namespace, sandbox: EngineSandbox, cgroup: cgroups.LabCgroup, settings: Mapping[str, object],
        busybox: str,
    ) -> None:  # fmt: skip
        """Use :meth:`start`. ``settings`` are keys of daemon.json (dockerd(8)), ``busybox`` makes the image."""
        super().__init__(sandbox, "/run/docker.sock")
        self.host, self._cgroup = host, cgroup
        self._settings = {
            "hosts": [f"unix://{self._socket}"],
            "data-root": "/run/docker-data",
            "exec-root": "/run/docker",
            "pidfile": "/run/docker.pid",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": f"/{cgroup.name}",
            "storage-driver": "overlay2",
            **settings,
        }
        self._daemon: subprocess.Popen[bytes] | None = None
        self.containers = EngineContainers(lambda: self.client, lambda: sandbox.proc, busybox)
        self.networks = EngineNetworks(lambda: self.client)

    @classmethod
    def start(
        cls,
        host: Namespace,
        *,
        subnet: str = "172.17.0.0/16",
        gateway: str | None = None,
        settings: Mapping[str, object] | None = None,
        timeout: float = START_TIMEOUT,
        base: Path | None = None,
    ) -> Self:
        """Start an engine that works on ``host``, and wait until it answers.

        The namespace may be empty: uplinks can come and go later, dockerd does not look at them.

        Args:
            host: where docker0 and the packet filter's rules are made.
            subnet: of docker0.
            gateway: docker0's own address; None for the first of the subnet.
            settings: more keys of daemon.json, such as ``{"iptables": False}``.
            timeout: seconds until the engine must answer.
            base: the root of another release that has the engine's programs; None for this machine's.

        Raises:
            EngineFailed: when it does not, with its last log lines.
        """
        network = ip_network(subnet)
        bip = f"{gateway or network[1]}/{network.prefixlen}"
        try:
            sandbox = EngineSandbox(host, timeout, base)
        except SandboxFailed as error:
            raise EngineFailed(str(error)) from error
        busybox = f"{base or ''}{BUSYBOX}"
        engine = cls(host, sandbox, cgroups.LabCgroup(sandbox.pid), {"bip": bip, **(settings or {})}, busybox)
        try:
            engine.start_daemon(timeout=timeout)
        except BaseException:
            engine.close()
            raise
        return engine

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
            settings: keys of daemon.json that differ from before; None as a value removes a key.
            timeout: seconds until dockerd must answer.

        Raises:
            EngineFailed: when it does not, with its last log lines.
        """
        self._settings.update(settings or {})
        kept = {key: value for key, value in self._settings.items() if value is not None}
        Path(f"{self.root}/run/daemon.json").write_text(json.dumps(kept))
        with open(f"{self.root}/run/dockerd.log", "ab") as log:
            self._daemon = subprocess.Popen(
                self._sandbox.command("dockerd", "--config-file", "/run/daemon.json"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=ENVIRONMENT,
                process_group=0,
            )
        self._client = self._connect(self._daemon, time.monotonic() + timeout)

    def _connect(self, daemon: subprocess.Popen[bytes], deadline: float) -> DockerClient:
        # The import costs 145 ms: dockerd needs them anyway to start, and runs without an engine do not pay for it.
        import docker

        # dockerd listens long before it answers, so this wait is short; the long wait is in the first request.
        path = f"{self.root}{self._socket}"
        while not listens(path):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise EngineFailed(self._failure(daemon))
            time.sleep(RETRY_EVERY)
        try:
            client = docker.DockerClient(self.base_url, timeout=max(1, round(deadline - time.monotonic())))
        except docker.errors.DockerException as error:
            # The connection broke off because dockerd is about to end; its log says why.
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(1.0)
            raise EngineFailed(self._failure(daemon)) from error
        client.api.timeout = ANSWER_TIMEOUT
        return client

    def _failure(self, daemon: subprocess.Popen[bytes]) -> str:
        failure = "does not answer" if daemon.returncode is None else f"ended with exit code {daemon.returncode}"
        return "\n".join([f"dockerd {failure}; the last lines of its log:", *self.log()])

    def log(self, lines: int = LOG_LINES) -> list[str]:
        """Return the last lines of dockerd's log."""
        try:
            with open(f"{self.root}/run/dockerd.log", errors="replace") as log:
                return [line.rstrip("\n") for line in deque(log, maxlen=lines)]
        except OSError:
            return []

    def stop_daemon(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop dockerd by SIGTERM, as its service does; dockerd stops its containers first.

        Raises:
            EngineFailed: when it does not end in time.
        """
        if self._daemon is None:
            return
        self._close_client()
        if self._daemon.poll() is None:
            os.kill(child_of(self._daemon.pid), signal.SIGTERM)
        try:
            self._daemon.wait(timeout)
        except subprocess.TimeoutExpired:
            raise EngineFailed("\n".join([f"dockerd does not end within {timeout:g} s:", *self.log()])) from None
        self._daemon = None

    def restart(self, settings: Mapping[str, object] | None = None) -> None:
        """Restart dockerd in the same namespaces; each container comes back only if its restart policy says so.

        Raises:
            EngineFailed: when dockerd does not end or does not answer again.
        """
        self.stop_daemon()
        self.start_daemon(settings)

    def close(self) -> None:
        """End the engine, its containers and its mounts at once, and remove its cgroups.

        Raises:
            EngineLeftovers: when a cgroup cannot be removed.
        """
        self._close_client()
        self._sandbox.close()
        if self._daemon is not None:
            self._daemon.wait(STOP_TIMEOUT)
            self._daemon = None
        left = self._cgroup.remove()
        if left:
            raise EngineLeftovers(f"cgroup folders that cannot be removed: {', '.join(left)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def listens(path: str) -> bool:
    """Return whether a program listens on a socket of the file system."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0
