"""The expressions that the kernel keeps a rule as, decoded by field tables: attribute number, reader, name.

Each class is one expression of linux/netfilter/nf_tables.h, and each of its fields is one attribute. A field whose
attribute is absent has its default. What the expressions mean together is the work of
:mod:`viacheck.netlink.nft_rule`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

from viacheck.netlink.codec import MalformedMessage, as_string, attribute_table, attributes
from viacheck.netlink.nfnetlink import as_number

T = TypeVar("T")

VERDICTS = {0: "drop", 1: "accept", 3: "queue", -3: "jump", -4: "goto", -5: "return"}
_NESTED_CONSTANT, _NESTED_VERDICT = 1, 2


def _field(number: int, read: Callable[[bytes], T], default: T) -> T:
    """Declare the attribute that a field is read from."""
    declared: T = dataclasses.field(default=default, metadata={"number": number, "read": read})
    return declared


def decode_fields(kind: type[T], octets: bytes) -> T:
    """Decode the attributes in a run of octets into the fields of a class that declares them.

    Raises:
        MalformedMessage: when an attribute's length does not fit.
    """
    table = attribute_table(octets)
    fields = _declared(cast(Hashable, kind))
    return kind(**{name: read(table[number]) for name, number, read in fields if number in table})


@cache
def _declared(kind: Hashable) -> tuple[tuple[str, int, Callable[[bytes], Any]], ...]:
    fields = dataclasses.fields(cast(Any, kind))
    return tuple((field.name, field.metadata["number"], field.metadata["read"]) for field in fields)


def _register(value: bytes) -> int:
    """Return a register's offset in 32-bit steps: the kernel has names for 128-bit and for 32-bit registers."""
    position = as_number(value)
    return position * 4 if position <= 4 else position - 4


def _signed(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


def _octets(value: bytes) -> bytes:
    return value


def _constant(value: bytes) -> bytes:
    return attribute_table(value).get(_NESTED_CONSTANT, b"")


@dataclass(frozen=True, slots=True)
class NftVerdict:
    """A verdict (NFTA_VERDICT_*)."""

    code: int = _field(1, _signed, 0)
    chain: str | None = _field(2, as_string, None)

    @property
    def name(self) -> str | None:
        """The verdict's name in nft; None for a code that has no name."""
        return VERDICTS.get(self.code if self.code < 0 else self.code & 0xFF)


def _verdict(value: bytes) -> NftVerdict:
    return decode_fields(NftVerdict, value)


@dataclass(frozen=True, slots=True)
class NftData:
    """A constant or a verdict (NFTA_DATA_*)."""

    constant: bytes = _field(_NESTED_CONSTANT, _octets, b"")
    verdict: NftVerdict | None = _field(_NESTED_VERDICT, _verdict, None)  # noqa: RUF009 - as dataclasses.field


_NO_DATA = NftData()


def _data(value: bytes) -> NftData:
    return decode_fields(NftData, value)


@dataclass(frozen=True, slots=True)
class BitwiseExpression:
    """``register & mask ^ xor``, or another operation on a register."""

    source: int = _field(1, _register, 0)
    target: int = _field(2, _register, 0)
    mask: bytes | None = _field(4, _constant, None)
    xor: bytes = _field(5, _constant, b"")
    operation: int = _field(6, as_number, 0)


@dataclass(frozen=True, slots=True)
class ByteorderExpression:
    """Swap the byte order of a register."""

    source: int = _field(1, _register, 0)
    target: int = _field(2, _register, 0)


@dataclass(frozen=True, slots=True)
class CmpExpression:
    """Compare a register with a constant."""

    source: int = _field(1, _register, 0)
    operator: int = _field(2, as_number, 0)
    constant: bytes = _field(3, _constant, b"")


@dataclass(frozen=True, slots=True)
class CounterExpression:
    """Count packets and octets."""

    octets: int = _field(1, as_number, 0)
    packets: int = _field(2, as_number, 0)


@dataclass(frozen=True, slots=True)
class CtExpression:
    """Load what conntrack knows of the packet, or set it."""

    target: int | None = _field(1, _register, None)
    key: int = _field(2, as_number, 0)
    source: int = _field(4, _register, 0)


@dataclass(frozen=True, slots=True)
class DupExpression:
    """Send a copy of the packet by another device."""

    address: int = _field(1, _register, 0)
    device: int | None = _field(2, _register, None)


@dataclass(frozen=True, slots=True)
class FibExpression:
    """Look an address up in the routing tables (``fib``)."""

    target: int = _field(1, _register, 0)
    result: int = _field(2, as_number, 0)
    flags: int = _field(3, as_number, 0)


HASH_SYMMETRIC = 1
"""NFT_HASH_SYM: a hash of the flow that is the same in both directions (``symhash``)."""


@dataclass(frozen=True, slots=True)
class HashExpression:
    """Load a hash of some fields, or of the flow, up to a modulus."""

    source: int = _field(1, _register, 0)
    target: int = _field(2, _register, 0)
    length: int = _field(3, as_number, 0)
    modulus: int = _field(4, as_number, 0)
    offset: int = _field(6, as_number, 0)
    kind: int = _field(7, as_number, 0)


@dataclass(frozen=True, slots=True)
class ImmediateExpression:
    """Load a constant, or decide."""

    target: int = _field(1, _register, 0)
    data: NftData = _field(2, _data, _NO_DATA)  # noqa: RUF009 - as dataclasses.field


@dataclass(frozen=True, slots=True)
class LookupExpression:
    """Look a register up in a set, or in a map."""

    set_name: str = _field(1, as_string, "")
    source: int = _field(2, _register, 0)
    target: int | None = _field(3, _register, None)
    flags: int = _field(5, as_number, 0)

    @property
    def inverted(self) -> bool:
        """The condition is that the set does not hold the register."""
        return bool(self.flags & 1)


@dataclass(frozen=True, slots=True)
class MasqExpression:
    """Translate the source to the address of the outgoing interface."""


@dataclass(frozen=True, slots=True)
class MetaExpression:
    """Load what the kernel knows of the packet beside its octets, or set it."""

    target: int = _field(1, _register, 0)
    key: int = _field(2, as_number, 0)
    source: int | None = _field(3, _register, None)


@dataclass(frozen=True, slots=True)
class NatExpression:
    """Translate the source or the destination."""

    kind: int = _field(1, as_number, 0)
    first_address: int | None = _field(3, _register, None)
    last_address: int | None = _field(4, _register, None)
    first_port: int | None = _field(5, _register, None)


@dataclass(frozen=True, slots=True)
class NumgenExpression:
    """Load a number up to a modulus: a random one, or one more for each packet (NFTA_NG_*)."""

    target: int = _field(1, _register, 0)
    modulus: int = _field(2, as_number, 0)
    kind: int = _field(3, as_number, 0)
    offset: int = _field(4, as_number, 0)


@dataclass(frozen=True, slots=True)
class PayloadExpression:
    """Load octets of the packet, or set them (without ``target``)."""

    target: int | None = _field(1, _register, None)
    base: int = _field(2, as_number, 0)
    offset: int = _field(3, as_number, 0)
    length: int = _field(4, as_number, 0)
    source: int = _field(5, _register, 0)


@dataclass(frozen=True, slots=True)
class QueueExpression:
    """Hand the packet to a program."""


@dataclass(frozen=True, slots=True)
class RangeExpression:
    """Compare a register with two bounds, both included."""

    source: int = _field(1, _register, 0)
    operator: int = _field(2, as_number, 0)
    first: bytes = _field(3, _constant, b"")
    last: bytes = _field(4, _constant, b"")


@dataclass(frozen=True, slots=True)
class RedirExpression:
    """Translate the destination to this host."""


LIMIT_INVERTED = 1
"""NFT_LIMIT_F_INV: the condition holds over the rate."""


@dataclass(frozen=True, slots=True)
class LimitExpression:
    """Match up to a rate, or over it."""

    flags: int = _field(5, as_number, 0)


_ICMPX_CODES = {0: "no-route", 1: "port-unreachable", 2: "host-unreachable", 3: "admin-prohibited"}
"""NFT_REJECT_ICMPX_*, by the names of nft."""
_REJECT_RESET, _REJECT_ICMPX = 1, 2


@dataclass(frozen=True, slots=True)
class RejectExpression:
    """Refuse the packet with an error."""

    kind: int = _field(1, as_number, 0)
    code: int = _field(2, as_number, 0)


def reject_text(reject: RejectExpression) -> str:
    """Return the error of a reject as nft prints it; empty for an error of one address family, whose names differ."""
    if reject.kind == _REJECT_RESET:
        return " with tcp reset"
    if reject.kind == _REJECT_ICMPX:
        return f" with icmpx {_ICMPX_CODES.get(reject.code, reject.code)}"
    return ""


@dataclass(frozen=True, slots=True)
class MatchExpression:
    """A match of iptables, whose layout is private to it."""

    name: str = _field(1, as_string, "")
    revision: int = _field(2, as_number, 0)
    blob: bytes = _field(3, _octets, b"")


@dataclass(frozen=True, slots=True)
class TargetExpression:
    """A target of iptables, whose layout is private to it."""

    name: str = _field(1, as_string, "")
    revision: int = _field(2, as_number, 0)
    blob: bytes = _field(3, _octets, b"")


@dataclass(frozen=True, slots=True)
class OtherExpression:
    """An expression that this reader does not know."""

    name: str


Expression = (
    BitwiseExpression | ByteorderExpression | CmpExpression | CounterExpression | CtExpression | DupExpression
    | FibExpression | HashExpression | ImmediateExpression | LimitExpression | LookupExpression | MasqExpression
    | MetaExpression | NatExpression | NumgenExpression | PayloadExpression | QueueExpression | RangeExpression
    | RedirExpression | RejectExpression | MatchExpression | TargetExpression | OtherExpression
)  # fmt: skip

EXPRESSIONS: dict[str, type[Expression]] = {
    "bitwise": BitwiseExpression,
    "byteorder": ByteorderExpression,
    "cmp": CmpExpression,
    "counter": CounterExpression,
    "ct": CtExpression,
    "dup": DupExpression,
    "fib": FibExpression,
    "hash": HashExpression,
    "immediate": ImmediateExpression,
    "limit": LimitExpression,
    "lookup": LookupExpression,
    "masq": MasqExpression,
    "match": MatchExpression,
    "meta": MetaExpression,
    "nat": NatExpression,
    "numgen": NumgenExpression,
    "payload": PayloadExpression,
    "queue": QueueExpression,
    "range": RangeExpression,
    "redir": RedirExpression,
    "reject": RejectExpression,
    "target": TargetExpression,
}


def decode_expressions(octets: bytes) -> Iterator[Expression]:
    """Yield the expressions of one rule in order.

    Raises:
        MalformedMessage: when an expression has no name, or a length does not fit.
    """
    for _, body in attributes(octets):
        table = attribute_table(body)
        if 1 not in table:
            raise MalformedMessage("an expression without a name")
        name = as_string(table[1])
        kind = EXPRESSIONS.get(name)
        yield OtherExpression(name) if kind is None else decode_fields(kind, table.get(2, b""))
