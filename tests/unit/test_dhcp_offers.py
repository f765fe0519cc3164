"""What is made of DHCP offers and lease times: which collide, what is asked for and proposed, when a lease ends."""

from __future__ import annotations

import datetime
from ipaddress import IPv4Network

import pytest

from netns_lab.builder import build
from netns_lab.lab import Lab
from netns_lab.scenarios import PARENT, SCENARIOS
from netns_lab.services.dhcp_server import DHCPPool, DHCPServer
from viacheck.analysis.dhcp_offers import addresses_to_request, colliding, lease_end, spare_range
from viacheck.model.measurements import Offer
from viacheck.model.snapshot import Address, NetworkState, Snapshot
from viacheck.packets.arp import InterfaceNotUp
from viacheck.packets.dhcp_discover import discover

LAN = IPv4Network("10.10.40.0/24")
POOL = IPv4Network("10.10.40.192/27")
ANSWER_WITHIN = 2.0


def offer(address: str) -> Offer:
    return Offer(address, "10.10.40.1", "02:00:00:00:00:01")


# Offers


@pytest.mark.parametrize(
    ("address", "collides"),
    [("10.10.40.191", False), ("10.10.40.192", True), ("10.10.40.223", True), ("10.10.40.224", False)],
)
def test_an_offer_collides_when_docker_gives_that_address_too(address: str, collides: bool) -> None:
    assert bool(colliding([offer(address)], POOL)) is collides


def test_the_whole_pool_is_asked_about_by_its_ends_and_its_middle() -> None:
    assert addresses_to_request(POOL, []) == ("10.10.40.193", "10.10.40.208", "10.10.40.222")


def test_what_no_server_would_offer_is_not_asked_for() -> None:
    assert addresses_to_request(POOL, ["10.10.40.193", "10.10.40.208", "10.10.40.222"]) == (
        "10.10.40.194", "10.10.40.209", "10.10.40.221",
    )  # fmt: skip


@pytest.mark.parametrize(("pool", "asked"), [("10.10.40.200/32", 1), ("10.10.40.200/31", 2), ("10.10.40.200/30", 2)])
def test_small_pools_are_asked_about_as_far_as_they_go(pool: str, asked: int) -> None:
    found = addresses_to_request(IPv4Network(pool), [])
    assert len(found) == len(set(found)) == asked


def test_a_pool_that_is_all_taken_is_not_asked_about() -> None:
    assert addresses_to_request(IPv4Network("10.10.40.200/32"), ["10.10.40.200"]) == ()


def test_the_proposed_range_is_the_highest_without_offer_and_machine() -> None:
    assert spare_range(LAN, [offer("10.10.40.250")], ["10.10.40.1", "10.10.40.200"]) == IPv4Network("10.10.40.160/27")


def test_a_small_or_crowded_lan_has_no_range_to_spare() -> None:
    assert spare_range(IPv4Network("10.10.40.0/27"), [], []) is None
    assert spare_range(LAN, [offer(f"10.10.40.{number}") for number in range(1, 255)], []) is None


def test_a_large_lan_is_searched_from_its_end() -> None:
    assert spare_range(IPv4Network("10.0.0.0/8"), [], ["10.255.255.254"]) == IPv4Network("10.255.255.192/27")


# Leases


def snapshot(taken: str) -> Snapshot:
    return Snapshot(taken=taken, hostname="h", kernel="k", host=NetworkState())


def test_a_lease_ends_a_lifetime_after_the_snapshot_told_to_the_minute() -> None:
    address = Address(interface="eth1", family=4, address="10.10.40.100", prefixlen=24, valid_lifetime=3600)
    end = lease_end(snapshot("2026-03-01T23:30:00+01:00"), address)
    assert end.moment == datetime.datetime.fromisoformat("2026-03-02T00:30:00+01:00")
    assert "2026-03-02 00:30" in str(end)
    assert "60 minutes" in str(end)


def test_an_address_without_a_lifetime_has_no_known_end() -> None:
    address = Address(interface="eth1", family=4, address="10.10.40.100", prefixlen=24)
    assert "only the DHCP server knows" in str(lease_end(snapshot("2026-03-01T23:30:00+01:00"), address))


# A real server


@pytest.fixture
def lab() -> Lab:
    return build(SCENARIOS["macvlan"]())


def test_a_server_is_asked_and_nothing_is_taken_from_it(lab: Lab) -> None:
    try:
        pool = DHCPPool(subnet=str(LAN), first="10.10.40.200", last="10.10.40.220", router="10.10.40.1")
        server = DHCPServer(lab.gateway(PARENT).namespace, "lan0", "10.10.40.1", pool)
        lab.add_dhcp_server(server)
        found = discover(lab.host.namespace, PARENT, addresses_to_request(POOL, []), timeout=0.5)
        assert {one.requested for one in found} == {None, "10.10.40.193", "10.10.40.208", "10.10.40.222"}
        assert all(one.address in pool for one in found)
        assert "10.10.40.208" in {one.address for one in found}, "a server gives what it is asked for, if it can"
        assert {(one.server, one.router, one.lease_seconds) for one in found} == {("10.10.40.1", "10.10.40.1", 3600)}
        assert server.leases == {}, "a DISCOVER takes no lease"
    finally:
        lab.close()


def test_silence_ends_with_the_time(lab: Lab) -> None:
    try:
        assert discover(lab.host.namespace, PARENT, timeout=0.05) == []
    finally:
        lab.close()


def test_an_interface_that_is_down_cannot_be_asked_on(lab: Lab) -> None:
    try:
        lab.host.ip("link", "set", "dev", PARENT, "down")
        with pytest.raises(InterfaceNotUp, match="eth0 is down"):
            discover(lab.host.namespace, PARENT, timeout=0.05)
    finally:
        lab.close()
