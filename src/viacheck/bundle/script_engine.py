"""Makes a snapshot's engine from the outputs that the shell script recorded: those of docker, or of podman."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from viacheck.bundle.recorded_commands import Recorded
from viacheck.model.docker_state import DockerEngine
from viacheck.model.snapshot import Problem
from viacheck.parsers.docker_api import engine_from_answers
from viacheck.parsers.json_answer import NotAnEngineAnswer

PROGRAMS = ("docker", "podman")
CONTAINER_COMMANDS = tuple(f"{program} inspect" for program in PROGRAMS)


def container_named(name: str, commands: Iterable[Recorded]) -> dict[str, Any] | None:
    """Return the engine's answer about a container, by the container's name or the beginning of its id."""
    inspected = [answer for command in commands if command.command in CONTAINER_COMMANDS for answer in _lines(command)]
    for answer in inspected:
        if not isinstance(answer, dict):
            continue
        own_name, own_id = answer.get("Name"), answer.get("Id")
        if not isinstance(own_name, str) or not isinstance(own_id, str):
            continue
        if own_name.lstrip("/") == name or own_id.startswith(name):
            return answer
    return None


def engine_of(commands: Mapping[str, Recorded], container: str) -> tuple[DockerEngine | None, list[Problem]]:
    """Return the engine with a container, and what could not be read of them.

    Args:
        commands: those of the host, by their text.
        container: the agent's.
    """
    program = next((program for program in PROGRAMS if f"{program} version" in commands), PROGRAMS[0])
    recorded = commands.get(f"{program} version")
    version = _json(recorded)
    if not isinstance(version, dict):
        errors = recorded.stderr.strip().splitlines() if recorded is not None else []
        reason = f"{program} version: {errors[-1] if errors else 'it was not recorded'}"
        return None, [_problem("engine", reason, recorded)]
    info = _json(commands.get(f"{program} info"))
    networks = [_without_ends(network) for network in _lines(commands.get(f"{program} network inspect"))]
    inspected = [_without_ends(answer) for answer in _lines(commands.get(f"{program} inspect"))]
    answer = inspected[0] if inspected else None
    try:
        if program == "podman":
            engine = _podman(version, info, networks, answer)
        else:
            engine = engine_from_answers(version, {"SecurityOptions": info}, networks, answer)
    except NotAnEngineAnswer as error:
        return None, [_problem("engine", f"the output of {program} cannot be read: {error}")]
    if engine.container is None:
        reason = f"{program} inspect knows no container {container!r}"
        return engine, [_problem("container", reason, commands.get(f"{program} inspect"))]
    return engine, []


def _podman(version: dict[str, Any], rootless: Any, networks: list[Any], container: Any) -> DockerEngine:
    """Read what podman's own commands print; of its version, the client is what runs the containers."""
    own = {
        "Version": version.get("Version"), "ApiVersion": version.get("APIVersion"),
        "Components": [{"Name": "Podman Engine"}],
    }  # fmt: skip
    security = ["name=rootless"] if rootless is True else []
    return engine_from_answers(own, {"SecurityOptions": security}, (), container, of_podman=networks)


def _problem(what: Any, reason: str, recorded: Recorded | None = None) -> Problem:
    if recorded is None:
        return Problem(what=what, reason=reason)
    return Problem(
        what=what, reason=reason, command=recorded.command, exit_code=recorded.exit_code, stderr=recorded.stderr
    )


def _json(recorded: Recorded | None) -> Any:
    if recorded is None or recorded.exit_code:
        return None
    try:
        return json.loads(recorded.stdout)
    except (ValueError, RecursionError):
        return None


def _lines(recorded: Recorded | None) -> list[Any]:
    """Return the JSON value of each line, without lines that are not JSON."""
    values = []
    for line in filter(None, map(str.strip, recorded.stdout.splitlines() if recorded is not None else ())):
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return values


def _without_ends(value: Any) -> Any:
    """Remove the end of each list ("") and object ("": null) that the script adds: the templates need it."""
    if isinstance(value, dict):
        return {key: _without_ends(member) for key, member in value.items() if key}
    if isinstance(value, list):
        return [_without_ends(element) for element in value if element != ""]
    return value
