"""Uplinks that a host's own files make of its cards at boot: VLANs, bonds, and VLANs on bonds.

The copy of such a host gets the cards. A switch joins their cables and the gateways, with a tagged port for each VLAN:
the kernel of a host that has such an uplink makes the port as well.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from netns_lab.plan import HOST, Cable, Machine
from netns_lab.replica.upstream import GATEWAY_PORT
from viacheck.host.command import finish, start
from viacheck.host.namespace import COMMAND_TIMEOUT
from viacheck.model.namespace_state import Link, NetworkState

LINKS = ("ip", "-details", "-json", "link", "show")
MADE = ("vlan", "bond")
"""The kinds of interfaces that a copy can have as uplinks, besides cards and bridges."""
BY_ANY_SWITCH = ("active-backup", "balance-tlb", "balance-alb")
"""The modes of bonds that need nothing of the switch (kernel: Documentation/networking/bonding.rst)."""
LACP = "802.3ad"
_WIRE = "wire"
_INDEXES = 300_000
"""The first index of the switches' ports: equal indexes of both ends of a cable delay its carrier events."""


class StackImpossible(Exception):
    """The copy cannot have an uplink as the host has it; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class MadeLink:
    """An interface that the host's files make, and how a person types it."""

    name: str
    text: str
    commands: tuple[tuple[str, ...], ...]
    slaves: tuple[str, ...] = ()
    """A bond's cards."""


@dataclass(frozen=True, slots=True)
class StackedUplink:
    """An uplink that is made of cards."""

    name: str
    cards: tuple[str, ...]
    tag: int | None
    """The VLAN's id; None for frames without a tag."""
    protocol: str
    """The VLAN's protocol, as ip(8) prints it."""
    links: tuple[MadeLink, ...]
    """What the files make, each after those that it stands on; the uplink itself is the last."""
    note: str | None = None
    """What differs in the copy."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch between cards and gateways."""

    machine: Machine
    cables: tuple[Cable, ...]
    commands: tuple[tuple[str, ...], ...]
    """What the builder does not make, in order."""


def details_of_this_host() -> dict[str, Mapping[str, object]]:
    """Return what ``ip -details link`` says about the kind of each interface, by its name; none without iproute2."""
    run = finish(LINKS, start(LINKS), COMMAND_TIMEOUT)
    return read_details(run.stdout) if run.ok else {}


def read_details(text: str) -> dict[str, Mapping[str, object]]:
    """Read ``ip -details -json link show``."""
    details = dict[str, Mapping[str, object]]()
    for entry in json.loads(text):
        kind = entry.get("linkinfo") or {}
        details[str(entry.get("ifname"))] = kind.get("info_data") or {}
    return details


def stacked_uplink(
    name: str, host: NetworkState, details: Mapping[str, Mapping[str, object]], cards: Collection[str]
) -> StackedUplink:
    """Return how an uplink is made of cards.

    Args:
        name: the uplink, a VLAN or a bond.
        host: the host's state.
        details: of :func:`read_details`.
        cards: the interfaces that are there before any program of the host runs.

    Raises:
        StackImpossible: it is made of something else, or needs a switch that the copy does not have.
    """
    link = host.link(name)
    assert link is not None
    if link.kind == "bond":
        return _bond(link, host, details.get(name, {}), cards)
    parent = host.link_by_index(link.peer_index) if link.peer_index is not None and link.peer_netnsid is None else None
    tag, protocol = details.get(name, {}).get("id"), str(details.get(name, {}).get("protocol") or "802.1Q")
    if parent is None or not isinstance(tag, int):
        raise StackImpossible(f"{name} is a VLAN whose id and parent are not known")
    below: tuple[MadeLink, ...] = ()
    below_cards: tuple[str, ...] = (parent.name,)
    note = None
    if parent.kind == "bond":
        bond = _bond(parent, host, details.get(parent.name, {}), cards)
        below_cards, below, note = bond.cards, bond.links, bond.note
    elif parent.name not in cards:
        raise StackImpossible(
            f"{name} is a VLAN on {parent.name} ({parent.kind}), and the copy has them on cards and bonds"
        )
    add = ("ip", "link", "add", "link", parent.name, "name", name, "type", "vlan", "protocol", protocol, "id", str(tag))
    made = MadeLink(name, f"{name} (VLAN {tag} on {parent.name})", (add,))
    return StackedUplink(name, below_cards, tag, protocol, (*below, made), note)


def _bond(link: Link, host: NetworkState, details: Mapping[str, object], cards: Collection[str]) -> StackedUplink:
    name, mode = link.name, str(details.get("mode") or "an unknown mode")
    slaves = tuple(other.name for other in host.links if other.master == name)
    if not slaves or not set(slaves) <= set(cards):
        raise StackImpossible(
            f"{name} is a bond of {', '.join(slaves) or 'nothing'}, and the copy has bonds of cards only"
        )
    note = None
    if mode == LACP:
        note = f"{name}: no switch speaks LACP with the copy, so that one of its cards carries all packets"
    elif mode not in BY_ANY_SWITCH:
        raise StackImpossible(f"{name} is a bond in mode {mode}, which needs a switch that is set up for it")
    interval = details.get("miimon")
    monitor = ("miimon", str(interval)) if isinstance(interval, int) and interval else ()
    commands = [("ip", "link", "add", name, "type", "bond", "mode", mode, *monitor)]
    commands += [argv for slave in slaves for argv in enslaving(slave, name)]
    made = MadeLink(name, f"{name} (bond of {', '.join(slaves)}, {mode})", tuple(commands), slaves)
    return StackedUplink(name, slaves, None, "", (made,), note)


def enslaving(slave: str, bond: str) -> tuple[tuple[str, ...], ...]:
    """Return the commands that put a card into a bond, which takes no interface that is up."""
    dev = ("ip", "link", "set", "dev", slave)
    return (*dev, "down"), (*dev, "master", bond), (*dev, "up")


def missing_links(booted: NetworkState, made: Iterable[MadeLink]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the VLANs and bonds that are not there, and the cards that are not in their bond, each with a command."""
    masters = {link.name: link.master for link in booted.links}
    for link in made:
        if link.name not in masters:
            yield from ((link.text, argv) for argv in link.commands)
            continue
        for slave in link.slaves:
            if masters.get(slave) != link.name:
                yield from ((f"{slave} in {link.name}", argv) for argv in enslaving(slave, link.name))


def as_cards(host: NetworkState) -> NetworkState:
    """Return a host whose VLANs and bonds are cards: a cable that leads to its gateway can be described for each."""
    bonds = {link.name for link in host.links if link.kind == "bond"}

    def as_card(link: Link) -> Link:
        return replace(
            link,
            kind=None if link.kind in MADE else link.kind,
            peer_index=None if link.kind in MADE else link.peer_index,
            master=None if link.master in bonds else link.master,
        )

    return replace(host, links=tuple(map(as_card, host.links)))


def switches_for(stacks: Iterable[StackedUplink], cables: Collection[Cable], host: NetworkState) -> Iterator[Switch]:
    """Yield a switch for each group of cards that uplinks are made of.

    Args:
        stacks: those uplinks.
        cables: that lead from the host to its gateways and to open ends, those of the stacked uplinks among them.
        host: the host's state.
    """
    groups: dict[tuple[str, ...], list[StackedUplink]] = {}
    for stack in stacks:
        groups.setdefault(stack.cards, []).append(stack)
    by_interface = {cable.interface: cable for cable in cables if cable.machine == HOST}
    for number, (cards, uplinks) in enumerate(groups.items()):
        ports = _Ports(f"switch-{cards[0]}", _INDEXES + 1000 * number, host)
        for card in cards:
            ports.to_card(card)
            if by_interface[card].other_interface == GATEWAY_PORT:
                # The card is an uplink itself, without a tag.
                ports.to_gateway(card, by_interface[card], None, "")
        for uplink in uplinks:
            ports.to_gateway(uplink.name, by_interface[uplink.name], uplink.tag, uplink.protocol)
        yield ports.switch()


@dataclass(slots=True)
class _Ports:
    """The ports of a switch while they are described."""

    name: str
    index: int
    host: NetworkState
    links: list[Link] = field(default_factory=list)
    cables: list[Cable] = field(default_factory=list)
    commands: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._add(_WIRE, "bridge")

    def to_card(self, card: str) -> None:
        port = self._add(f"card{len(self.links)}", "veth", card, _WIRE)
        self.cables.append(Cable(HOST, card, self.name, port))

    def to_gateway(self, uplink: str, cable: Cable, tag: int | None, protocol: str) -> None:
        segment = _WIRE
        if tag is not None:
            segment = self._add(f"lan{len(self.links)}", "bridge")
            tagged = f"{_WIRE}.{tag}"
            self.commands += [
                (
                    "ip",
                    "link",
                    "add",
                    "link",
                    _WIRE,
                    "name",
                    tagged,
                    "type",
                    "vlan",
                    "protocol",
                    protocol,
                    "id",
                    str(tag),
                ),
                ("ip", "link", "set", "dev", tagged, "master", segment, "up"),
            ]
        port = self._add(f"gw{len(self.links)}", "veth", uplink, segment)
        self.cables.append(Cable(self.name, port, cable.other_machine, cable.other_interface))

    def _add(self, name: str, kind: str, like: str | None = None, master: str | None = None) -> str:
        original = self.host.link(like) if like is not None else None
        mtu = original.mtu if original is not None else 1500
        index = self.index + len(self.links) + 1
        self.links.append(Link(index=index, name=name, kind=kind, flags=("UP",), mtu=mtu, master=master))
        return name

    def switch(self) -> Switch:
        machine = Machine(self.name, NetworkState(links=tuple(self.links)))
        return Switch(machine, tuple(self.cables), tuple(self.commands))
