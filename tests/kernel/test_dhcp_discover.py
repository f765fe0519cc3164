"""DHCP discovery against a real server in a lab: offers without leases, silence, and an interface that is down."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network

import pytest

from netns_lab.builder import build
from netns_lab.lab import Lab
from netns_lab.scenarios import PARENT, SCENARIOS
from netns_lab.services.dhcp_server import DHCPPool, DHCPServer
from viacheck.analysis.dhcp_offers import addresses_to_request
from viacheck.model.measurements import DiscoveryResult
from viacheck.packets.arp import InterfaceNotUp
from viacheck.packets.dhcp_discover import DHCPDiscovery

LAN = IPv4Network("10.10.40.0/24")
WAIT = 10.0
"""Seconds to listen, where the answer should end it."""
POOL = IPv4Network("10.10.40.192/27")


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = build(SCENARIOS["macvlan"]())
    yield lab
    lab.close()


def discover(lab: Lab, requested: Sequence[str] = (), *, seconds: float) -> DiscoveryResult:
    with contextlib.closing(DHCPDiscovery(lab.host.namespace, PARENT, requested, seconds=seconds)) as discovery:
        return discovery.result()


def test_a_server_offers_the_requested_addresses_and_assigns_no_lease(lab: Lab) -> None:
    pool = DHCPPool(subnet=str(LAN), first="10.10.40.200", last="10.10.40.220", router="10.10.40.1")
    server = DHCPServer(lab.gateway(PARENT).namespace, "lan0", "10.10.40.1", pool)
    lab.add_dhcp_server(server)
    offers = discover(lab, addresses_to_request(POOL, []), seconds=2.0).offers
    assert {offer.requested for offer in offers} == {None, "10.10.40.193", "10.10.40.208", "10.10.40.222"}
    assert all(offer.address in pool for offer in offers)
    assert "10.10.40.208" in {offer.address for offer in offers}, "a server offers a requested address if it can"
    origins = {(offer.server, offer.router, offer.lease_seconds) for offer in offers}
    assert origins == {("10.10.40.1", "10.10.40.1", 3600)}
    assert server.leases == {}, "a DHCPDISCOVER takes no lease"


def test_without_a_server_discovery_ends_at_the_timeout(lab: Lab) -> None:
    result = discover(lab, seconds=0.05)
    assert result.offers == ()
    assert 0.05 <= result.listened < WAIT


def test_a_server_that_pings_first_is_heard_and_the_message_is_repeated(lab: Lab) -> None:
    pool = DHCPPool(subnet=str(LAN), first="10.10.40.200", last="10.10.40.220", router="10.10.40.1", offer_delay=4.5)
    lab.add_dhcp_server(DHCPServer(lab.gateway(PARENT).namespace, "lan0", "10.10.40.1", pool))
    with contextlib.closing(
        DHCPDiscovery(lab.host.namespace, PARENT, seconds=WAIT, enough=lambda _offer: True)
    ) as discovery:
        result = discovery.result()
    assert [offer.address for offer in result.offers][:1] == ["10.10.40.200"]
    first, second = result.sent_at
    assert first < 1.0 < 4.0 <= second
    assert 4.5 <= result.listened < WAIT, "an offer that is enough ends the discovery after a short time"


def test_discovery_can_be_ended_before_its_time(lab: Lab) -> None:
    began = time.monotonic()
    DHCPDiscovery(lab.host.namespace, PARENT, seconds=WAIT).close()
    assert time.monotonic() - began < WAIT


def test_discovery_by_an_interface_that_is_down_raises(lab: Lab) -> None:
    lab.host.ip("link", "set", "dev", PARENT, "down")
    with pytest.raises(InterfaceNotUp, match="eth0 is down"):
        DHCPDiscovery(lab.host.namespace, PARENT, seconds=WAIT)
