"""How faithful a twin is: what its own snapshot tells differently than the snapshot that it was built from."""

from __future__ import annotations

from dataclasses import replace

from viacheck.analysis.packet_filter.replica_filter import rebuilt
from viacheck.model.diff import changes
from viacheck.model.snapshot import Link, NetworkState, Snapshot

_OF_THE_MOMENT = frozenset({"PROMISC", "ALLMULTI", "DYNAMIC", "NOTRAILERS", "PORTSEL", "AUTOMEDIA"})
"""Flags of an interface that tell who listens, or what a driver can do."""


def differences(host: Snapshot, twin: Snapshot) -> list[str]:
    """One line for each difference: ``-`` for what the host had, ``+`` for what only the twin has.

    What a twin translates (a set into one rule for each of its values) is no difference; what it leaves out is one that
    is named when the twin is built.
    """
    known = {file.path for file in twin.files}
    comparable = replace(
        host,
        host=_as_rebuilt(host.host),
        agent=_as_rebuilt(host.agent) if host.agent is not None and twin.agent is not None else host.agent,
        engine=twin.engine,
        files=tuple(file for file in host.files if file.path in known),
    )
    here = replace(
        twin,
        host=_without_moments(twin.host),
        agent=_without_moments(twin.agent) if twin.agent is not None else None,
    )
    if host.agent is None and twin.agent is not None:
        # It was made up, and said to be.
        here = replace(here, agent=None)
    return changes(comparable, here)


def _as_rebuilt(state: NetworkState) -> NetworkState:
    chains, _left_out = rebuilt(state.packet_filter)
    routes = tuple(replace(route, nexthop_id=None) for route in state.routes)
    return _without_moments(replace(state, routes=routes, packet_filter=replace(state.packet_filter, chains=chains)))


def _without_moments(state: NetworkState) -> NetworkState:
    return replace(state, links=tuple(map(_lasting, state.links)))


def _lasting(link: Link) -> Link:
    return replace(link, flags=tuple(flag for flag in link.flags if flag not in _OF_THE_MOMENT))
