"""A snapshot as JSON, small enough to be saved for a host with 100,000 routes, and read again.

Rules and routes are written with the values that differ from their defaults; everything else is written in full.
Snapshots of every earlier version are read: keys that were renamed are accepted here and nowhere else.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from viacheck.model.snapshot import Route, Rule, Snapshot

FORMER_KEYS = {"own_words": "manager_answers"}
"""Keys of a saved snapshot before version 0.2, and their names since."""


def _with_present_keys(saved: Any) -> Any:
    if not isinstance(saved, dict):
        return saved
    return {FORMER_KEYS.get(key, key): value for key, value in saved.items()}


@cache
def snapshot_adapter() -> TypeAdapter[Snapshot]:
    """Return the reader and writer of snapshots; to make one takes longer than to read a snapshot with it."""
    return TypeAdapter(Annotated[Snapshot, BeforeValidator(_with_present_keys)])


@cache
def _list_adapters() -> tuple[TypeAdapter[tuple[Rule, ...]], TypeAdapter[tuple[Route, ...]]]:
    return TypeAdapter(tuple[Rule, ...]), TypeAdapter(tuple[Route, ...])


def read_snapshot(saved: Any) -> Snapshot:
    """Return the snapshot of result.json, or of any mapping with its keys.

    Raises:
        pydantic.ValidationError: when it is not a snapshot.
    """
    return snapshot_adapter().validate_python(saved)


def snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return the snapshot as result.json holds it."""
    rules, routes = _list_adapters()
    saved: dict[str, Any] = snapshot_adapter().dump_python(
        snapshot, mode="json", exclude={name: {"rules", "routes"} for name in ("host", "agent")}
    )
    for name, state in (("host", snapshot.host), ("agent", snapshot.agent)):
        if state is not None:
            saved[name]["rules"] = rules.dump_python(state.rules, mode="json", exclude_defaults=True)
            saved[name]["routes"] = routes.dump_python(state.routes, mode="json", exclude_defaults=True)
    return saved
