"""The part of a namespace's state that ip(8) prints, read in the same way on a live host and from a bundle.

The commands are part of the contract with ``collect.sh``, which records their output under the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from viacheck.model.address_family import Family
from viacheck.model.namespace_state import Neighbour, NetworkState
from viacheck.model.snapshot import StateSubject
from viacheck.parsers import iproute

T = TypeVar("T")
IP = ("ip", "-N", "-j")
"""The beginning of every command: numbers instead of names, JSON."""
_FAMILIES: tuple[Family, ...] = (4, 6)
_RULES = {family: partial(iproute.parse_rules, family=family) for family in _FAMILIES}
_ROUTES = {family: partial(iproute.parse_routes, family=family) for family in _FAMILIES}
_NEIGHBOURS = {family: partial(iproute.parse_neighbours, family=family) for family in _FAMILIES}


class ReadIp(Protocol):
    """Runs one ``ip`` command, or finds its recorded output, and parses it."""

    def __call__(self, subject: StateSubject, arguments: str, parse: Callable[[str], tuple[T, ...]]) -> tuple[T, ...]:
        """Return the parsed objects; empty when there is no output to parse, which the reader keeps as a problem.

        Args:
            subject: the part of the state, as problems name it.
            arguments: after :data:`IP`.
            parse: raises :class:`iproute.ParseError` for output that is not ip's.
        """


def read_network_state(read: ReadIp) -> NetworkState:
    """Return links, addresses, rules, routes and neighbours; sysctls and packet filter are for the caller to add."""
    return NetworkState(
        links=read("links", "-d link show", iproute.parse_links),
        addresses=read("addresses", "-d address show", iproute.parse_addresses),
        rules=(
            *read("rules", "-4 rule show", _RULES[4]),
            *read("rules6", "-6 rule show", _RULES[6]),
        ),
        routes=(
            *read("routes", "-d -4 route show table all", _ROUTES[4]),
            *read("routes6", "-d -6 route show table all", _ROUTES[6]),
        ),
        neighbours=read_neighbours(read),
    )


def read_neighbours(read: ReadIp) -> tuple[Neighbour, ...]:
    """Return the neighbour table of both families."""
    return (
        *read("neighbours", "-4 neigh show", _NEIGHBOURS[4]),
        *read("neighbours6", "-6 neigh show", _NEIGHBOURS[6]),
    )
