"""Reads a result that was saved, or that another host sent: all of it is checked before any of it is used.

The state of a target stays the JSON that was saved, so that results of earlier versions are shown as they are. It is
checked for the types that a reader relies on, and the whole for its cost: an empty object takes two octets of a file
and 72 of memory.
"""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from viacheck.model.plain import first_mistake
from viacheck.model.result import RunResult, TargetRecord
from viacheck.model.snapshot_json import read_snapshot

MOST_VALUES = 6_000_000
"""Values of a result: 150,000 routes, each with a gateway of its own, are 2,000,000."""
MOST_TARGETS = 1_000
"""Targets of a result: every fault on each of its labs is 180."""
_SHOWN = 200
"""Characters of one reason."""


class ResultRefused(Exception):
    """The octets are no result; the message gives the place and the reason in one line."""


class _Attach(BaseModel):
    mode: str | None = None
    network: str | None = None
    parent: str | None = None
    bridge: str | None = None


class _Agent(BaseModel):
    container: str | None = None
    netns: str | None = None
    attach: _Attach = _Attach()


class _Uplink(BaseModel):
    gateway: str | None = None


class _Egress(BaseModel):
    uplink: str | None = None
    table: int | None = None
    table_name: str | None = None
    persist: str | None = None


class _Site(BaseModel):
    name: str | None = None


class _Probe(BaseModel):
    target: str | None = None


class _SavedIntent(BaseModel):
    """What reports read of an intent: rules that a later version added to site files do not hold for it."""

    site: _Site = _Site()
    agent: _Agent = _Agent()
    uplinks: dict[str, _Uplink] = {}
    egress: _Egress = _Egress()
    probe: _Probe = _Probe()


def read_result(content: bytes) -> RunResult:
    """Return the result in the octets of a result.json.

    Raises:
        ResultRefused: they are no result of viacheck.result/1, or one beyond the limits.
    """
    values = sum(map(content.count, (b"{", b"[", b",")))
    if values > MOST_VALUES:
        raise ResultRefused(f"it has about {values} values; the limit is {MOST_VALUES}")
    try:
        outcome = RunResult.model_validate_json(content)
    except ValidationError as error:
        raise ResultRefused(_one_line(first_mistake(error, "the result as a whole"))) from None
    if len(outcome.targets) > MOST_TARGETS:
        raise ResultRefused(f"it has {len(outcome.targets)} targets; the limit is {MOST_TARGETS}")
    for number, target in enumerate(outcome.targets):
        _check_state(f"targets.{number}", target)
    return outcome


def _check_state(place: str, target: TargetRecord) -> None:
    for key, value, read in (
        ("intent", target.intent, _SavedIntent.model_validate),
        ("snapshot", target.snapshot, read_snapshot),
    ):
        try:
            if value is not None:
                read(value)
        except ValidationError as error:
            raise ResultRefused(_one_line(f"{place}.{key}.{first_mistake(error, 'all')}")) from None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_SHOWN]
