"""Reads a Docker engine through its HTTP API, and opens a container's network namespace.

Reading changes nothing on the engine. Each kind of failure has a type of its own, because each has another remedy: no
socket, no permission, no listener, no answer in time, another program than a Docker engine, no such container.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException, RemoteDisconnected
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from viacheck.host import outer_host
from viacheck.host.namespace import Namespace, NotANamespace
from viacheck.model.docker_state import DockerContainer, DockerEngine
from viacheck.parsers.docker_api import (
    container_from_answer,
    engine_from_answers,
    is_podman,
    last_exit_code,
    networks_of_containers,
)
from viacheck.parsers.json_answer import NotAnEngineAnswer

if TYPE_CHECKING:
    from docker import APIClient

TIMEOUT = 20.0
"""Seconds that the engine may take for each answer: one of a busy host needs more than five."""
EVENTS_SINCE = 3600
"""Seconds of the engine's events that are read for the last end of a container that runs again."""

Unreachable = Literal[
    "socket-missing",
    "permission-denied",
    "connection-refused",
    "timeout",
    "not-a-docker-engine",
    "bad-address",
    "bad-configuration",
    "other",
]


NOT_FOUND = 404
PODMAN_NETWORKS = "v4.0.0/libpod/networks/json"
"""Podman's own answer about its networks, in the form that it has since podman 4 (netavark)."""
PODMAN_SOCKET = "/run/podman/podman.sock"
"""Where podman.socket listens, unless the package podman-docker gives it Docker's usual place."""

_NO_SOCKET: tuple[Unreachable, str] = ("socket-missing", "the socket does not exist; is the engine installed?")
_FORBIDDEN: tuple[Unreachable, str] = (
    "permission-denied",
    "permission denied: needs root, or membership in the socket's group",
)
_NO_ROUTE: tuple[Unreachable, str] = ("other", "there is no route to that host")
REASONS: dict[int, tuple[Unreachable, str]] = {
    errno.ENOENT: _NO_SOCKET,
    errno.ENOTDIR: _NO_SOCKET,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.ECONNREFUSED: ("connection-refused", "nothing listens there; is the engine running?"),
    errno.EHOSTUNREACH: _NO_ROUTE,
    errno.ENETUNREACH: _NO_ROUTE,
}
"""The reason and its text for each errno of connect(2) and unix(7)."""


class EngineProblem(Exception):
    """The engine, or the container on it, could not be read."""


class EngineUnreachable(EngineProblem):
    """No Docker engine answered.

    Attributes:
        address: the engine's address.
        reason: the kind of failure.
    """

    def __init__(self, address: str, reason: Unreachable, detail: str) -> None:
        """``detail`` is a line for people."""
        super().__init__(f"Docker engine at {address}: {detail}")
        self.address = address
        self.reason = reason


class ContainerMissing(EngineProblem):
    """The engine does not have a container of that name.

    Attributes:
        nearest: names of existing containers, the most similar first.
        engine: the other answers of the engine.
    """

    def __init__(self, name: str, nearest: tuple[str, ...], engine: DockerEngine) -> None:
        """``nearest`` is empty when the engine has no containers."""
        hint = f"; there are: {', '.join(nearest)}" if nearest else "; the engine has no containers"
        super().__init__(f"no container is called {name!r}{hint}")
        self.name = name
        self.nearest = nearest
        self.engine = engine


@dataclasses.dataclass(frozen=True, slots=True)
class RunningContainer:
    """A container in the engine's list."""

    name: str
    image: str


class ContainerNotRunning(EngineProblem):
    """The container has no process whose namespace could be entered."""


def read_engine(base_url: str | None = None, container: str | None = None, timeout: float = TIMEOUT) -> DockerEngine:
    """Read the engine, its networks and a container.

    Args:
        base_url: ``unix:///var/run/docker.sock``, ``tcp://…``; None for DOCKER_HOST, or else the usual socket of
            Docker, or of podman where Docker has none.
        container: name or id of the agent's container; None to read none.
        timeout: seconds that each of the four answers may take.

    Raises:
        EngineUnreachable: when no Docker engine answers, with the reason.
        ContainerMissing: when there is no such container.
    """
    with _client(base_url, timeout) as client:
        return _read(client, container)


def running_containers(base_url: str | None = None, timeout: float = TIMEOUT) -> list[RunningContainer]:
    """List the containers that run, in the engine's order: the newest first.

    Raises:
        EngineUnreachable: when no Docker engine answers, with the reason.
    """
    with _client(base_url, timeout) as client:
        containers = _get(client, f"v{_version(client)['ApiVersion']}/containers/json")
        return [
            RunningContainer(str(name).removeprefix("/"), str(listed.get("Image", "")))
            for listed in containers
            for name in (listed.get("Names") or ())[:1]
        ]


def client_config_problem() -> str | None:
    """Return why the user's own file for Docker clients ends every client of the SDK, in one line; None if it does not.

    The SDK reads it whichever engine it is for, and trusts its structure. No request is sent.
    """
    import docker
    from docker.constants import DEFAULT_DOCKER_API_VERSION
    from docker.utils.config import find_config_file, load_general_config

    try:
        docker.APIClient("unix:///", version=DEFAULT_DOCKER_API_VERSION).close()
        if not isinstance(load_general_config().get("HttpHeaders", {}), Mapping):
            raise TypeError("its HttpHeaders are not names with values")
    except (docker.errors.DockerException, AttributeError, KeyError, TypeError, ValueError) as error:
        return (
            f"{find_config_file()!s} is not a configuration of a Docker client ({one_line(error)}): correct it, or "
            "name a folder with another one by DOCKER_CONFIG"
        )
    return None


@contextlib.contextmanager
def _client(base_url: str | None, timeout: float) -> Iterator[APIClient]:
    """Open a client of the engine; every failure in the block is one of :class:`EngineProblem`."""
    # Imported here because it takes 145 ms, which a run without an engine need not spend.
    import docker
    from docker.constants import DEFAULT_DOCKER_API_VERSION, DEFAULT_UNIX_SOCKET
    from docker.utils import kwargs_from_env

    usual = DEFAULT_UNIX_SOCKET.replace("http+unix", "unix")
    address = base_url or os.environ.get("DOCKER_HOST") or usual_address(usual)
    if (problem := client_config_problem()) is not None:
        raise EngineUnreachable(address, "bad-configuration", problem)
    try:
        reached = outer_host.engine_address(address)
        place = kwargs_from_env() if reached == address and not base_url else {"base_url": reached}
        # With a version named, the SDK sends no request yet; every request below uses the engine's own version.
        client = docker.APIClient(**place, version=DEFAULT_DOCKER_API_VERSION)
        client.timeout = timeout  # type: ignore[assignment]  # the stubs know whole seconds only
    except (docker.errors.DockerException, ValueError) as error:
        raise EngineUnreachable(address, "bad-address", one_line(error)) from error
    try:
        yield client
    except NotAnEngineAnswer as error:
        raise EngineUnreachable(address, "not-a-docker-engine", f"not a Docker engine: {error}") from error
    except (OSError, ValueError, docker.errors.DockerException) as error:
        raise unreachable(address, error, timeout) from error
    finally:
        client.close()


def usual_address(docker: str) -> str:
    """Return the address of podman's socket where Docker's does not exist and podman's does."""
    podman = f"unix://{PODMAN_SOCKET}"
    exist = [os.path.exists(outer_host.engine_address(place).removeprefix("unix://")) for place in (docker, podman)]
    return podman if exist == [False, True] else docker


def _read(client: APIClient, container: str | None) -> DockerEngine:
    version = _version(client)
    # Not the SDK's own methods: they refuse engines older than 1.12, which pipework serves.
    api = f"v{version['ApiVersion']}"
    engine = engine_from_answers(
        version, _get(client, f"{api}/info"), _get(client, f"{api}/networks"),
        of_podman=_podman_networks(client) if is_podman(version) else None,
    )  # fmt: skip
    if container is None:
        return engine
    answer = _get(client, f"{api}/containers/{quote(container, safe='')}/json", may_be_missing=True)
    if answer is None:
        containers = _get(client, f"{api}/containers/json?all=1")
        names = [name.removeprefix("/") for listed in containers for name in listed.get("Names") or ()]
        raise ContainerMissing(container, nearest_names(container, names), engine)
    agent = _with_last_end(client, api, _in_namespace(client, api, container_from_answer(answer)))
    members = networks_of_containers(_get(client, f"{api}/containers/json?all=1"))
    if members is None:
        return dataclasses.replace(engine, container=agent)
    networks = tuple(
        dataclasses.replace(network, containers=tuple(name for name, on in members.items() if network.name in on))
        for network in engine.networks
    )
    return dataclasses.replace(engine, networks=networks, container=agent)


def _podman_networks(client: APIClient) -> Any:
    """Return podman's own answer about its networks; None of a podman that is older than that form."""
    response = client.get(f"{client.base_url}/{PODMAN_NETWORKS}", timeout=client.timeout)
    return response.json() if response.ok else None


def _in_namespace(client: APIClient, api: str, container: DockerContainer) -> DockerContainer:
    """Return a container that shares the network namespace of another one with that one's networks."""
    kind, _colon, owner = container.network_mode.partition(":")
    answer = _get(client, f"{api}/containers/{quote(owner, safe='')}/json", may_be_missing=True) if owner else None
    if kind != "container" or answer is None:
        return container
    other = container_from_answer(answer)
    return dataclasses.replace(container, attachments=other.attachments, namespace_of=other.name)


def _with_last_end(client: APIClient, api: str, container: DockerContainer) -> DockerContainer:
    """Return a container that runs again with the exit code of its last end, which only the engine's events hold."""
    if not container.running or not container.state.restarts:
        return container
    now = int(time.time())
    filters = quote(json.dumps({"container": [container.id], "event": ["die"]}))
    response = client.get(
        f"{client.base_url}/{api}/events?since={now - EVENTS_SINCE}&until={now}&filters={filters}",
        timeout=client.timeout,
    )
    code = last_exit_code(response.text) if response.ok else None
    if code is None:
        return container
    return dataclasses.replace(container, state=dataclasses.replace(container.state, exit_code=code))


def _version(client: APIClient) -> Mapping[str, Any]:
    from docker.errors import APIError

    try:
        version: Mapping[str, Any] = client.version(api_version=False)
    except (ValueError, APIError) as error:
        raise NotAnEngineAnswer(one_line(error)) from error
    engine_from_answers(version, {}, ())
    return version


def _get(client: APIClient, path: str, may_be_missing: bool = False) -> Any:
    response = client.get(f"{client.base_url}/{path}", timeout=client.timeout)
    if may_be_missing and response.status_code == NOT_FOUND:
        return None
    response.raise_for_status()
    return response.json()


def nearest_names(name: str, names: list[str]) -> tuple[str, ...]:
    """Return at most five of the names, the most similar to ``name`` first."""
    return tuple(difflib.get_close_matches(name, names, n=5, cutoff=0.0))


def unreachable(address: str, error: Exception, timeout: float) -> EngineUnreachable:
    """Return why no engine answered, from the exception that the HTTP libraries raised."""
    causes = list(_causes(error))
    if any(isinstance(cause, TimeoutError) for cause in causes) or "timed out" in str(error).lower():
        return EngineUnreachable(address, "timeout", f"no answer within {timeout:g} s")
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return EngineUnreachable(address, "bad-address", "the host name does not resolve")
    if any(isinstance(cause, HTTPException) and not isinstance(cause, RemoteDisconnected) for cause in causes):
        return EngineUnreachable(address, "not-a-docker-engine", f"not a Docker engine: {one_line(error)}")
    for cause in causes:
        known = REASONS.get(cause.errno or 0) if isinstance(cause, OSError) else None
        if known is not None:
            return EngineUnreachable(address, *known)
    return EngineUnreachable(address, "other", one_line(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and every exception inside it: the HTTP libraries hide the errno several layers down."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        inner = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        waiting += [candidate for candidate in inner if isinstance(candidate, BaseException)]


def one_line(error: Exception) -> str:
    """Return an exception's text, short enough for a report."""
    return " ".join(str(error).split())[:300]


def container_namespace(pid: int, name: str = "agent", proc: str = "/proc") -> Namespace:
    """Open the network namespace of a container's first process.

    Args:
        pid: the container's ``State.Pid``, read just now: it changes with each restart.
        name: the namespace's name in messages.
        proc: the /proc in which the engine's process numbers are valid. For an engine in a process namespace of its own
            this is ``/proc/<a process in there>/root/proc``; see pid_namespaces(7).

    Raises:
        ContainerNotRunning: when the container has stopped.
        NotANamespace: when this process may not open the namespace (ptrace access, see namespaces(7)).
    """
    if pid <= 0:
        raise ContainerNotRunning(f"container {name} is not running: the engine knows no process of it")
    try:
        return Namespace.from_path(f"{proc}/{pid}/ns/net", name)
    except NotANamespace as error:
        if isinstance(error.__context__, FileNotFoundError | ProcessLookupError):
            raise ContainerNotRunning(f"container {name} is not running: process {pid} has ended") from error
        raise
