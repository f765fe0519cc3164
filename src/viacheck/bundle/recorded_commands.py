"""The commands that a snapshot was read with, as members of a bundle: each command, its place, its time and its output.

Each command is three members: ``raw/001.command`` (lines ``key: value``), ``raw/001.stdout`` and ``raw/001.stderr``. A
shell script can write this format without a tool.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from viacheck.bundle.manifest import RAW
from viacheck.host.command import RecordedCommand
from viacheck.model.site_agents import SOLE_AGENT

HOST, AGENT = "host", "agent"
OF_ONE = "agent "
"""The place of one of several agents: this and its name."""
_HEAD = re.compile(rf"{RAW}(\d+)\.command")


class Recorded(BaseModel):
    """One command of a bundle."""

    model_config = ConfigDict(frozen=True)

    place: str
    """``host``, ``agent``, or ``agent NAME`` for one of several: the namespace that the command was run in."""
    command: str
    time: str
    """When the command ended, as ISO 8601 with offset."""
    exit_code: int
    stdout: str
    stderr: str

    @classmethod
    def of(cls, command: RecordedCommand, agent: str = SOLE_AGENT) -> Recorded:
        """Return a command as it was recorded while it was run; ``agent`` is the agent's name, of several."""
        result = command.result
        own_place = f"{OF_ONE}{agent}" if agent else AGENT
        return cls(
            place=HOST if command.place == HOST else own_place, command=result.command, time=command.time,
            exit_code=result.exit_code, stdout=result.stdout, stderr=result.stderr,
        )  # fmt: skip


def of_agent(commands: Sequence[RecordedCommand], agent: str = SOLE_AGENT, *, with_host: bool = True) -> list[Recorded]:
    """Return the commands that a target was read with; without those of the host for all agents but the first."""
    return [Recorded.of(command, agent) for command in commands if with_host or command.place != HOST]


def members_of(commands: Sequence[Recorded]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each member that holds these commands."""
    width = max(3, len(str(len(commands))))
    for number, command in enumerate(commands, start=1):
        stem = f"{RAW}{number:0{width}d}"
        head = {
            "place": command.place,
            "command": command.command,
            "time": command.time,
            "exit": str(command.exit_code),
        }
        yield f"{stem}.command", "".join(f"{key}: {_one_line(value)}\n" for key, value in head.items())
        yield f"{stem}.stdout", command.stdout
        yield f"{stem}.stderr", command.stderr


def commands_in(members: Mapping[str, bytes]) -> list[Recorded]:
    """Return the commands of a bundle, in their order.

    Raises:
        ValueError: a command is incomplete.
    """
    commands = []
    for name in sorted(members):
        match = _HEAD.fullmatch(name)
        if match is None:
            continue
        lines = members[name].decode(errors="replace").splitlines()
        head = dict(line.split(": ", 1) for line in lines if ": " in line)
        stem = f"{RAW}{match[1]}"
        try:
            commands.append(
                Recorded(
                    place=head["place"],
                    command=head["command"],
                    time=head["time"],
                    exit_code=int(head["exit"]),
                    stdout=members[f"{stem}.stdout"].decode(errors="replace"),
                    stderr=members[f"{stem}.stderr"].decode(errors="replace"),
                )
            )
        except (KeyError, ValueError) as error:
            raise ValueError(f"{name}: {error} is missing or wrong") from None
    return commands


def _one_line(text: str) -> str:
    return " ".join(text.split())
