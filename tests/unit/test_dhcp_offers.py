"""DHCP offers and leases: collisions with Docker's pool, requested addresses, proposed ranges, the end of a lease."""

from __future__ import annotations

import datetime
from ipaddress import IPv4Network

import pytest

from viacheck.analysis.dhcp_offers import addresses_to_request, colliding, lease_end, spare_range
from viacheck.model.measurements import Offer
from viacheck.model.namespace_state import Address, NetworkState
from viacheck.model.snapshot import Snapshot

LAN = IPv4Network("10.10.40.0/24")
POOL = IPv4Network("10.10.40.192/27")


def offer(address: str) -> Offer:
    return Offer(address, "10.10.40.1", "02:00:00:00:00:01")


# Offers


@pytest.mark.parametrize(
    ("address", "collides"),
    [("10.10.40.191", False), ("10.10.40.192", True), ("10.10.40.223", True), ("10.10.40.224", False)],
)
def test_an_offer_collides_when_docker_assigns_that_address_too(address: str, collides: bool) -> None:
    assert bool(colliding([offer(address)], POOL)) is collides


def test_the_first_middle_and_last_address_of_the_pool_are_requested() -> None:
    assert addresses_to_request(POOL, []) == ("10.10.40.193", "10.10.40.208", "10.10.40.222")


def test_addresses_in_use_are_not_requested() -> None:
    assert addresses_to_request(POOL, ["10.10.40.193", "10.10.40.208", "10.10.40.222"]) == (
        "10.10.40.194", "10.10.40.209", "10.10.40.221",
    )  # fmt: skip


@pytest.mark.parametrize(("pool", "count"), [("10.10.40.200/32", 1), ("10.10.40.200/31", 2), ("10.10.40.200/30", 2)])
def test_small_pools_have_fewer_requested_addresses(pool: str, count: int) -> None:
    requested = addresses_to_request(IPv4Network(pool), [])
    assert len(requested) == len(set(requested)) == count


def test_a_full_pool_has_no_requested_address() -> None:
    assert addresses_to_request(IPv4Network("10.10.40.200/32"), ["10.10.40.200"]) == ()


def test_the_proposed_range_is_the_highest_without_an_offered_or_used_address() -> None:
    assert spare_range(LAN, [offer("10.10.40.250")], ["10.10.40.1", "10.10.40.200"]) == IPv4Network("10.10.40.160/27")


def test_a_small_or_crowded_lan_has_no_range_to_spare() -> None:
    assert spare_range(IPv4Network("10.10.40.0/27"), [], []) is None
    assert spare_range(LAN, [offer(f"10.10.40.{number}") for number in range(1, 255)], []) is None


def test_a_large_lan_is_searched_from_its_end() -> None:
    assert spare_range(IPv4Network("10.0.0.0/8"), [], ["10.255.255.254"]) == IPv4Network("10.255.255.192/27")


# Leases


def snapshot(taken: str) -> Snapshot:
    return Snapshot(taken=taken, hostname="h", kernel="k", host=NetworkState())


def test_a_lease_ends_a_lifetime_after_the_snapshot() -> None:
    address = Address(interface="eth1", family=4, address="10.10.40.100", prefixlen=24, valid_lifetime=3600)
    end = lease_end(snapshot("2026-03-01T23:30:00+01:00"), address)
    assert end.moment == datetime.datetime.fromisoformat("2026-03-02T00:30:00+01:00")
    assert "2026-03-02 00:30" in str(end)
    assert "60 minutes" in str(end)


def test_an_address_without_a_lifetime_has_no_known_end() -> None:
    address = Address(interface="eth1", family=4, address="10.10.40.100", prefixlen=24)
    assert "only the DHCP server knows" in str(lease_end(snapshot("2026-03-01T23:30:00+01:00"), address))
