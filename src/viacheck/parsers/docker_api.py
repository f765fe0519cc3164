"""A Docker engine's JSON answers, from the bodies of its HTTP API to the plain types of a snapshot.

An allow-list: a field that is not named here is never kept, above all not the values of the agent's environment, which
hold its account token. The same functions read a live engine and saved ``docker inspect`` output, of any engine since
1.10 (Docker Engine API, https://docs.docker.com/reference/api/engine/).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from viacheck.model.docker_state import (
    Attachment,
    ContainerState,
    DockerContainer,
    DockerEngine,
    DockerNetwork,
    IPAMPool,
)
from viacheck.parsers.json_answer import JsonAnswer, NotAnEngineAnswer
from viacheck.parsers.podman_api import PODMAN_BRIDGE, PODMAN_NETWORK, podman_networks

DEFAULT_BRIDGE = "docker0"
BRIDGE_NAME_OPTION = "com.docker.network.bridge.name"
KEPT_OPTIONS = ("com.docker.network.", "parent", "macvlan_mode", "ipvlan_mode", "ipvlan_flag")
"""Beginnings of the network options that are kept; a third-party driver's options may hold passwords."""


def engine_from_answers(
    version: Any, info: Any, networks: Any, container: Any = None, *, of_podman: Any = None
) -> DockerEngine:
    """Keep what this tool needs of an engine's answers.

    Args:
        version: the body of ``GET /version``.
        info: the body of ``GET /info``; may be empty when it was not saved.
        networks: the body of ``GET /networks``, or of ``docker network inspect``.
        container: the body of ``GET /containers/{name}/json``, or one element of ``docker inspect``.
        of_podman: podman's own answer about its networks (:mod:`viacheck.parsers.podman_api`), where podman answers.

    Raises:
        NotAnEngineAnswer: when a field is missing or has another type.
    """
    engine = JsonAnswer(version, "the answer to /version")
    if not isinstance(networks, list | tuple):
        raise NotAnEngineAnswer("the answer to /networks is not a list")
    podman = is_podman(version)
    return DockerEngine(
        version=engine.required_text("Version"),
        api_version=engine.required_text("ApiVersion"),
        rootless=_is_rootless(JsonAnswer(info, "the answer to /info")),
        podman=podman,
        networks=(
            podman_networks(of_podman) if of_podman is not None
            else tuple(_network(JsonAnswer(network, "a network"), podman=podman) for network in networks)
        ),
        container=container_from_answer(container) if container is not None else None,
    )  # fmt: skip


def is_podman(version: Any) -> bool:
    """Return whether podman gave the answer to ``GET /version``.

    Raises:
        NotAnEngineAnswer: when a field has another type.
    """
    components = JsonAnswer(version, "the answer to /version").parts("Components")
    return any(part.text("Name").startswith("Podman") for part in components)


def _is_rootless(info: JsonAnswer) -> bool:
    """Return whether the engine runs as an ordinary user (``name=rootless`` among its security options)."""
    return any("name=rootless" in option.split(",") for option in info.texts("SecurityOptions"))


def _network(network: JsonAnswer, *, podman: bool) -> DockerNetwork:
    name, identifier = network.required_text("Name"), network.required_text("Id")
    if podman and name == "bridge":
        # Only this answer of podman calls its default network so; its containers are on "podman".
        name = PODMAN_NETWORK
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
        bridge=_bridge_name(name, identifier, options, podman=podman) if driver == "bridge" else None,
        options={option: value for option, value in options.items() if option.startswith(KEPT_OPTIONS)},
        not_kept=tuple(_not_kept(network, options)),
    )


def _not_kept(network: JsonAnswer, options: Mapping[str, str]) -> Iterator[str]:
    """Yield the settings of a network that are not kept, so that it cannot be created again from a snapshot."""
    if network.options("Labels"):
        yield "labels"
    yield from (f"the option {option}" for option in options if not option.startswith(KEPT_OPTIONS))
    if network.flag("Attachable"):
        yield "--attachable"
    if network.part("IPAM").text("Driver") not in ("", "default") or network.part("IPAM").options("Options"):
        yield "its address management (--ipam-driver)"


def _bridge_name(name: str, network_id: str, options: Mapping[str, str], *, podman: bool) -> str | None:
    if options.get(BRIDGE_NAME_OPTION):
        return options[BRIDGE_NAME_OPTION]
    if podman:
        return PODMAN_BRIDGE if name == PODMAN_NETWORK else None
    return DEFAULT_BRIDGE if name == "bridge" else f"br-{network_id[:12]}"


def container_from_answer(answer: Any) -> DockerContainer:
    """Read one container. Its addresses come from Networks alone: API 1.52 has them nowhere else.

    Raises:
        NotAnEngineAnswer: when a field is missing or has another type.
    """
    container = JsonAnswer(answer, "the container")
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


def _attachment(network: str, endpoint: JsonAnswer, own: str, container: str, fixed_mac: str | None) -> Attachment:
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
            event = JsonAnswer(json.loads(line), "an event")
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
    listed = [JsonAnswer(value, "a listed container") for value in answer]
    return {
        container.texts("Names")[0].removeprefix("/"): tuple(
            container.part("NetworkSettings").parts_by_name("Networks")
        )
        for container in listed
        if container.texts("Names")
    }
