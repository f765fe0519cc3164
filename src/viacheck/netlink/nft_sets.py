"""Sets and maps of nftables with their elements, the two ends of an interval put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from viacheck.netlink.codec import MalformedMessage, as_string, attribute_table, attributes
from viacheck.netlink.nfnetlink import as_number
from viacheck.netlink.nft_expressions import NftVerdict, decode_fields

_SET_ANONYMOUS, _SET_INTERVAL, _SET_CONCAT = 1, 4, 0x80
_INTERVAL_END, _CATCHALL = 1, 2
_LONGEST_KEY = 64
"""NFT_DATA_VALUE_MAXLEN."""


@dataclass(frozen=True, slots=True)
class SetElement:
    """One element: a value or an interval, and for a verdict map the verdict."""

    key: bytes
    end: bytes | None = None
    """The last value of the interval."""
    verdict: NftVerdict | None = None
    data: bytes | None = None
    """The value that a map has for it."""
    catchall: bool = False
    """The element stands for every value that no other element holds."""


@dataclass(frozen=True, slots=True)
class SetDescription:
    """A set without its elements (NFTA_SET_*)."""

    table: str
    name: str
    flags: int
    key_length: int

    @classmethod
    def decode(cls, body: bytes) -> SetDescription:
        """Decode one object of a dump of sets.

        Raises:
            MalformedMessage: when the set has no name, or its key is longer than a register.
        """
        parts = attribute_table(body)
        if not {1, 2} <= parts.keys():
            raise MalformedMessage("a set without a name")
        length = as_number(parts.get(5, b""))
        if length > _LONGEST_KEY:
            raise MalformedMessage(f"a set with a key of {length} octets")
        return cls(as_string(parts[1]), as_string(parts[2]), as_number(parts.get(3, b"")), length)

    @property
    def anonymous(self) -> bool:
        """The set is a part of one rule, which nft prints with the elements."""
        return bool(self.flags & _SET_ANONYMOUS)

    @property
    def holds_ranges_of_fields(self) -> bool:
        """The elements are ranges of several fields, and each says where it ends."""
        return bool(self.flags & _SET_CONCAT)


@dataclass(frozen=True, slots=True)
class NftSet:
    """A set or map, with the elements that it held."""

    description: SetDescription
    elements: tuple[SetElement, ...]

    @property
    def values(self) -> tuple[SetElement, ...]:
        """The elements that name a value or an interval."""
        return tuple(element for element in self.elements if not element.catchall)

    @property
    def catchall(self) -> SetElement | None:
        """The element for every other value."""
        return next((element for element in self.elements if element.catchall), None)


@dataclass(frozen=True, slots=True)
class _DumpedElement:
    key: bytes
    flags: int
    end: bytes | None
    verdict: NftVerdict | None
    data: bytes | None


def decode_set(description: SetDescription, bodies: Iterable[bytes]) -> NftSet:
    """Decode the elements of a set from the objects of a dump.

    Raises:
        MalformedMessage: when a length does not fit.
    """
    dumped = [_element(element) for body in bodies for _, element in attributes(attribute_table(body).get(3, b""))]
    return NftSet(description, tuple(_joined(dumped, description)))


def _element(octets: bytes) -> _DumpedElement:
    parts = attribute_table(octets)
    value = attribute_table(parts.get(2, b""))
    verdict = value.get(2)
    return _DumpedElement(
        key=attribute_table(parts.get(1, b"")).get(1, b""),
        flags=as_number(parts.get(3, b"")),
        end=attribute_table(parts[10]).get(1) if 10 in parts else None,
        verdict=decode_fields(NftVerdict, verdict) if verdict is not None else None,
        data=value.get(1),
    )


def _joined(dumped: list[_DumpedElement], description: SetDescription) -> Iterator[SetElement]:
    """Put the two ends of each interval together; the dumped end is the first key outside the interval."""
    for element in dumped:
        if element.flags & _CATCHALL:
            yield SetElement(b"", None, element.verdict, element.data, catchall=True)
    plain = [element for element in dumped if not element.flags & _CATCHALL]
    if not description.holds_ranges_of_fields:
        # Ranges of several fields may overlap: the first one that holds a packet decides, in the order of the dump.
        plain.sort(key=lambda element: (element.key, -element.flags))
    for position, element in enumerate(plain):
        if element.flags & _INTERVAL_END:
            continue
        end = element.end
        if description.flags & _SET_INTERVAL and end is None and not description.holds_ranges_of_fields:
            following = plain[position + 1].key if position + 1 < len(plain) else None
            end = _before(following, description.key_length)
        yield SetElement(element.key, end, element.verdict, element.data)


def _before(key: bytes | None, length: int) -> bytes:
    """Return the value before a key; without a key the highest value."""
    highest = (1 << 8 * length) - 1
    last = int.from_bytes(key, "big") - 1 if key else highest
    if not 0 <= last <= highest:
        raise MalformedMessage("an interval whose end is not a value of the set")
    return last.to_bytes(length, "big")
