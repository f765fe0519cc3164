"""Routes as a saved snapshot has them: many in a row that differ by their destination alone are one entry.

A host that has learned 100,000 routes from a router has few gateways. With a list of destinations for each of them its
result.json is a tenth as large.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import Any

from pydantic import TypeAdapter

from viacheck.model.route import Route

GROUPED_FROM = 100
"""Routes in a row that are saved as one entry; fewer have an entry each."""
DESTINATION, DESTINATIONS = "destination", "destinations"
_ALL_BUT_DESTINATION = attrgetter(*(field.name for field in fields(Route) if field.name != DESTINATION))


@cache
def _adapter() -> TypeAdapter[list[Route]]:
    return TypeAdapter(list[Route])


def routes_json(routes: Iterable[Route]) -> list[dict[str, Any]]:
    """Return the entries of routes, in their order, with the values that differ from their defaults."""
    entries: list[dict[str, Any]] = []
    single: list[Route] = []
    for _, run in groupby(routes, _ALL_BUT_DESTINATION):
        alike = list(run)
        if len(alike) < GROUPED_FROM:
            single += alike
            continue
        entries += _entries(single)
        single.clear()
        (entry,) = _entries(alike[:1])
        del entry[DESTINATION]
        entries.append({**entry, DESTINATIONS: [route.destination for route in alike]})
    return entries + _entries(single)


def _entries(routes: list[Route]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = _adapter().dump_python(routes, mode="json", exclude_defaults=True)
    return entries


def destinations_of(entry: Any) -> list[Any] | None:
    """Return the destinations of an entry of many routes; None for any other entry."""
    destinations = entry.get(DESTINATIONS) if isinstance(entry, dict) else None
    return destinations if isinstance(destinations, list) else None


def count_of(saved: Sequence[Any]) -> int:
    """Return the number of saved routes."""
    return sum(1 if (destinations := destinations_of(entry)) is None else len(destinations) for entry in saved)


def routes_to(saved: Any, destination: str) -> list[dict[str, Any]]:
    """Return the saved routes to a destination, without a look at each route of an entry of many."""
    routes: list[dict[str, Any]] = []
    for entry in saved if isinstance(saved, list | tuple) else ():
        destinations = destinations_of(entry)
        if destinations is not None:
            routes += [{**_alike(entry), DESTINATION: destination}] * destinations.count(destination)
        elif entry.get(DESTINATION) == destination:
            routes.append(entry)
    return routes


def _alike(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != DESTINATIONS}


def each_route(saved: Any) -> Iterator[Any]:
    """Yield an entry for each route of saved ones; what is not such a list is yielded as it is, for its reader."""
    for entry in saved if isinstance(saved, list | tuple) else ():
        destinations = destinations_of(entry)
        if destinations is None:
            yield entry
            continue
        alike = _alike(entry)
        for destination in destinations:
            yield {**alike, DESTINATION: destination}
