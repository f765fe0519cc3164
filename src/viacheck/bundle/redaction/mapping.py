"""Redact a bundle before it leaves the host: remove secrets, and in ``strict`` map addresses and names.

By default every value that may be a secret is removed: environment values, keys, tokens, and comments, which often hold
old passwords. ``strict`` also maps addresses, MAC addresses and names, each to the same stand-in everywhere. Addresses
are mapped bit by bit under a key, so that two addresses share as many leading bits as before (after Xu, Fan, Ammar and
Moon, "Prefix-preserving IP address anonymization", 2002): a private address stays in its private block, and the last
octet stays. Each bundle has its own key, which is never written; the map stays on the host.
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
from viacheck.model.verdict import Verdict
from viacheck.parsers.comments import without_comments
from viacheck.persistence.manager_config import Manager

KEPT4 = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
"""Networks whose addresses identify no network (RFC 6890): they stay."""
PRIVATE4 = tuple(map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")))
"""Blocks of private addresses: their addresses are mapped within them, and no other address is mapped into them."""
UNIQUE_LOCAL6, GLOBAL6 = 0xFC00 >> 9, 0x2000 >> 13
"""The first 7 bits of fc00::/7 (RFC 4193), and the first 3 of 2000::/3, the global unicast addresses (RFC 4291)."""
HOST_BITS4 = 8
"""Bits at the end that stay, so that network, broadcast and gateway addresses keep their form."""
HOST_BITS6 = 64
COMMON_NAMES = frozenset({
    *MODES, *PROTOCOLS, *get_args(Survivable), *get_args(Manager), *(verdict.value for verdict in Verdict),
    "agent", "bridge", "container", "default", "docker", "global", "host", "kernel", "lab", "link", "local",
    "localhost", "main", "network", "none", "pasta", "podman", "root", "site", "slirp4netns", "static", "unicast",
    "veth", "viacheck",
    "address", "answer", "command", "counter", "decision", "error", "event", "far-end", "file", "gateway",
    "iptables", "lookup", "netlink", "netns", "packets", "probe", "remote", "route", "rule", "state", "table", "target",
    "timeline", "uplink",
    # Terms of two letters, of commands and of messages.
    "an", "as", "at", "be", "by", "do", "ff", "go", "id", "if", "in", "ip", "is", "it", "lo", "nd", "no", "of", "on",
    "or", "ra", "sh", "so", "tc", "to", "up",
})  # fmt: skip
"""Names that identify no host, and are terms of the format too."""
SHORTEST_NAME = 2

_ADDRESSES = (
    r"(?P<bridge_id>\b[0-9a-f]{4}\.(?:[0-9a-f]{1,2}:){5}[0-9a-f]{1,2}(?![\w:]))"
    r"|(?P<mac>(?<![\w:.])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![\w:]))"
    r"|(?P<split>(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}\"\s*,\s*\"\w*len\"\s*:\s*\d{1,2}\b)"
    r"|(?P<six>(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f:]*:[0-9A-Fa-f:]*|::[0-9A-Fa-f:]*)(?P<length6>/\d{1,3})?(?![\w]))"
    r"|(?P<four>(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?P<length4>/\d{1,2})?(?![\w]|\.\d))"
)


class Redactor:
    """Redacts everything that goes into one bundle, in one manner."""

    def __init__(
        self,
        mode: Redaction,
        names: Mapping[str, str] | None = None,
        key: bytes | None = None,
        hosts: Mapping[str, str] | None = None,
        networks: Iterable[IPv4Network] = (),
    ) -> None:
        """Prepare.

        Args:
            mode: how much is redacted.
            names: the stand-ins for the names of hosts, containers and networks, in ``strict``.
            key: 32 octets that determine the map; None for new random octets.
            hosts: the stand-ins for host names where they are a value of their own, however short or common.
            networks: of the host's and the agent's addresses: their broadcast addresses stay broadcast addresses.
        """
        self.mode: Redaction = mode
        self.map: dict[str, str] = {}
        """The values that were mapped so far, with their stand-ins."""
        self._names = dict(names or {})
        self._hosts = dict(hosts or {})
        self._key = key or secrets.token_bytes(32)
        self._edges = {edge: net for net in networks for edge in (net.network_address, net.broadcast_address)}

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
            return {
                key: self._host(item)
                if key == "hostname" and isinstance(item, str) and item in self._hosts
                else self.document(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.document(item) for item in value]
        return value

    def _host(self, name: str) -> str:
        return self.map.setdefault(name, self._hosts[name])

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
        elif groups["split"]:
            # JSON of ip and nft: the address and the length of a prefix are two values.
            address, between, length = re.split(r"(\".*\D)", original, maxsplit=1)
            return f"{self._address(f'{address}/{length}').partition('/')[0]}{between}{length}"
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
            single = length in ("", "32")
            mapped = str(self._six(number) if ":" in bare else self._four(number, single=single))
            if not length:
                return mapped
            if ip_network(text, strict=False).network_address == ip_network(bare).network_address:
                return str(ip_network(f"{mapped}/{length}", strict=False))
        except ValueError:
            return text
        return f"{mapped}/{length}"

    def _four(self, number: int, *, single: bool) -> IPv4Address:
        """Map an address; ``single``: it is no prefix, so it may be the first or the last address of a network."""
        address = IPv4Address(number)
        if any(address in kept for kept in KEPT4):
            return address
        if single and (network := self._edges.get(address)) is not None:
            first = self._four(int(network.network_address), single=False)
            mapped = IPv4Network((first, network.prefixlen), strict=False)
            return mapped.network_address if address == network.network_address else mapped.broadcast_address
        private = next((block for block in PRIVATE4 if address in block), None)
        begin = private.prefixlen if private is not None else 0
        for depth in range(begin, 32 - HOST_BITS4):
            prefix = int(address) >> (32 - depth)
            if private is not None:
                # The first bit always changes: of the addresses of a small block, none stays by chance.
                flips = depth == begin or self._flips(4, depth, prefix)
            else:
                flips = not _leads_to_other_block(prefix, depth) and self._flips(4, depth, prefix)
            if flips:
                number ^= 1 << (31 - depth)
        return IPv4Address(number)

    def _six(self, number: int) -> IPv6Address:
        original = number
        begin = 8 if original >> 121 == UNIQUE_LOCAL6 else 3 if original >> 125 == GLOBAL6 else None
        if begin is not None:
            for depth in range(begin, 128 - HOST_BITS6):
                if (begin == 8 and depth == begin) or self._flips(6, depth, original >> (128 - depth)):
                    number ^= 1 << (127 - depth)
        identifier = original & (1 << 64) - 1
        if original >> 64 and identifier >> 32:
            number = number >> 64 << 64 | self._interface_identifier(identifier)
        return IPv6Address(number)

    def _interface_identifier(self, identifier: int) -> int:
        """Map an interface identifier that was not typed by a person: made of a MAC address, or at random."""
        octets = identifier.to_bytes(8, "big")
        if octets[3:5] != b"\xff\xfe":
            return int.from_bytes(hashlib.blake2b(octets, key=self._key, digest_size=8, person=b"identifier").digest())
        mac = bytes((octets[0] ^ 2, *octets[1:3], *octets[5:8])).hex(":")
        other = bytes.fromhex(self._mac(mac).replace(":", ""))
        return int.from_bytes(bytes((other[0] ^ 2, *other[1:3], 0xFF, 0xFE, *other[3:6])))

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


def _leads_to_other_block(prefix: int, depth: int) -> bool:
    """Return whether the bits of a public address so far also begin a block without public addresses."""
    return any(
        block.prefixlen > depth and int(block.network_address) >> (32 - depth) == prefix
        for block in (*KEPT4, *PRIVATE4)
    )


@cache
def _bit(key: bytes, family: int, depth: int, prefix: int) -> bool:
    return bool(hashlib.blake2b(b"%d %d %d" % (family, depth, prefix), key=key, digest_size=1).digest()[0] & 1)


def _identifies(name: str) -> bool:
    return len(name) >= SHORTEST_NAME and name.lower() not in COMMON_NAMES


def stand_ins(names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return a stand-in for each name, such as ``host-1``, ``container-1``, ``network-1``; ``names`` are by kind."""
    mapping: dict[str, str] = {}
    for kind, of_kind in names.items():
        for place, name in enumerate(dict.fromkeys(of_kind), start=1):
            mapping.setdefault(name, f"{kind}-{place}")
    return mapping
