"""The rules of a long chain that a packet may match, in order, without a look at each.

kube-proxy writes a rule for each address of a service, and a packet meets thousands of them for its own one. A rule is
left out only where its condition on an address or a port cannot hold, so that the walk is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

from viacheck.analysis.packet_filter.conditions import NUMBERS_WITH_PORTS, FilteredPacket, address_number
from viacheck.analysis.routing.identity import SameTuple
from viacheck.analysis.routing.table import BITS, mask, read_prefix
from viacheck.model.address_family import Family
from viacheck.model.filter_chains import FilterChain, FilterRule

SHORTEST = 256
"""Rules of a chain that is worth an index."""
_Place = tuple[str, Family | Literal[0], int]
"""A field, its IP version and prefix length; for a port, both are 0."""


class ChainIndex:
    """The places of a chain's rules, by the address or port that each needs."""

    def __init__(self, rules: Sequence[FilterRule]) -> None:
        """Look at each rule once."""
        self._rules = rules
        self._needing: dict[_Place, dict[int, list[int]]] = {}
        self._others: list[int] = []
        """The rules without such a condition."""
        for number, rule in enumerate(rules):
            needed = _needed(rule)
            if needed is None:
                self._others.append(number)
            else:
                place, value = needed
                self._needing.setdefault(place, {}).setdefault(value, []).append(number)

    def rules(self, packet: FilteredPacket) -> Iterable[FilterRule]:
        """Return the rules that the packet may match, in the chain's order."""
        numbers = list(self._others)
        for (field, version, length), by_value in self._needing.items():
            if version:
                of_packet, address = address_number(packet.source if field == "source" else packet.destination)
                if of_packet == version:
                    host_bits = BITS[version] - length
                    numbers += by_value.get(address >> host_bits << host_bits, ())
                continue
            port = packet.sport if field == "sport" else packet.dport
            if packet.protocol is None or (packet.protocol in NUMBERS_WITH_PORTS and port is None):
                # Such a condition is unknown, which the walk must see.
                numbers += (number for several in by_value.values() for number in several)
            elif packet.protocol in NUMBERS_WITH_PORTS:
                numbers += by_value.get(port or 0, ())
        return (self._rules[number] for number in sorted(numbers))


def rules_to_evaluate(chain: FilterChain, packet: FilteredPacket) -> Iterable[FilterRule]:
    """Return the rules of a chain that a packet may match, in order: all of them where the chain is short."""
    return chain.rules if len(chain.rules) < SHORTEST else _index_of(SameTuple(chain.rules)).rules(packet)


@lru_cache(maxsize=64)
def _index_of(rules: SameTuple[FilterRule]) -> ChainIndex:
    """Return the index of a chain's rules; it is kept for the chains that were walked last."""
    return ChainIndex(rules.entries)


def _needed(rule: FilterRule) -> tuple[_Place, int] | None:
    """Return the place and the value that a rule needs of a packet, by its first such condition; None without one."""
    for match in rule.matches:
        if match.negated or len(match.values) != 1:
            continue
        value = match.values[0]
        if match.field in ("source", "destination"):
            family: Family = 6 if ":" in value else 4
            try:
                address, length = read_prefix(value, family)
                network = address & mask(length, BITS[family])
            except (OSError, ValueError):
                # Not a prefix: the walk comes upon it.
                continue
            return (match.field, family, length), network
        if match.field in ("sport", "dport") and value.isdigit():
            return (match.field, 0, 0), int(value)
    return None
