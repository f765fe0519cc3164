"""Frames on interfaces that stand on each other: one frame is counted once, and a second frame stays a copy."""

from __future__ import annotations

import pytest

from viacheck.analysis.link_layers import link_layers
from viacheck.model.check_evidence import PacketSighting
from viacheck.model.namespace_state import Link, NetworkState


def sighting(interface: str, mac: str = "02:00:00:00:00:01") -> PacketSighting:
    return PacketSighting(
        time=0.0, interface=interface, direction="out", probe=1, protocol="icmp", source="10.10.50.9",
        destination="198.51.100.1", source_mac=mac, destination_mac="02:00:00:00:00:02",
    )  # fmt: skip


def marks(host: NetworkState, uplinks: set[str], *sightings: PacketSighting) -> list[tuple[str, str | None]]:
    layers = link_layers(host, uplinks, ())
    return [(seen.path_interface, seen.same_frame_on) for seen in layers.mark(sightings)]


@pytest.mark.parametrize("kind", ["vlan", "macvlan", "ipvlan"])
def test_a_frame_of_a_child_on_its_parent_is_the_same_frame(kind: str) -> None:
    host = NetworkState(links=(Link(index=2, name="eth0"), Link(index=3, name="wlan0", kind=kind, peer_index=2)))
    seen = marks(host, {"eth0", "wlan0"}, sighting("wlan0"), sighting("eth0"))
    assert seen == [("wlan0", None), ("eth0", "wlan0")]


def test_a_second_frame_on_the_parent_is_a_copy() -> None:
    host = NetworkState(links=(Link(index=2, name="eth0"), Link(index=3, name="wlan0", kind="macvlan", peer_index=2)))
    seen = marks(host, {"eth0", "wlan0"}, sighting("wlan0"), sighting("eth0"), sighting("eth0"))
    assert seen == [("wlan0", None), ("eth0", "wlan0"), ("eth0", None)]


def test_a_frame_with_another_mac_address_on_the_parent_is_a_copy() -> None:
    host = NetworkState(links=(Link(index=2, name="eth0"), Link(index=3, name="wlan0", kind="macvlan", peer_index=2)))
    seen = marks(host, {"eth0", "wlan0"}, sighting("wlan0"), sighting("eth0", "02:00:00:00:00:03"))
    assert seen == [("wlan0", None), ("eth0", None)]


def test_a_child_whose_parent_is_in_another_namespace_stands_on_no_interface_here() -> None:
    host = NetworkState(
        links=(
            Link(index=2, name="eth0"),
            Link(index=3, name="wlan0", kind="macvlan", peer_index=2, peer_netnsid=0),
        )
    )
    seen = marks(host, {"eth0", "wlan0"}, sighting("wlan0"), sighting("eth0"))
    assert seen == [("wlan0", None), ("eth0", None)]


def test_a_vlan_on_a_bridge_is_followed_down_to_the_port() -> None:
    host = NetworkState(
        links=(
            Link(index=2, name="eth0", master="br0"),
            Link(index=3, name="br0", kind="bridge"),
            Link(index=4, name="br0.7", kind="vlan", peer_index=3),
        )
    )
    seen = marks(host, {"br0", "br0.7"}, sighting("br0.7"), sighting("br0"), sighting("eth0"))
    assert seen == [("br0.7", None), ("br0", "br0.7"), ("br0", "br0")]


@pytest.mark.parametrize(("uplink", "counted"), [("br0", "br0"), ("eth0", "eth0")])
def test_a_frame_that_a_bridge_forwards_counts_for_the_uplink(uplink: str, counted: str) -> None:
    host = NetworkState(
        links=(
            Link(index=2, name="eth0", master="br0"),
            Link(index=3, name="br0", kind="bridge"),
            Link(index=4, name="veth1", kind="veth", master="br0", peer_index=9, peer_netnsid=0),
        )
    )
    assert marks(host, {uplink}, sighting("eth0")) == [(counted, None)]


def test_a_bridge_of_containers_has_no_outer_port() -> None:
    host = NetworkState(
        links=(
            Link(index=3, name="docker0", kind="bridge"),
            Link(index=4, name="veth1", kind="veth", master="docker0", peer_index=9, peer_netnsid=0),
        )
    )
    assert not link_layers(host, {"eth0"}, ()).counts_for
