"""A saved state beside the current state: which objects the change is about, and which belong to something else.

A restore covers everything that the change could have caused: every object of its interfaces and tables, and every rule
that is missing. A change that something else made meanwhile is reported as foreign and not touched: other interfaces
and tables, a rule added for another table, and on the change's interfaces the objects of a running program, which are
addresses with a lifetime (a lease, SLAAC) and routes with the protocol of a DHCP client or a routing daemon.

A change that runs no network manager, such as a link flap, adds nothing and sets nothing but a link up or down. Then
everything else that was added or set is foreign, on the change's interfaces and tables too, unless it repeats or
replaces a saved object, as a program does that reacts to the change.

What a person removed meanwhile is foreign too, as far as the watchdog saw it (:mod:`viacheck.guard.removals`).
"""

from __future__ import annotations

from functools import cached_property

from viacheck.guard.network_state import KernelState, LinkState
from viacheck.guard.removals import Removals
from viacheck.guard.saved_state import SavedState
from viacheck.netlink.route_message import KernelRoute
from viacheck.netlink.rtnetlink import RtnetlinkMessage

DAEMON_PROTOCOLS = frozenset({8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 42, 99, 186, 187, 188, 189, 192})
"""RTPROT_* of linux/rtnetlink.h that name a running program: router advertisements, DHCP clients, routing daemons."""
SHARED_TABLES = frozenset({0, 253, 254, 255})
"""unspec, default, main, local: every packet passes them, so they belong to no change."""


REMOVED_BY = "removed by"


class InterfaceGone(Exception):
    """An object to restore belongs to an interface that does not exist any more."""


class StateComparison:
    """Both states, with the interfaces of the saved state found in the current state.

    Attributes:
        saved: the saved state.
        current: the current state.
        elapsed: seconds between them.
        saved_names: names by index in the saved state.
        current_names: names by index in the current state; a renamed interface has its saved name.
        index: current indexes by those names.
        interfaces: names of the interfaces that the change is about.
    """

    def __init__(self, saved: SavedState, current: KernelState, removals: Removals) -> None:
        self.saved, self.current, self._removals = saved, current, removals
        self.elapsed = saved.elapsed()
        self.saved_names = {link.index: link.name for link in saved.links}
        self.current_names = {link.index: self._saved_name(link) for link in current.links}
        self.index = {name: index for index, name in self.current_names.items()}
        self.interfaces = frozenset(saved.interfaces)

    def _saved_name(self, link: LinkState) -> str:
        saved = self.saved_names.get(link.index)
        if saved is None or link.name in self.saved_names.values():
            return link.name
        taken = any(other.name == saved for other in self.current.links)
        return link.name if taken else saved

    def current_index(self, index: int, names: dict[int, str]) -> int:
        """Return the index that an interface has now, for its index in a state with these names.

        Raises:
            InterfaceGone: when the interface does not exist any more.
        """
        name = names.get(index, str(index))
        if name not in self.index:
            raise InterfaceGone(name)
        return self.index[name]

    def removed_by_person(self, message: RtnetlinkMessage) -> bool:
        """Return whether a person removed a saved object, which is missing now."""
        return self._removals.by_person(message, self.saved_names) is not None

    def person_text(self, message: RtnetlinkMessage) -> str:
        """Return who removed a saved object, to add to its text; empty unless a person did."""
        person = self._removals.by_person(message, self.saved_names)
        return f", {REMOVED_BY} {person} in another login session" if person is not None else ""

    def unclear(self, noun: str, text: str, message: RtnetlinkMessage) -> list[str]:
        """Return the line about a saved object that is restored although a program removed it, if one did.

        A change that runs a network manager has many programs that remove objects and end.
        """
        program = self._removals.by_program(message, self.saved_names) if not self.saved.reconfigures else None
        return [f"{noun}: {text}, {REMOVED_BY} {program}"] if program is not None else []

    @cached_property
    def links(self) -> dict[str, LinkState]:
        """Return the current interfaces by their saved names."""
        return {self.current_names[link.index]: link for link in self.current.links}

    @cached_property
    def same_names(self) -> bool:
        """Return whether every interface has its saved index and name."""
        return self.saved_names == self.current_names

    @cached_property
    def saved_routes(self) -> list[KernelRoute]:
        """Return the saved routes."""
        return [KernelRoute(message, self.saved_names) for message in self.saved.routes]

    @cached_property
    def current_routes(self) -> list[KernelRoute]:
        """Return the current routes."""
        return [KernelRoute(message, self.current_names) for message in self.current.routes]

    @cached_property
    def tables(self) -> frozenset[int]:
        """Return the tables that the change is about: the named ones, and those with a route by its interfaces."""
        routes = [route for route in (*self.saved_routes, *self.current_routes) if route.table not in SHARED_TABLES]
        tables = {route.table for route in routes if not route.interfaces.isdisjoint(self.interfaces)}
        return frozenset(tables | set(self.saved.tables)) - SHARED_TABLES
