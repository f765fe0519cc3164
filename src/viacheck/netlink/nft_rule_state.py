"""What is known of a rule of nftables while its expressions are read, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from viacheck.model.filter_chains import FilterMatch
from viacheck.netlink.nft_conditions import InterfaceName, condition, values_text
from viacheck.netlink.nft_packet_fields import PacketField, unknown_field
from viacheck.netlink.nft_sets import NftSet


@dataclass(frozen=True, slots=True)
class Alternative:
    """What a rule does to the packets that one entry of a map is about."""

    match: FilterMatch
    verdict: str | None = None
    argument: str | None = None
    set_mark: str | None = None
    set_ctmark: str | None = None


@dataclass(frozen=True, slots=True)
class MappedData:
    """The data that a map puts into a register."""

    text: str
    """The key and ``map``, as nft prints them."""
    name: str | None
    """None for a map that is a part of the rule."""
    entries: tuple[tuple[FilterMatch, bytes], ...]
    """For each entry the condition of its key, and its data."""

    def text_with(self, data: Iterable[str]) -> str:
        """Return the map as nft prints it, with its data as text."""
        if self.name is not None:
            return f"{self.text} @{self.name}"
        keys = (values_text(match) for match, _ in self.entries)
        return f"{self.text} {{ {', '.join(f'{key} : {value}' for key, value in zip(keys, data, strict=False))} }}"

    @property
    def is_drawn(self) -> bool:
        """Whether the key is drawn at random or by a hash."""
        return any(match.field == "random" for match, _ in self.entries)


FindSet = Callable[[str], NftSet | None]
"""Returns a set of the rule's table by its name."""


@dataclass(slots=True)
class RuleState:
    """What is known of a rule while its expressions are read."""

    version: int | None
    """The IP version that the rule is about so far."""
    name_of: InterfaceName
    find_set: FindSet
    fields: dict[int, PacketField] = field(default_factory=dict)
    """The field of the packet in each register."""
    constants: dict[int, bytes] = field(default_factory=dict)
    """The constant in each register."""
    mapped: dict[int, MappedData] = field(default_factory=dict)
    """The data of a map in each register."""
    matches: list[FilterMatch] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    """The rule as nft prints it, part by part."""
    alternatives: list[Alternative] = field(default_factory=list)
    """The entries of a map."""
    verdict: str | None = None
    argument: str | None = None
    set_mark: str | None = None
    set_ctmark: str | None = None
    untracks: bool = False
    set_ttl: str | None = None
    packets: int | None = None
    octets: int | None = None
    bound: tuple[int, bytes, int] | None = None
    """The latest lower bound: the register, the constant, and how many conditions there were with it."""
    xtables: bool = False
    """The rule holds a match or a target of iptables."""

    def load(self, register: int, loaded: PacketField | None) -> None:
        """Put a field of the packet into a register; None for a value that is no field."""
        self.constants.pop(register, None)
        self.mapped.pop(register, None)
        self.bound = None
        if loaded is None:
            self.fields.pop(register, None)
        else:
            self.fields[register] = loaded

    def match(self, match: FilterMatch, text: str) -> None:
        """Add a condition."""
        self.matches.append(match)
        if text:
            self.parts.append(text)

    def unknown(self, text: str) -> None:
        """Add a condition that cannot be evaluated."""
        self.match(condition(None, None, text), text)

    def decide(self, verdict: str, argument: str | None = None, text: str | None = None) -> None:
        """Set what the rule decides."""
        self.verdict, self.argument = verdict, argument
        self.parts.append(text or " ".join(filter(None, (verdict, argument))))

    def field_in(self, register: int, constant: bytes) -> PacketField:
        """Return the field in a register that is compared with a constant."""
        return self.fields.get(register) or unknown_field("?", len(constant))

    def lower_bound(self, register: int) -> bytes | None:
        """Return the lower bound of a register if it is the latest condition."""
        if self.bound is None:
            return None
        bounded, constant, conditions = self.bound
        return constant if bounded == register and conditions == len(self.matches) else None

    def last_protocol(self) -> FilterMatch | None:
        """Return the latest condition on the protocol, which says what the transport header is."""
        return next((match for match in reversed(self.matches) if match.field == "protocol"), None)
