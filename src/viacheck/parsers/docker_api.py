"""What a Docker engine's JSON answers mean: from the bodies of its HTTP API to the plain types of a snapshot.

An allow-list: what is not named here is never kept, above all not the values of the agent's environment, one of which
is its account token. The same functions read a live engine and saved ``docker inspect`` output, of any engine since
1.10 (Docker Engine API, https://docs.docker.com/reference/api/engine/).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from viacheck.model.snapshot import Attachment, DockerContainer, DockerEngine, DockerNetwork, IPAMPool

Answer = Mapping[str, Any]

MACVLAN_SINCE = (1, 12)
SELF_BUILT = (0, 0)
DEFAULT_BRIDGE = "docker0"
BRIDGE_NAME_OPTION = "com.docker.network.bridge.name"
KEPT_OPTIONS = ("com.docker.network.", "parent", "macvlan_mode", "ipvlan_mode", "ipvlan_flag")
"""What a network option begins with that is kept; a third-party driver's options may hold passwords."""


class NotAnEngineAnswer(ValueError):
    """The answer is not what a Docker engine says of itself; the message names what it lacks."""


def engine_from_answers(
    version: Answer, info: Answer, networks: Iterable[Answer], container: Answer | None = None
) -> DockerEngine:
    """Keep what this tool needs of an engine's answers.

    Args:
        version: the body of ``GET /version``.
        info: the body of ``GET /info``; may be empty when it was not saved.
        networks: the body of ``GET /networks``, or of ``docker network inspect``.
        container: the body of ``GET /containers/{name}/json``, or one element of ``docker inspect``.

    Raises:
        NotAnEngineAnswer: when ``version`` names no version.
    """
    for key in ("Version", "ApiVersion"):
        if not isinstance(version, Mapping) or not isinstance(version.get(key), str) or not version[key]:
            raise NotAnEngineAnswer(f"the answer to /version has no {key}")
    return DockerEngine(
        version=version["Version"],
        api_version=version["ApiVersion"],
        rootless=is_rootless(info),
        networks=tuple(network_from_answer(network) for network in networks),
        container=container_from_answer(container) if container is not None else None,
    )


def is_rootless(info: Answer) -> bool:
    """Whether the engine runs as an ordinary user (``name=rootless`` among its security options)."""
    return any("name=rootless" in option.split(",") for option in info.get("SecurityOptions") or ())


def network_from_answer(network: Answer) -> DockerNetwork:
    """One Docker network."""
    options: dict[str, str] = network.get("Options") or {}
    pools: Iterable[Answer] = (network.get("IPAM") or {}).get("Config") or ()
    driver = network.get("Driver") or ""
    return DockerNetwork(
        name=network["Name"],
        id=network["Id"],
        driver=driver,
        internal=bool(network.get("Internal")),
        ipv6=bool(network.get("EnableIPv6")),
        pools=tuple(
            IPAMPool(subnet=pool["Subnet"], gateway=pool.get("Gateway") or None, ip_range=pool.get("IPRange") or None)
            for pool in pools
            if pool.get("Subnet")
        ),
        parent=options.get("parent") or None,
        bridge=_bridge_name(network["Name"], network["Id"], options) if driver == "bridge" else None,
        options={name: value for name, value in options.items() if name.startswith(KEPT_OPTIONS)},
    )


def _bridge_name(name: str, network_id: str, options: Mapping[str, str]) -> str:
    if options.get(BRIDGE_NAME_OPTION):
        return options[BRIDGE_NAME_OPTION]
    return DEFAULT_BRIDGE if name == "bridge" else f"br-{network_id[:12]}"


def container_from_answer(container: Answer) -> DockerContainer:
    """One container. Its addresses come from Networks alone: API 1.52 has them nowhere else."""
    state = container.get("State") or {}
    config = container.get("Config") or {}
    host_config = container.get("HostConfig") or {}
    networks: Mapping[str, Answer] = (container.get("NetworkSettings") or {}).get("Networks") or {}
    return DockerContainer(
        name=container["Name"].removeprefix("/"),
        id=container["Id"],
        running=bool(state.get("Running")),
        pid=state.get("Pid") or 0,
        image=config.get("Image") or "",
        network_mode=host_config.get("NetworkMode") or "",
        restart_policy=(host_config.get("RestartPolicy") or {}).get("Name") or "no",
        dns=tuple(host_config.get("Dns") or ()),
        environment_names=tuple(entry.partition("=")[0] for entry in config.get("Env") or ()),
        attachments=tuple(_attachment(name, endpoint or {}) for name, endpoint in networks.items()),
    )


def _attachment(network: str, endpoint: Answer) -> Attachment:
    return Attachment(
        network=network,
        address=endpoint.get("IPAddress") or None,
        prefixlen=endpoint.get("IPPrefixLen") or None,
        gateway=endpoint.get("Gateway") or None,
        mac=endpoint.get("MacAddress") or None,
        ipv6_address=endpoint.get("GlobalIPv6Address") or None,
    )


def macvlan_supported(version: str) -> bool:
    """Whether an engine of this version has the macvlan driver: all released ones from 1.12.

    Engines that somebody built from source call themselves ``dev`` or ``0.0.0-<date>``; all that do are newer.
    """
    number = re.match(r"v?(\d+)\.(\d+)", version.strip())
    if number is None:
        return True
    major_minor = int(number[1]), int(number[2])
    return major_minor == SELF_BUILT or major_minor >= MACVLAN_SINCE
