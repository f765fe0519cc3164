"""A snapshot as JSON, small enough to be saved for a host with 100,000 routes, and read again.

Rules and routes are written with the values that differ from their defaults, and many routes that differ by their
destination alone as one entry; everything else is written in full.
Snapshots of every earlier version are read: keys that were renamed are accepted here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from viacheck.model.policy_rule import Rule
from viacheck.model.saved_routes import each_route, routes_json
from viacheck.model.snapshot import Snapshot

FORMER_KEYS = {"own_words": "manager_answers"}
"""Keys of a saved snapshot before version 0.2, and their names since."""
_STATES = ("host", "agent")


def _in_full(saved: Any) -> Any:
    if not isinstance(saved, dict):
        return saved
    present = {FORMER_KEYS.get(key, key): value for key, value in saved.items()}
    for name in _STATES:
        state = present.get(name)
        if isinstance(state, dict) and isinstance(state.get("routes"), list):
            present[name] = {**state, "routes": list(each_route(state["routes"]))}
    return present


@cache
def snapshot_adapter() -> TypeAdapter[Snapshot]:
    """Return the reader and writer of snapshots; to make one takes longer than to read a snapshot with it."""
    return TypeAdapter(Annotated[Snapshot, BeforeValidator(_in_full)])


@cache
def _rules_adapter() -> TypeAdapter[tuple[Rule, ...]]:
    return TypeAdapter(tuple[Rule, ...])


def load_adapters() -> None:
    """Make the readers and writers of snapshots, so that processes forked from this one share them."""
    snapshot_adapter()
    _rules_adapter()
    routes_json(())


def read_snapshot(saved: Any) -> Snapshot:
    """Return the snapshot of result.json, or of any mapping with its keys.

    Raises:
        pydantic.ValidationError: when it is not a snapshot.
    """
    return snapshot_adapter().validate_python(saved)


def read_without_routes(saved: Mapping[str, Any]) -> Snapshot:
    """Return the same without its rules and routes, which are nearly all of a large host's snapshot.

    Raises:
        pydantic.ValidationError: when it is not a snapshot.
    """
    states = {name: {**saved[name], "rules": [], "routes": []} for name in _STATES if isinstance(saved.get(name), dict)}
    return read_snapshot({**saved, **states})


def snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return the snapshot as result.json holds it."""
    saved: dict[str, Any] = snapshot_adapter().dump_python(
        snapshot, mode="json", exclude={name: {"rules", "routes"} for name in _STATES}
    )
    for name, state in (("host", snapshot.host), ("agent", snapshot.agent)):
        if state is not None:
            saved[name]["rules"] = _rules_adapter().dump_python(state.rules, mode="json", exclude_defaults=True)
            saved[name]["routes"] = routes_json(state.routes)
    return saved
