"""How interfaces stand on each other: one frame passes several of them, and is seen on each.

The kernel shows a frame of a VLAN, macvlan or ipvlan interface on its parent as well, and a frame of a bridge or bond
on the port that carries it. Such a frame is one frame. A frame that a bridge forwards is seen on its ports alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from viacheck.model.check_evidence import PacketSighting
from viacheck.model.namespace_state import Link, NetworkState

MOST_LAYERS = 8
"""Interfaces on one another: the kernel refuses more (MAX_NEST_DEV, include/linux/netdevice.h)."""
CHILD_KINDS = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"})
"""Kinds of interfaces whose frames pass their parent unchanged, or with a VLAN tag."""


@dataclass(frozen=True, slots=True)
class LinkLayers:
    """The interfaces of one host that carry frames of others."""

    above: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By interface, the interfaces on top of it, direct or not: its frames may be theirs."""
    counts_for: Mapping[str, str] = field(default_factory=dict)
    """By port of a LAN bridge, the bridge; where the intent names the port as uplink, by bridge, the port."""

    def mark(self, sightings: Iterable[PacketSighting]) -> list[PacketSighting]:
        """Return the sightings, marked where they show a frame of an interface on top, or count for another interface.

        Frames are matched one by one, so that a second frame on the parent stays a copy.
        """
        sightings = list(sightings)
        if not self.above and not self.counts_for:
            return sightings
        seen = Counter((sighting.interface, _identity(sighting)) for sighting in sightings)
        marked: list[PacketSighting] = []
        taken: Counter[tuple[str, str, tuple[object, ...]]] = Counter()
        for sighting in sightings:
            identity = _identity(sighting)
            same: str | None = None
            for upper in sorted(self.above.get(sighting.interface, ())):
                key = sighting.interface, upper, identity
                if taken[key] < seen[upper, identity]:
                    taken[key] += 1
                    same = upper
                    break
            changes = {"same_frame_on": same, "counts_for": self.counts_for.get(sighting.interface)}
            marked.append(sighting.model_copy(update=changes) if any(changes.values()) else sighting)
        return marked


def _identity(sighting: PacketSighting) -> tuple[object, ...]:
    """Return what stays the same while a frame passes from an interface to the one below, or above."""
    return (
        sighting.direction, sighting.probe, sighting.role, sighting.protocol, sighting.source, sighting.destination,
        sighting.source_mac, sighting.destination_mac, sighting.note,
    )  # fmt: skip


def link_layers(host: NetworkState, uplinks: Collection[str], agent_ports: Collection[str]) -> LinkLayers:
    """Return how the interfaces of a host stand on each other.

    Args:
        host: its links.
        uplinks: the interfaces that the intent names as uplinks.
        agent_ports: the bridge ports that lead to the agent.
    """
    by_index = {link.index: link.name for link in host.links}
    ports: dict[str, list[Link]] = {}
    for link in host.links:
        if link.master is not None:
            ports.setdefault(link.master, []).append(link)
    lower: dict[str, set[str]] = {}
    counts_for: dict[str, str] = {}
    for link in host.links:
        if (
            link.kind in CHILD_KINDS
            and link.peer_netnsid is None
            and link.peer_index is not None
            and link.peer_index in by_index
        ):
            lower.setdefault(link.name, set()).add(by_index[link.peer_index])
        if link.kind == "bridge":
            outer = _outer(link.name, ports.get(link.name, ()), uplinks, agent_ports)
            lower.setdefault(link.name, set()).update(outer)
            counts_for.update(_names(link.name, outer, uplinks))
    above: dict[str, set[str]] = {}
    for name in lower:
        reached, layer = set[str](), lower[name]
        for _depth in range(MOST_LAYERS):
            layer = layer - reached - {name}
            reached |= layer
            layer = {lowest for below in layer for lowest in lower.get(below, ())}
        for below in reached:
            above.setdefault(below, set()).add(name)
    return LinkLayers({name: frozenset(uppers) for name, uppers in above.items()}, counts_for)


def _names(bridge: str, outer: Collection[str], uplinks: Collection[str]) -> dict[str, str]:
    """Return the interface that each of a bridge and its outer ports counts for: the uplink among them."""
    ports = [port for port in outer if port in uplinks]
    if bridge in uplinks or not ports:
        return {port: bridge for port in outer if port not in uplinks}
    return {name: ports[0] for name in (bridge, *outer) if name not in ports}


def outer_ports(
    host: NetworkState, bridge: str, uplinks: Collection[str], agent_ports: Collection[str]
) -> tuple[str, ...]:
    """Return the ports by which a bridge leads to a LAN; none for a bridge that joins containers alone.

    Where every port is a veth, as in a container of LXC, a bridge that the intent names as uplink leads out by those
    that do not lead to the agent.
    """
    return _outer(bridge, [link for link in host.links if link.master == bridge], uplinks, agent_ports)


def _outer(
    bridge: str, every_port: Iterable[Link], uplinks: Collection[str], agent_ports: Collection[str]
) -> tuple[str, ...]:
    ports = [link for link in every_port if link.name not in agent_ports]
    outer = [link for link in ports if link.name in uplinks or not is_guest_port(link)]
    if not outer and bridge in uplinks:
        outer = ports
    return tuple(link.name for link in outer)


def is_guest_port(link: Link) -> bool:
    """Whether a container or a virtual machine is behind a bridge port."""
    return link.kind == "tun" or (link.kind == "veth" and link.peer_netnsid is not None)
