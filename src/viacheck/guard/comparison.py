"""A saved state beside the state of this moment: what is no longer so, and what is none of our business.

Put back is what the change could have caused: everything of its interfaces and tables, and every rule that is gone.
What somebody else did meanwhile is told as a foreign change and left alone: other interfaces and tables, a rule added
for another table, and on the interfaces themselves what a living owner keeps there, that is addresses with a lifetime
(a lease, SLAAC) and routes that a DHCP client or a routing daemon signed with its protocol.
"""

from __future__ import annotations

from functools import cached_property

from viacheck.guard.saved_state import LinkState, NetworkState, SavedState
from viacheck.netlink.route_message import KernelRoute

OWNED_PROTOCOLS = frozenset({8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 42, 99, 186, 187, 188, 189, 192})
"""RTPROT_* of linux/rtnetlink.h that name a living owner: router advertisements, DHCP clients, routing daemons."""
TABLES_OF_ALL = frozenset({0, 253, 254, 255})
"""unspec, default, main, local: every packet passes them, so they belong to no change."""


class InterfaceGone(Exception):
    """What is to be put back belongs to an interface that is no longer there."""


class Comparison:
    """Both states, and how the interfaces of the one are found in the other.

    Attributes:
        saved: what was.
        now: what is.
        elapsed: seconds between them.
        old_names: names by index, as saved.
        new_names: names by index as of now, renamed interfaces under the name that they were saved with.
        index: indexes of now by those names.
        interfaces: names of the interfaces that the change is about.
    """

    def __init__(self, saved: SavedState, now: NetworkState) -> None:
        self.saved, self.now = saved, now
        self.elapsed = saved.elapsed()
        self.old_names = {link.index: link.name for link in saved.links}
        self.new_names = {link.index: self._saved_name(link) for link in now.links}
        self.index = {name: index for index, name in self.new_names.items()}
        self.interfaces = frozenset(saved.interfaces)

    def _saved_name(self, link: LinkState) -> str:
        old = self.old_names.get(link.index)
        if old is None or link.name in self.old_names.values():
            return link.name
        taken = any(other.name == old for other in self.now.links)
        return link.name if taken else old

    def today(self, index: int, names: dict[int, str]) -> int:
        """The index that an interface has now.

        Raises:
            InterfaceGone: when there is no such interface any more.
        """
        name = names.get(index, str(index))
        if name not in self.index:
            raise InterfaceGone(name)
        return self.index[name]

    @cached_property
    def links(self) -> dict[str, LinkState]:
        """Today's interfaces by the name that they were saved with."""
        return {self.new_names[link.index]: link for link in self.now.links}

    @cached_property
    def same_names(self) -> bool:
        """Every interface has the index and the name that it had."""
        return self.old_names == self.new_names

    @cached_property
    def old_routes(self) -> list[KernelRoute]:
        """The routes as saved."""
        return [KernelRoute(message, self.old_names) for message in self.saved.routes]

    @cached_property
    def new_routes(self) -> list[KernelRoute]:
        """The routes of now."""
        return [KernelRoute(message, self.new_names) for message in self.now.routes]

    @cached_property
    def own_tables(self) -> frozenset[int]:
        """Tables that the change is about: those it names, and those with a way by its interfaces."""
        apart = [route for route in (*self.old_routes, *self.new_routes) if route.table not in TABLES_OF_ALL]
        tables = {route.table for route in apart if not route.interfaces.isdisjoint(self.interfaces)}
        return frozenset(tables | set(self.saved.tables)) - TABLES_OF_ALL
