"""The state of a host with several agents in result.json: with the first of its targets, and not again with the others.

The snapshot of each other target has the key ``same_as`` with the id of the first one, and only the parts that differ.
"""

from __future__ import annotations

from typing import Any

SAME_AS = "same_as"


def with_state_once(targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return targets as they are written, without what the snapshot of an agent has in common with the first one."""
    written: list[dict[str, Any]] = []
    for target in targets:
        first = next(filter(_holds_state, written), None)
        if first is not None and _holds_state(target) and target["snapshot"]["host"] == first["snapshot"]["host"]:
            parts = target["snapshot"].items()
            own = {key: value for key, value in parts if (key, value) not in first["snapshot"].items()}
            written.append({**target, "snapshot": {SAME_AS: first["id"], **own}})
        else:
            written.append(target)
    return written


def with_state_of_each(targets: list[Any]) -> list[Any]:
    """Return targets that were written by :func:`with_state_once` with the whole snapshot of each.

    Raises:
        ValueError: a snapshot refers to a target that has none.
    """
    whole: dict[str, dict[str, Any]] = {}
    read: list[Any] = []
    for target in targets:
        snapshot = target.get("snapshot") if isinstance(target, dict) else None
        if isinstance(snapshot, dict):
            if SAME_AS in snapshot:
                if snapshot[SAME_AS] not in whole:
                    raise ValueError(f"{SAME_AS}: {snapshot[SAME_AS]!r} is no target with a snapshot before this one")
                own = {key: value for key, value in snapshot.items() if key != SAME_AS}
                snapshot = {**whole[snapshot[SAME_AS]], **own}
                target = {**target, "snapshot": snapshot}
            whole[str(target.get("id"))] = snapshot
        read.append(target)
    return read


def _holds_state(target: dict[str, Any]) -> bool:
    """Whether a target is one of several agents, with the state of its host."""
    snapshot = target.get("snapshot")
    return target.get("agent") is not None and isinstance(snapshot, dict) and "host" in snapshot
