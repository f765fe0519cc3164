"""Fields of the packet in the registers of a rule, and the conditions that a comparison with a constant makes of them.

The values are those of :class:`viacheck.model.filter_chains.FilterMatch`. A comparison that they cannot express has no
values (None), and the caller makes it the condition ``unknown``.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from viacheck.model.address_range import networks_between
from viacheck.model.filter_chains import PACKET_TYPES, FilterMatch
from viacheck.model.mark_change import ALL_BITS, mark_text
from viacheck.model.set_element import PORTS_OF_ANY_PROTOCOL, element_text
from viacheck.netlink.codec import as_string
from viacheck.netlink.nfnetlink import NftFamily
from viacheck.netlink.nft_packet_fields import PacketField, protocol_text

EQ, NEQ, LT, LTE, GT, GTE = range(6)
SIGNS = ("", "!= ", "< ", "<= ", "> ", ">= ")
"""nft's signs for the operators of ``cmp``, by number."""
IP_VERSIONS = {"nfproto": {int(NftFamily.IP): 4, int(NftFamily.IP6): 6}, "ethertype": {0x0800: 4, 0x86DD: 6}}
"""The IP version that a value of the field stands for."""
ADDRESS_TYPES = (
    "unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit",
)  # fmt: skip
"""RTN_* of rtnetlink(7), by number."""
CT_STATES = {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}
CT_STATUS = {
    1: "expected", 2: "seen-reply", 4: "assured", 8: "confirmed", 16: "snat", 32: "dnat", 512: "dying",
}  # fmt: skip
"""IPS_* of linux/netfilter/nf_conntrack_common.h, by the names of nft."""
CT_BITS = {"ctstate": CT_STATES, "ctstatus": CT_STATUS}
"""By field, the names of its bits."""
_ALL_FLAGS = 0xFF
_ADDRESSES = frozenset({"source", "destination"})
_PORTS = frozenset({"sport", "dport", *PORTS_OF_ANY_PROTOCOL})
_RANGES = _PORTS | {"ttl"}
_INTERFACES = frozenset({"iif", "oif"})

InterfaceName = Callable[[int], str]
"""Returns the name of an interface by its index."""
Values = tuple[str, ...]


def condition(key: PacketField | None, values: Values | None, text: str, *, negated: bool = False) -> FilterMatch:
    """Return the condition that a field has one of these values; ``text`` stands for it where it is unknown."""
    if key is None or values is None:
        return FilterMatch(field="unknown", values=(text,))
    return FilterMatch(field=key.field, values=values, negated=negated)


def values_equal(key: PacketField, octets: bytes, name_of: InterfaceName) -> Values | None:
    """Return the values that a field has when its register equals some octets; None for a field without values."""
    if key.xor:
        return None
    if key.field in _ADDRESSES:
        return _prefix(key, octets)
    if key.field in _INTERFACES:
        return _interface(key, octets, name_of)
    if key.field == "mac":
        return (octets[:6].hex(":"),) if key.mask is None and key.held == key.width else None
    value = key.value(octets[: key.held])
    if key.field == "random":
        return _drawn(key, value, value)
    if key.field in ("mark", "ctmark"):
        return (mark_text(value, ALL_BITS if key.mask is None else key.mask),)
    if key.field == "tcp-flags":
        return (mark_text(value, _ALL_FLAGS if key.mask is None else key.mask),)
    if key.mask is not None:
        return None
    if key.field in ("protocol", "icmp-type", "icmp-code") or key.field in _RANGES:
        return (str(value),)
    if key.field in ("dst-type", "src-type"):
        return (ADDRESS_TYPES[value],) if value < len(ADDRESS_TYPES) else None
    if key.field == "pkttype":
        return (PACKET_TYPES[value],) if value < len(PACKET_TYPES) else None
    if key.field == "ctstate":
        return (CT_STATES[value],) if value in CT_STATES else None
    return None


def _prefix(key: PacketField, octets: bytes) -> Values | None:
    held = octets[: key.held]
    bits = 8 * key.width
    mask = (1 << 8 * key.held) - 1 if key.mask is None else key.mask
    mask <<= 8 * (key.width - key.held)
    length = mask.bit_count()
    if mask >> bits or mask != ((1 << bits) - 1) ^ ((1 << bits - length) - 1):
        return None
    return (f"{ip_address(held.ljust(key.width, bytes(1)))}/{length}",)


def _interface(key: PacketField, octets: bytes, name_of: InterfaceName) -> Values | None:
    if key.mask is not None:
        return None
    if key.host_order:
        return (name_of(key.value(octets[:4])),)
    name = as_string(octets)
    return (name if b"\0" in octets or len(octets) >= key.width else f"{name}*",)


def values_between(key: PacketField, first: bytes, last: bytes | None, name_of: InterfaceName) -> Values | None:
    """Return the values of a field from ``first`` to ``last``, both included; None for a field without values."""
    if last is None or first == last:
        return values_equal(key, first, name_of)
    if key.mask is not None or key.xor:
        return None
    if key.field in _ADDRESSES:
        low, high = first[: key.held].ljust(key.width, b"\0"), last[: key.held].ljust(key.width, b"\xff")
        return networks_between(str(ip_address(low)), str(ip_address(high)))
    if key.field in _INTERFACES and not key.host_order:
        # A set of intervals holds a wildcard as all names with its beginning.
        beginning = first.rstrip(b"\0")
        is_wildcard = last == beginning.ljust(len(first), b"\xff") and len(beginning) < len(first)
        return (f"{as_string(beginning)}*",) if beginning and is_wildcard else None
    begin, end = key.value(first[: key.held]), key.value(last[: key.held])
    if key.field == "random":
        return _drawn(key, begin, end)
    if key.field in _RANGES:
        return (f"{begin}-{end}",)
    if key.field == "protocol":
        return tuple(str(protocol) for protocol in range(begin, end + 1))
    return None


def values_beyond(key: PacketField, operator: int, octets: bytes, name_of: InterfaceName) -> Values | None:
    """Return the values below or above a bound; None for a field without values, and where none is left."""
    if key.field == "random" and key.mask is None:
        number, highest = key.value(octets[: key.held]), key.offset + key.modulus - 1
        return _drawn(key, *_beyond(operator, number, highest))
    if key.field not in _ADDRESSES | _RANGES or key.held != key.width or len(octets) != key.width:
        return None
    bound, highest = int.from_bytes(octets, "big"), (1 << 8 * key.width) - 1
    first, last = _beyond(operator, bound, highest)
    if first > last:
        return None
    return values_between(key, first.to_bytes(key.width, "big"), last.to_bytes(key.width, "big"), name_of)


def _beyond(operator: int, bound: int, highest: int) -> tuple[int, int]:
    """Return the first and last number below or above a bound."""
    return {LT: (0, bound - 1), LTE: (0, bound), GT: (bound + 1, highest), GTE: (bound, highest)}[operator]


def _drawn(key: PacketField, first: int, last: int) -> Values | None:
    """Return the numbers of a draw from ``first`` to ``last``, counted from its lowest; None where none is left."""
    if key.mask is not None:
        return None
    first, last = max(first - key.offset, 0), min(last - key.offset, key.modulus - 1)
    return (f"{first}-{last}/{key.modulus}",) if first <= last else None


def values_text(match: FilterMatch) -> str:
    """Return the values of a condition as nft prints them."""
    if match.field == "protocol":
        text = protocol_text(match.values)
    elif match.field in _INTERFACES:
        text = ", ".join(f'"{value}"' for value in match.values)
    elif match.field in _ADDRESSES:
        text = ", ".join(value.removesuffix("/32").removesuffix("/128") for value in match.values)
    elif match.field == "set":
        text = ", ".join(map(element_text, match.values))
    elif match.field == "random":
        text = ", ".join(value.partition("/")[0] for value in match.values)
    else:
        text = ", ".join(match.values)
    return text if len(match.values) == 1 else f"{{ {text} }}"


def bound_text(key: PacketField, octets: bytes) -> str:
    """Return the bound of a comparison as nft prints it."""
    return str(ip_address(octets)) if key.field in _ADDRESSES else str(key.value(octets))


def octets_text(key: PacketField, octets: bytes) -> str:
    """Return a constant that no condition can express, in hex."""
    if key.text.startswith("ether ") and len(octets) == 6:
        return octets.hex(":")
    if key.text.startswith("icmp") and octets:
        return str(octets[0])
    mask = "" if key.mask is None else f"& 0x{key.mask:x} == "
    return f"{mask}0x{octets.hex()}"
