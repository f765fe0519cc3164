"""How faithful a replica is: the changes between the snapshot that it was built from and its own."""

from __future__ import annotations

from dataclasses import replace

from viacheck.analysis.packet_filter.replica_filter import rebuilt
from viacheck.model.diff import Change, changes
from viacheck.model.namespace_state import Link, NetworkState
from viacheck.model.snapshot import Snapshot

_MOMENTARY_FLAGS = frozenset({"PROMISC", "ALLMULTI", "DYNAMIC", "NOTRAILERS", "PORTSEL", "AUTOMEDIA"})
"""Flags of an interface that depend on who listens, or on what a driver can do."""


def differences(host: Snapshot, replica: Snapshot) -> list[Change]:
    """Return the changes from the host to its replica.

    A condition that the replica translates (a set into one rule for each value) is no difference; a condition that it
    leaves out is a difference that is named when the replica is built.
    """
    known = {file.path for file in replica.files}
    comparable = replace(
        host,
        host=_as_rebuilt(host.host),
        agent=_as_rebuilt(host.agent) if host.agent is not None and replica.agent is not None else host.agent,
        engine=replica.engine,
        files=tuple(file for file in host.files if file.path in known),
    )
    rebuilt_host = replace(
        replica,
        host=_without_moments(replica.host),
        agent=_without_moments(replica.agent) if replica.agent is not None else None,
    )
    if host.agent is None and replica.agent is not None:
        # The replica makes up an agent, and says so.
        rebuilt_host = replace(rebuilt_host, agent=None)
    return changes(comparable, rebuilt_host)


def _as_rebuilt(state: NetworkState) -> NetworkState:
    chains, _left_out = rebuilt(state.packet_filter)
    routes = tuple(replace(route, nexthop_id=None) for route in state.routes)
    return _without_moments(replace(state, routes=routes, packet_filter=replace(state.packet_filter, chains=chains)))


def _without_moments(state: NetworkState) -> NetworkState:
    return replace(state, links=tuple(map(_lasting, state.links)))


def _lasting(link: Link) -> Link:
    return replace(link, flags=tuple(flag for flag in link.flags if flag not in _MOMENTARY_FLAGS))
