"""How a recording began: intent, state and plan, saved beside the record so that any machine can make the report."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from viacheck.atomic_file import write_file
from viacheck.bundle.recorded_commands import Recorded
from viacheck.model.exit_status import UsageError
from viacheck.model.intent import Intent
from viacheck.model.intent_file import parse_intent
from viacheck.model.plain import Plain, first_mistake
from viacheck.model.result import TargetRecord
from viacheck.model.site_agents import SOLE_AGENT
from viacheck.user_file import read_file

START = "start.json"


class FlightStart(Plain):
    """The facts that hold for a whole recording."""

    schema_: Literal["viacheck.flight/1"] = Field(default="viacheck.flight/1", alias="schema")
    id: str
    version: str
    command: str
    target: TargetRecord
    """The target with its intent and its snapshot, as result.json has it."""
    agent: str = SOLE_AGENT
    """The agent's name in a site file with several."""
    commands: list[Recorded]
    """The commands that the snapshot was read with, for the bundle."""
    started_ns: int
    until_ns: int
    interval: float
    uplink: str
    interfaces: list[str]
    """Every interface that leads out of the host, the intended uplink first."""
    classes: list[str]
    remarks: list[str]
    not_counted: dict[str, str]
    """Why the agent's packets are not counted, by interface."""

    @property
    def intent(self) -> Intent:
        """The intent of the site file.

        Raises:
            IntentError: the file was changed.
        """
        return parse_intent(self.target.intent, source=START)


def save_start(folder: Path, start: FlightStart) -> None:
    """Write the file of a record's folder.

    Raises:
        OSError: it cannot be written.
    """
    write_file(folder / START, start.model_dump_json(by_alias=True) + "\n", private=True)


def read_start(folder: Path) -> FlightStart | None:
    """Read the file of a record's folder; None when the folder holds no record.

    Raises:
        UsageError: the file cannot be read, or is not ours.
    """
    path = folder / START
    try:
        return FlightStart.model_validate_json(read_file(path, follow_links=False))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise UsageError(f"{path}: not a record of viacheck watch: {first_mistake(error)}") from None
