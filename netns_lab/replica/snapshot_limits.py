"""The limits of a snapshot that a replica is built from: a snapshot may come from anywhere, and hold anything."""

from __future__ import annotations

import re

from netns_lab.replica.cabling import PEER_INDEX
from viacheck.bundle.manifest import beyond_limits
from viacheck.model.namespace_state import NetworkState
from viacheck.model.snapshot import Snapshot, StateSubject

MOST_LINKS = 256
LONGEST_NAME = 15
"""Octets of an interface's name."""
_NAME = re.compile(r"[^\s/:\x00-\x1f\x7f]+")
_REQUIRED: tuple[StateSubject, ...] = ("links", "addresses", "rules", "routes")


class SnapshotImpossible(Exception):
    """The snapshot lacks a required part, or holds interfaces that no host has; the message says which, in one line."""


def check_limits(snapshot: Snapshot) -> None:
    """Check that host and agent of a snapshot can be built.

    Raises:
        SnapshotImpossible: when they cannot.
    """
    for part in _REQUIRED:
        problem = snapshot.problem(part)
        if problem is not None:
            raise SnapshotImpossible(f"the snapshot lacks the host's {part}: {problem.reason}")
    _check_links("host", snapshot.host)
    if snapshot.agent is not None:
        _check_links("agent", snapshot.agent)


def _check_links(place: str, state: NetworkState) -> None:
    if len(state.links) > MOST_LINKS:
        raise SnapshotImpossible(f"the {place} has {len(state.links)} interfaces; a replica has {MOST_LINKS} at most")
    excess = beyond_limits(state)
    if excess is not None:
        raise SnapshotImpossible(f"the {place} has {excess}")
    names = [link.name for link in state.links]
    indexes = [link.index for link in state.links]
    for name in names:
        if not _NAME.fullmatch(name) or name in (".", "..") or len(name.encode()) > LONGEST_NAME:
            raise SnapshotImpossible(f"the {place} has an interface named {name!r}, which is not a valid name")
    if len(set(names)) < len(names) or len(set(indexes)) < len(indexes):
        raise SnapshotImpossible(f"the {place} has two interfaces with the same name or index")
    if any(not 0 < index < PEER_INDEX for index in indexes):
        raise SnapshotImpossible(f"the {place} has an interface with an index beyond {PEER_INDEX}")
