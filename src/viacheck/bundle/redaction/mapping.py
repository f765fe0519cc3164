"""Redact a bundle before it leaves the host: remove secrets, and in ``strict`` map addresses and names.

By default every value that may be a secret is removed: environment values, keys, tokens, and comments, which often hold
old passwords. ``strict`` also maps public addresses, MAC addresses and names, each to the same stand-in everywhere.
Addresses are mapped bit by bit under a key, so that two addresses share as many leading bits as before (after Xu, Fan,
Ammar and Moon, "Prefix-preserving IP address anonymization", 2002). Each bundle has its own key, which is never
written; the map stays on the host.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network
from typing import Any, get_args

from viacheck.bundle.manifest import Redaction
from viacheck.bundle.redaction.patterns import without_secrets
from viacheck.model.intent import MODES, PROTOCOLS, Survivable
from viacheck.model.result import Verdict
from viacheck.parsers.comments import without_comments
from viacheck.persistence.manager_config import Manager

KEPT4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.168.0.0/16", "224.0.0.0/3",
    )
)  # fmt: skip
"""Networks without public addresses (RFC 6890). Their addresses stay, and no other address is mapped into them."""
HOST_BITS4 = 8
"""Bits at the end that stay, so that network, broadcast and gateway addresses keep their form."""
HOST_BITS6 = 64
COMMON_NAMES = frozenset({
    *MODES, *PROTOCOLS, *get_args(Survivable), *get_args(Manager), *(verdict.value for verdict in Verdict),
    "agent", "bridge", "container", "default", "docker", "global", "host", "kernel", "lab", "link", "local",
    "localhost", "main", "network", "none", "root", "site", "static", "unicast", "veth", "viacheck",
})  # fmt: skip
"""Names that identify no host, and are terms of the format too."""
SHORTEST_NAME = 3

_ADDRESSES = (
    r"(?P<bridge_id>\b[0-9a-f]{4}\.(?:[0-9a-f]{1,2}:){5}[0-9a-f]{1,2}(?![\w:]))"
    r"|(?P<mac>(?<![\w:.])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![\w:]))"
    r"|(?P<six>(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f:]*:[0-9A-Fa-f:]*|::[0-9A-Fa-f:]*)(?P<length6>/\d{1,3})?(?![\w]))"
    r"|(?P<four>(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?P<length4>/\d{1,2})?(?![\w]|\.\d))"
)


class Redactor:
    """Redacts everything that goes into one bundle, in one manner."""

    def __init__(self, mode: Redaction, names: Mapping[str, str] | None = None, key: bytes | None = None) -> None:
        """Prepare.

        Args:
            mode: how much is redacted.
            names: the stand-ins for the names of hosts, containers and networks, in ``strict``.
            key: 32 octets that determine the map; None for new random octets.
        """
        self.mode: Redaction = mode
        self.map: dict[str, str] = {}
        """The values that were mapped so far, with their stand-ins."""
        self._names = dict(names or {})
        self._key = key or secrets.token_bytes(32)

    def output(self, text: str) -> str:
        """Redact a command's output."""
        return self.plain(text if self.mode == "none" else without_secrets(text))

    def file(self, text: str) -> str:
        """Redact a file of the host."""
        return self.plain(text if self.mode == "none" else without_secrets(without_comments(text)))

    def plain(self, text: str) -> str:
        """Map a text without secrets in ``strict``; return it unchanged otherwise."""
        return self._pattern.sub(self._stand_in, text) if self.mode == "strict" else text

    def document(self, value: Any) -> Any:
        """Map every text in a JSON value; the keys stay."""
        if self.mode != "strict":
            return value
        if isinstance(value, str):
            return self.plain(value)
        if isinstance(value, dict):
            return {key: self.document(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.document(item) for item in value]
        return value

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        names = sorted(filter(_identifies, self._names), key=len, reverse=True)
        if not names:
            return re.compile(_ADDRESSES)
        alternatives = "|".join(map(re.escape, names))
        return re.compile(rf"(?P<name>(?<![A-Za-z0-9])(?:{alternatives})(?![A-Za-z0-9]))|{_ADDRESSES}")

    def _stand_in(self, match: re.Match[str]) -> str:
        original = match[0]
        if original in self.map:
            return self.map[original]
        groups = match.groupdict()
        if groups.get("name"):
            mapped = self._names[original]
        elif groups["bridge_id"]:
            priority, _dot, mac = original.partition(".")
            full = ":".join(part.rjust(2, "0") for part in mac.split(":"))
            mapped = f"{priority}." + ":".join(f"{int(part, 16):x}" for part in self._mac(full).split(":"))
        elif groups["mac"]:
            mapped = self._mac(original.lower())
        else:
            mapped = self._address(original)
        if mapped != original:
            self.map[original] = mapped
        return mapped

    def _address(self, text: str) -> str:
        """Map an address, with or without prefix length; a text that is not a valid address stays."""
        bare, _slash, length = text.partition("/")
        try:
            number = int(IPv6Address(bare)) if ":" in bare else int(IPv4Address(bare))
            mapped = str(self._six(number) if ":" in bare else self._four(number))
            if not length:
                return mapped
            if ip_network(text, strict=False).network_address == ip_network(bare).network_address:
                return str(ip_network(f"{mapped}/{length}", strict=False))
        except ValueError:
            return text
        return f"{mapped}/{length}"

    def _four(self, number: int) -> IPv4Address:
        address = IPv4Address(number)
        if any(address in kept for kept in KEPT4):
            return address
        for depth in range(32 - HOST_BITS4):
            prefix = int(address) >> (32 - depth)
            leads_to_kept = any(
                kept.prefixlen > depth and int(kept.network_address) >> (32 - depth) == prefix for kept in KEPT4
            )
            if not leads_to_kept and self._flips(4, depth, prefix):
                number ^= 1 << (31 - depth)
        return IPv4Address(number)

    def _six(self, number: int) -> IPv6Address:
        original = number
        if original >> 125 == 1:  # 2000::/3, everything that is assigned as global unicast (RFC 4291)
            for depth in range(3, 128 - HOST_BITS6):
                if self._flips(6, depth, original >> (128 - depth)):
                    number ^= 1 << (127 - depth)
        if original >> 24 & 0xFFFF == 0xFFFE and original >> 64:
            # The interface identifier was made of a MAC address (RFC 4291, appendix A).
            octets = (original & (1 << 64) - 1).to_bytes(8, "big")
            mac = bytes((octets[0] ^ 2, *octets[1:3], *octets[5:8])).hex(":")
            other = bytes.fromhex(self._mac(mac).replace(":", ""))
            identifier = bytes((other[0] ^ 2, *other[1:3], 0xFF, 0xFE, *other[3:6]))
            number = number >> 64 << 64 | int.from_bytes(identifier, "big")
        return IPv6Address(number)

    def _mac(self, mac: str) -> str:
        """Map a MAC address; a group address and the zero address stay."""
        octets = bytes.fromhex(mac.replace(":", ""))
        if octets[0] & 1 or not any(octets):
            return mac
        digest = hashlib.blake2b(octets, key=self._key, digest_size=6, person=b"mac").digest()
        # The bit for a locally administered address stays: it separates a container's address from a card's.
        return bytes((digest[0] & 0xFC | octets[0] & 2, *digest[1:])).hex(":")

    def _flips(self, family: int, depth: int, prefix: int) -> bool:
        return _bit(self._key, family, depth, prefix)


@cache
def _bit(key: bytes, family: int, depth: int, prefix: int) -> bool:
    return bool(hashlib.blake2b(b"%d %d %d" % (family, depth, prefix), key=key, digest_size=1).digest()[0] & 1)


def _identifies(name: str) -> bool:
    return len(name) >= SHORTEST_NAME and name.lower() not in COMMON_NAMES


def stand_ins(hosts: Iterable[str], containers: Iterable[str], networks: Iterable[str]) -> dict[str, str]:
    """Return a stand-in for each name, such as ``host-1``, ``container-1``, ``network-1``."""
    mapping: dict[str, str] = {}
    for kind, names in (("host", hosts), ("container", containers), ("network", networks)):
        for place, name in enumerate(dict.fromkeys(names), start=1):
            mapping.setdefault(name, f"{kind}-{place}")
    return mapping
