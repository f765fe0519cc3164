"""Selects the source address of a packet that the host sends.

IPv4 follows inet_select_addr (net/ipv4/devinet.c): a primary address of the outgoing interface, by scope and by the
gateway's subnet. IPv6 follows RFC 6724, section 5, as ipv6_dev_get_saddr (net/ipv6/addrconf.c) does; a
snapshot has no home addresses (rule 4) and no prefixes of the next hop (rule 5.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address

from viacheck.analysis.routing.table import mask, read_address, read_prefix
from viacheck.model.namespace_state import Address, NetworkState
from viacheck.model.routing_names import SCOPES

NUMBERS = {name: number for number, name in SCOPES.items()}
LINK_SCOPE, HOST_SCOPE = NUMBERS["link"], NUMBERS["host"]

# RFC 6724, section 2.1, with the kernel's own entries beside it (net/ipv6/addrlabel.c).
_LABELS = [
    (*read_prefix(prefix, 6), label)
    for prefix, label in (
        ("::1/128", 0),
        ("::ffff:0:0/96", 4),
        ("::/96", 3),
        ("2001::/32", 6),
        ("2001:10::/28", 7),
        ("2002::/16", 2),
        ("fc00::/7", 5),
        ("::/0", 1),
    )
]
_LABELS.sort(key=lambda entry: -entry[1])
_ORCHID, _ORCHID_LENGTH = read_prefix("2001:10::/28", 6)
_IPV6_LINK_LOCAL, _IPV6_SITE_LOCAL, _IPV6_GLOBAL = 2, 5, 14


def scope_number(scope: str) -> int:
    """Return the kernel's number of an IPv4 scope (rtnetlink(7), rtm_scope); the smaller, the wider."""
    return NUMBERS[scope] if scope in NUMBERS else int(scope)


@dataclass(slots=True)
class _Candidate:
    """An address that may become a source."""

    address: Address
    number: int
    scope: int
    """IPv4: the kernel's number, the smaller the wider. IPv6: that of RFC 4007, the larger the wider."""
    subnet: int
    netmask: int
    secondary: bool


class SourceSelection:
    """The addresses of a namespace, sorted for the selection of a source."""

    def __init__(self, state: NetworkState) -> None:
        """Sort the addresses by interface; their order and that of the links count."""
        self._state = state
        self._interfaces = [link.name for link in state.links]
        self._ipv4: dict[str, list[_Candidate]] = {}
        self._ipv6: dict[str, list[_Candidate]] = {}
        for address in state.addresses:
            number = read_address(address.address, address.family)
            bits = 32 if address.family == 4 else 128
            netmask = mask(address.prefixlen, bits)
            on_peer = read_address(address.peer, address.family) if address.peer else number
            candidate = _Candidate(
                address=address,
                number=number,
                scope=scope_number(address.scope) if address.family == 4 else _ipv6_scope(number),
                subnet=on_peer & netmask,
                netmask=netmask,
                secondary="secondary" in address.flags,
            )
            (self._ipv4 if address.family == 4 else self._ipv6).setdefault(address.interface, []).append(candidate)
        self._ipv4_owner = {
            candidate.number: name for name, candidates in reversed(self._ipv4.items()) for candidate in candidates
        }

    def ipv4_owner(self, number: int) -> str | None:
        """Return the interface with this IPv4 address; None when no interface has it."""
        return self._ipv4_owner.get(number)

    def has_ipv4(self, interface: str) -> bool:
        """Return whether the interface has an IPv4 address."""
        return interface in self._ipv4

    def ipv4(self, interface: str, near: int, scope: int) -> str | None:
        """Return the source for packets out of an interface to a gateway (or 0) ``near``, of at most this scope.

        None stands for 0.0.0.0: no interface has a usable address.
        """
        # An interface that may route 127.0.0.0/8 may use addresses of scope host as if they had scope link.
        narrowest = LINK_SCOPE if self._switch("route_localnet", interface) else HOST_SCOPE
        first: _Candidate | None = None
        for candidate in self._ipv4.get(interface, ()):
            if candidate.secondary or min(candidate.scope, narrowest) > scope:
                continue
            if not near or near & candidate.netmask == candidate.subnet:
                return candidate.address.address
            first = first or candidate
        if first is not None:
            return first.address.address
        for other in self._interfaces:
            for candidate in self._ipv4.get(other, ()):
                if not candidate.secondary and candidate.scope != LINK_SCOPE and candidate.scope <= scope:
                    return candidate.address.address
        return None

    def _switch(self, name: str, interface: str) -> bool:
        return any(self._state.sysctls.get(f"net/ipv4/conf/{scope}/{name}", "0") != "0" for scope in ("all", interface))

    def ipv6(self, interface: str, destination: int) -> str | None:
        """Return the source for packets to a destination out of an interface; None when no address is usable."""
        wanted = _ipv6_scope(destination)
        only_here = (
            _is_multicast(destination)
            or wanted <= _IPV6_LINK_LOCAL
            or self._state.sysctls.get(f"net/ipv6/conf/{interface}/use_oif_addrs_only", "0") != "0"
        )
        label = _label(destination)
        temporary = int(self._state.sysctls.get(f"net/ipv6/conf/{interface}/use_tempaddr", "0")) >= 2
        best: _Candidate | None = None
        best_score: tuple[int, ...] = ()
        for name in [interface] if only_here else self._interfaces:
            for candidate in self._ipv6.get(name, ()):
                flags = candidate.address.flags
                if ("tentative" in flags and "optimistic" not in flags) or "dadfailed" in flags:
                    continue
                common = min(candidate.address.prefixlen, 128 - (candidate.number ^ destination).bit_length())
                score = (
                    candidate.number == destination,  # rule 1
                    -candidate.scope if candidate.scope >= wanted else candidate.scope - 128,  # rule 2
                    "deprecated" not in flags and "optimistic" not in flags,  # rule 3
                    name == interface,  # rule 5
                    _label(candidate.number) == label,  # rule 6
                    ("temporary" in flags) == temporary,  # rule 7
                    _is_orchid(candidate.number) == _is_orchid(destination),
                    common,  # rule 8
                    "optimistic" not in flags,
                )
                if best is None or score > best_score:
                    best, best_score = candidate, score
        return best.address.address if best else None


def _is_multicast(number: int) -> bool:
    return number >> 120 == 0xFF


def _is_orchid(number: int) -> bool:
    return number & mask(_ORCHID_LENGTH, 128) == _ORCHID


def _label(number: int) -> int:
    return next(label for address, length, label in _LABELS if number & mask(length, 128) == address)


def _ipv6_scope(number: int) -> int:
    """Return the scope (RFC 4007); loopback counts as link-local, a unique local address as global (RFC 6724, 3.1)."""
    if _is_multicast(number):
        return number >> 112 & 0xF
    address = IPv6Address(number)
    if address.is_loopback or address.is_link_local:
        return _IPV6_LINK_LOCAL
    return _IPV6_SITE_LOCAL if address.is_site_local else _IPV6_GLOBAL
