"""Elements of sets that are made of several fields, as a condition ``set`` holds them: ``FIELD=VALUE FIELD=VALUE``.

Such sets are those of ipset with several parts, and the concatenations of nftables (nft(8), "CONCATENATIONS").
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from viacheck.model.filter_chains import FilterMatch

MOST_ALTERNATIVES = 4096
"""An element with more combinations of networks than these is not evaluated."""
PORTS_OF_ANY_PROTOCOL = {"th-sport": "sport", "th-dport": "dport"}
"""Ports that are read without a condition on the protocol (``th dport``), and the fields that they are in a protocol
with ports: in another protocol the same octets are something else."""
PROTOCOLS_WITH_PORTS = frozenset({"6", "17", "33", "132", "136"})
"""Their numbers: those whose header begins with the two ports."""


def element_values(parts: Sequence[tuple[str, Sequence[str]]]) -> tuple[str, ...] | None:
    """Return the values of a condition ``set`` that an element stands for.

    Args:
        parts: each field of the element with the values that it may have.

    Returns:
        One value for each combination; None for an element that no condition expresses.
    """
    protocols = [protocol for field, values in parts if field == "protocol" for protocol in values]
    named: list[list[str]] = []
    for field, values in parts:
        if field in PORTS_OF_ANY_PROTOCOL and not (protocols and PROTOCOLS_WITH_PORTS.issuperset(protocols)):
            return None
        named.append([f"{PORTS_OF_ANY_PROTOCOL.get(field, field)}={value}" for value in values])
    combinations = itertools.islice(itertools.product(*named), MOST_ALTERNATIVES + 1)
    texts = tuple(" ".join(chosen) for chosen in combinations)
    return texts if len(texts) <= MOST_ALTERNATIVES else None


def element_text(value: str) -> str:
    """Return a value of a condition ``set`` as nft prints it: ``10.0.0.1 . 6 . 443``."""
    parts = (part.partition("=") for part in value.split(" "))
    return " . ".join(_part_text(field, text) for field, _, text in parts)


def addresses_of(match: FilterMatch) -> Iterator[str]:
    """Yield the networks that a condition names, alone or as a part of an element of a set."""
    for value in match.values:
        parts = (
            [part.partition("=") for part in value.split(" ")] if match.field == "set" else [(match.field, "", value)]
        )
        yield from (network for field, _, network in parts if field in ("source", "destination"))


def is_about_marks(match: FilterMatch) -> bool:
    """Return whether a condition is about a mark, alone or as a part of an element of a set."""
    fields = {part.partition("=")[0] for value in match.values for part in value.split(" ")}
    return bool(({match.field} if match.field != "set" else fields) & {"mark", "ctmark"})


def _part_text(field: str, text: str) -> str:
    if field in ("iif", "oif"):
        return f'"{text}"'
    if field in ("source", "destination"):
        return text.removesuffix("/32").removesuffix("/128")
    return text
