"""A snapshot as JSON, small enough to be saved for a host with 100,000 routes.

Rules and routes are written with what differs from their defaults alone; everything else is written in full. Validating
it against :class:`Snapshot` gives the same snapshot again.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import TypeAdapter

from viacheck.model.snapshot import Route, Rule, Snapshot


@cache
def _adapters() -> tuple[TypeAdapter[Snapshot], TypeAdapter[tuple[Rule, ...]], TypeAdapter[tuple[Route, ...]]]:
    """Made once: each costs some 20 ms."""
    return TypeAdapter(Snapshot), TypeAdapter(tuple[Rule, ...]), TypeAdapter(tuple[Route, ...])


def snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as it stands in result.json."""
    whole, rules, routes = _adapters()
    saved: dict[str, Any] = whole.dump_python(
        snapshot, mode="json", exclude={name: {"rules", "routes"} for name in ("host", "agent")}
    )
    for name, state in (("host", snapshot.host), ("agent", snapshot.agent)):
        if state is not None:
            saved[name]["rules"] = rules.dump_python(state.rules, mode="json", exclude_defaults=True)
            saved[name]["routes"] = routes.dump_python(state.routes, mode="json", exclude_defaults=True)
    return saved
