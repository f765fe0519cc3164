"""DHCP offers that collide with Docker's pool, and the end of a lease that no client renews.

Docker's address management never contacts the LAN's DHCP server: only the offers themselves show a collision (RFC 2131,
RFC 2132).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from viacheck.model.check_evidence import StateEvidence
from viacheck.model.measurements import DiscoveryResult, Offer
from viacheck.model.namespace_state import Address
from viacheck.model.snapshot import Snapshot

REQUESTED_ADDRESSES = 3
"""How many addresses of the pool are requested from servers (option 50)."""
SPARE_PREFIX = 27
"""The prefix length of the range that a remedy proposes: thirty addresses."""


def addresses_to_request(pool: IPv4Network, taken: Iterable[str]) -> tuple[str, ...]:
    """Return the first, the middle and the last free address of the pool: a server of that range would offer them.

    Args:
        pool: Docker's range of addresses.
        taken: addresses that no server would offer: of the agent, the host, the gateway.
    """
    used = {IPv4Address(address) for address in taken}
    size = pool.num_addresses
    wanted: list[str] = []
    for start, step in ((0, 1), (size // 2, 1), (size - 1, -1)):
        number = start
        while 0 <= number < size and (pool[number] in used or _is_edge(pool, number)):
            number += step
        if 0 <= number < size and str(pool[number]) not in wanted:
            wanted.append(str(pool[number]))
    return tuple(wanted[:REQUESTED_ADDRESSES])


def _is_edge(pool: IPv4Network, number: int) -> bool:
    return pool.num_addresses > 2 and number in (0, pool.num_addresses - 1)


def colliding(offers: Iterable[Offer], pool: IPv4Network) -> list[Offer]:
    """Return the offers of addresses that Docker would assign as well."""
    return [offer for offer in offers if IPv4Address(offer.address) in pool]


def offers_evidence(offers: Sequence[Offer]) -> list[StateEvidence]:
    """Return the offers as evidence, one line each."""
    return [StateEvidence(title="DHCP offers", lines=[str(offer) for offer in offers])] if offers else []


def discovery_text(discovery: DiscoveryResult) -> str:
    """Return how long servers had to answer: ``listened for 10.0 s, DHCPDISCOVER sent at 0 and 4 s``."""
    moments = " and ".join(f"{moment:.0f}" for moment in discovery.sent_at)
    return f"listened for {discovery.listened:.1f} s, DHCPDISCOVER sent at {moments} s"


def spare_range(subnet: IPv4Network, offers: Iterable[Offer], taken: Iterable[str]) -> IPv4Network | None:
    """Return the highest range of a subnet without any offered or used address; None when every range has one."""
    if subnet.prefixlen >= SPARE_PREFIX:
        return None
    used = [IPv4Address(offer.address) for offer in offers] + [IPv4Address(address) for address in taken]
    ranges = reversed(list(_ranges(subnet)))
    return next((spare for spare in ranges if not any(address in spare for address in used)), None)


def _ranges(subnet: IPv4Network) -> Iterator[IPv4Network]:
    highest = int(subnet.broadcast_address) + 1
    size = 1 << (32 - SPARE_PREFIX)
    # A large subnet has millions of ranges; the last 64 are enough to choose from.
    first = max(int(subnet.network_address), highest - 64 * size)
    return (IPv4Network((number, SPARE_PREFIX)) for number in range(first, highest, size))


@dataclass(frozen=True, slots=True)
class LeaseEnd:
    """The end of an address whose lease is not renewed."""

    moment: datetime.datetime | None
    """None when the address was set without a lifetime."""
    seconds: int | None

    def __str__(self) -> str:
        if self.moment is None or self.seconds is None:
            return "at a time that only the DHCP server knows"
        minutes = round(self.seconds / 60)
        remaining = f"{minutes} minutes" if minutes > 1 else f"{self.seconds} s"
        return f"at {self.moment:%Y-%m-%d %H:%M} ({remaining} after the snapshot)"


def lease_end(snapshot: Snapshot, address: Address) -> LeaseEnd:
    """Return when a leased address ends, by the lifetime that the kernel counts down."""
    if address.valid_lifetime is None:
        return LeaseEnd(None, None)
    taken = datetime.datetime.fromisoformat(snapshot.taken)
    return LeaseEnd(taken + datetime.timedelta(seconds=address.valid_lifetime), address.valid_lifetime)
