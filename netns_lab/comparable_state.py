"""Makes the states of one lab at two times comparable: without names and numbers that Docker or the kernel chooses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.route import Route
from viacheck.model.routing_names import TABLE_LOCAL
from viacheck.model.snapshot import Snapshot

DEFAULT_BRIDGE = "docker0"
_CARRIER_FLAGS = frozenset({"NO-CARRIER", "LOWER_UP"})
_CARRIER_LOST = "linkdown"
_LINK_LOCAL = "fe80:"


def comparable(snapshot: Snapshot) -> Snapshot:
    """Return the part of a snapshot that is equal for two equal states.

    A container or network that Docker creates again has other interface names, indexes and MAC addresses. The kernel
    adds link-local addresses and changes carrier flags in its own time.
    """
    engine = snapshot.engine
    names: dict[str, str] = {}
    if engine is not None:
        bridges = {network.bridge for network in engine.networks if network.bridge not in (None, DEFAULT_BRIDGE)}
        names = {bridge: "bridge*" for bridge in bridges if bridge is not None}
        names |= {link.name: "veth*" for link in snapshot.host.links if link.kind == "veth" and link.name not in names}
        container = engine.container
        engine = dataclasses.replace(
            engine,
            networks=tuple(dataclasses.replace(network, bridge=names.get(network.bridge or "", network.bridge))
                           for network in engine.networks),
            container=dataclasses.replace(container, pid=0) if container is not None else None,
        )  # fmt: skip
    agent = snapshot.agent
    if agent is not None:
        in_agent = {link.name: f"{link.kind}*" for link in agent.links if engine is not None and link.kind is not None}
        agent = _state(agent, in_agent, keep_identity=engine is None)
    return dataclasses.replace(
        snapshot, host=_state(snapshot.host, names, keep_identity=engine is None), agent=agent, engine=engine
    )


def _state(state: NetworkState, names: Mapping[str, str], *, keep_identity: bool) -> NetworkState:
    links = tuple(_link(link, keep_identity=keep_identity) for link in state.links)
    addresses = tuple(address for address in state.addresses if not _is_link_local(address))
    routes = tuple(_route(route) for route in state.routes if not _is_of_an_address(route))
    bare = dataclasses.replace(state, links=links, addresses=addresses, routes=routes, neighbours=())
    renamed: NetworkState = _renamed(bare, names)
    sysctls = {_renamed_path(path, names): value for path, value in state.sysctls.items()}
    return dataclasses.replace(renamed, sysctls=sysctls)


def _link(link: Link, *, keep_identity: bool) -> Link:
    flags = tuple(flag for flag in link.flags if flag not in _CARRIER_FLAGS)
    if keep_identity:
        return dataclasses.replace(link, flags=flags, operstate="")
    return dataclasses.replace(link, flags=flags, operstate="", index=0, mac=None, peer_index=None)


def _route(route: Route) -> Route:
    hops = tuple(
        dataclasses.replace(hop, flags=tuple(flag for flag in hop.flags if flag != _CARRIER_LOST))
        for hop in route.nexthops
    )
    return dataclasses.replace(route, nexthops=hops)


def _is_of_an_address(route: Route) -> bool:
    """Whether the kernel adds an IPv6 route by itself, once an address is no longer tentative (RFC 4862)."""
    return route.family == 6 and (route.table == TABLE_LOCAL or route.destination.startswith(_LINK_LOCAL))


def _is_link_local(address: Address) -> bool:
    return address.address.startswith(_LINK_LOCAL)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Replace every interface name in a value, in the fields of dataclasses and the items of tuples."""
    if not names:
        return value
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, tuple):
        return tuple(_renamed(item, names) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _renamed(getattr(value, field.name), names) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def _renamed_path(path: str, names: Mapping[str, str]) -> str:
    return "/".join(names.get(part, part) for part in path.split("/"))
