"""A Docker engine's JSON answers, from the bodies of its HTTP API to the plain types of a snapshot.

An allow-list: a field that is not named here is never kept, above all not the values of the agent's environment, which
hold its account token. The same functions read a live engine and saved ``docker inspect`` output, of any engine since
1.10 (Docker Engine API, https://docs.docker.com/reference/api/engine/).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

from viacheck.model.snapshot import Attachment, ContainerState, DockerContainer, DockerEngine, DockerNetwork, IPAMPool

T = TypeVar("T")
DEFAULT_BRIDGE = "docker0"
BRIDGE_NAME_OPTION = "com.docker.network.bridge.name"
KEPT_OPTIONS = ("com.docker.network.", "parent", "macvlan_mode", "ipvlan_mode", "ipvlan_flag")
"""Beginnings of the network options that are kept; a third-party driver's options may hold passwords."""


class NotAnEngineAnswer(ValueError):
    """The answer is not a Docker engine's; the message names the field that is missing or has another type."""


class _Answer:
    """One JSON object of an answer, read by names and types of its fields; null stands for an empty field."""

    def __init__(self, value: Any, name: str) -> None:
        if not isinstance(value, Mapping):
            raise NotAnEngineAnswer(f"{name} is not an object")
        self._value = value
        self._name = name

    def _get(self, key: str, kind: type[T], default: T) -> T:
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise NotAnEngineAnswer(f"{self._name} has a {key} of another type")
        return value

    def text(self, key: str) -> str:
        return self._get(key, str, "")

    def required_text(self, key: str) -> str:
        text = self.text(key)
        if not text:
            raise NotAnEngineAnswer(f"{self._name} has no {key}")
        return text

    def number(self, key: str) -> int:
        return self._get(key, int, 0)

    def flag(self, key: str) -> bool:
        return self._get(key, bool, False)

    def part(self, key: str) -> _Answer:
        return _Answer(self._get(key, cast(type[Mapping[str, Any]], Mapping), {}), f"{self._name}'s {key}")

    def parts(self, key: str) -> list[_Answer]:
        values = self._get(key, list, [])
        return [_Answer(value, f"an element of {self._name}'s {key}") for value in values]

    def parts_by_name(self, key: str) -> dict[str, _Answer]:
        values = self._get(key, cast(type[Mapping[str, Any]], Mapping), {})
        return {
            str(name): _Answer({} if value is None else value, f"{self._name}'s {key}")
            for name, value in values.items()
        }

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._get(key, list, [])
        if not all(isinstance(value, str) for value in values):
            raise NotAnEngineAnswer(f"{self._name}'s {key} holds something other than text")
        return tuple(values)

    def options(self, key: str) -> dict[str, str]:
        values = self._get(key, cast(type[Mapping[str, Any]], Mapping), {})
        if not all(isinstance(name, str) and isinstance(value, str) for name, value in values.items()):
            raise NotAnEngineAnswer(f"{self._name}'s {key} holds something other than text")
        return dict(values)


def engine_from_answers(version: Any, info: Any, networks: Any, container: Any = None) -> DockerEngine:
    """Keep what this tool needs of an engine's answers.

    Args:
        version: the body of ``GET /version``.
        info: the body of ``GET /info``; may be empty when it was not saved.
        networks: the body of ``GET /networks``, or of ``docker network inspect``.
        container: the body of ``GET /containers/{name}/json``, or one element of ``docker inspect``.

    Raises:
        NotAnEngineAnswer: when a field is missing or has another type.
    """
    engine = _Answer(version, "the answer to /version")
    if not isinstance(networks, list | tuple):
        raise NotAnEngineAnswer("the answer to /networks is not a list")
    return DockerEngine(
        version=engine.required_text("Version"),
        api_version=engine.required_text("ApiVersion"),
        rootless=_is_rootless(_Answer(info, "the answer to /info")),
        podman=any(part.text("Name").startswith("Podman") for part in engine.parts("Components")),
        networks=tuple(_network(_Answer(network, "a network")) for network in networks),
        container=container_from_answer(container) if container is not None else None,
    )


def _is_rootless(info: _Answer) -> bool:
    """Return whether the engine runs as an ordinary user (``name=rootless`` among its security options)."""
    return any("name=rootless" in option.split(",") for option in info.texts("SecurityOptions"))


def _network(network: _Answer) -> DockerNetwork:
    name, identifier = network.required_text("Name"), network.required_text("Id")
    driver, options = network.text("Driver"), network.options("Options")
    return DockerNetwork(
        name=name,
        id=identifier,
        driver=driver,
        internal=network.flag("Internal"),
        ipv6=network.flag("EnableIPv6"),
        pools=tuple(
            IPAMPool(
                subnet=pool.text("Subnet"),
                gateway=pool.text("Gateway") or None,
                ip_range=pool.text("IPRange") or None,
                reserved=pool.options("AuxiliaryAddresses"),
            )
            for pool in network.part("IPAM").parts("Config")
            if pool.text("Subnet")
        ),
        parent=options.get("parent") or None,
        bridge=_bridge_name(name, identifier, options) if driver == "bridge" else None,
        options={option: value for option, value in options.items() if option.startswith(KEPT_OPTIONS)},
        not_kept=tuple(_not_kept(network, options)),
    )


def _not_kept(network: _Answer, options: Mapping[str, str]) -> Iterator[str]:
    """Yield the settings of a network that are not kept, so that it cannot be created again from a snapshot."""
    if network.options("Labels"):
        yield "labels"
    yield from (f"the option {option}" for option in options if not option.startswith(KEPT_OPTIONS))
    if network.flag("Attachable"):
        yield "--attachable"
    if network.part("IPAM").text("Driver") not in ("", "default") or network.part("IPAM").options("Options"):
        yield "its address management (--ipam-driver)"


def _bridge_name(name: str, network_id: str, options: Mapping[str, str]) -> str:
    if options.get(BRIDGE_NAME_OPTION):
        return options[BRIDGE_NAME_OPTION]
    return DEFAULT_BRIDGE if name == "bridge" else f"br-{network_id[:12]}"


def container_from_answer(answer: Any) -> DockerContainer:
    """Read one container. Its addresses come from Networks alone: API 1.52 has them nowhere else.

    Raises:
        NotAnEngineAnswer: when a field is missing or has another type.
    """
    container = _Answer(answer, "the container")
    state, config, host_config = container.part("State"), container.part("Config"), container.part("HostConfig")
    networks = container.part("NetworkSettings").parts_by_name("Networks")
    own, identifier = container.required_text("Name").removeprefix("/"), container.required_text("Id")
    # Before API 1.44 a container has one MAC address of its own, for its first network.
    mode, mac = host_config.text("NetworkMode"), config.text("MacAddress")
    macs = {name: mac for name in networks if mac and name in (mode, *(["bridge"] if mode == "default" else []))}
    return DockerContainer(
        name=own,
        id=identifier,
        running=state.flag("Running"),
        pid=state.number("Pid"),
        image=config.text("Image"),
        network_mode=mode,
        restart_policy=host_config.part("RestartPolicy").text("Name") or "no",
        dns=host_config.texts("Dns"),
        environment_names=tuple(entry.partition("=")[0] for entry in config.texts("Env")),
        attachments=tuple(_attachment(name, end, own, identifier, macs.get(name)) for name, end in networks.items()),
        state=ContainerState(
            status=state.text("Status"),
            exit_code=state.number("ExitCode"),
            out_of_memory=state.flag("OOMKilled"),
            error=state.text("Error"),
            restarts=container.number("RestartCount"),
            started=state.text("StartedAt"),
            finished=state.text("FinishedAt"),
            health=state.part("Health").text("Status"),
        ),
    )


def _attachment(network: str, endpoint: _Answer, own: str, container: str, fixed_mac: str | None) -> Attachment:
    asked = endpoint.part("IPAMConfig")
    return Attachment(
        network=network,
        address=endpoint.text("IPAddress") or None,
        prefixlen=endpoint.number("IPPrefixLen") or None,
        gateway=endpoint.text("Gateway") or None,
        mac=endpoint.text("MacAddress") or None,
        ipv6_address=endpoint.text("GlobalIPv6Address") or None,
        fixed_address=asked.text("IPv4Address") or None,
        fixed_mac=fixed_mac,
        # The engine adds the container's name and the first characters of its id by itself.
        aliases=tuple(name for name in endpoint.texts("Aliases") if name != own and not container.startswith(name)),
        gateway_priority=endpoint.number("GwPriority"),
    )


def last_exit_code(events: str) -> int | None:
    """Return the exit code in the last ``die`` event of ``GET /events``, one JSON object per line; None without one."""
    code: int | None = None
    for line in events.splitlines():
        try:
            event = _Answer(json.loads(line), "an event")
            attributes = event.part("Actor").options("Attributes")
        except ValueError:
            continue
        text = attributes.get("exitCode", "")
        code = int(text) if text.isdecimal() else code
    return code


def networks_of_containers(answer: Any) -> dict[str, tuple[str, ...]] | None:
    """Return the networks of each container, stopped ones too, from the body of ``GET /containers/json?all=1``.

    None where the engine does not list them.

    Raises:
        NotAnEngineAnswer: when a field is missing or has another type.
    """
    if not isinstance(answer, list | tuple):
        raise NotAnEngineAnswer("the answer to /containers/json is not a list")
    if not all(isinstance(value, Mapping) and "NetworkSettings" in value for value in answer):
        return None
    listed = [_Answer(value, "a listed container") for value in answer]
    return {
        container.texts("Names")[0].removeprefix("/"): tuple(
            container.part("NetworkSettings").parts_by_name("Networks")
        )
        for container in listed
        if container.texts("Names")
    }
