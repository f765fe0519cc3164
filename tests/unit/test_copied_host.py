"""The plan of a copy of this host: what it is made of, and which hosts get none, each with its reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from netns_lab.whole_host.copied_host import CopyImpossible, plan_copy
from netns_lab.whole_host.root_files import RootFile
from viacheck.model.intent_file import parse_intent
from viacheck.model.snapshot import (
    Address,
    Attachment,
    DockerContainer,
    DockerEngine,
    DockerNetwork,
    IPAMPool,
    Link,
    NetworkState,
    Nexthop,
    Route,
    Snapshot,
)

INTENT = parse_intent(
    {
        "schema": 1,
        "site": {"name": "berlin-7"},
        "agent": {"container": "te-agent", "attach": {"mode": "nat", "network": "bridge"}},
        "uplinks": {"eth0": {"gateway": "10.10.40.1"}, "wlan0": {"gateway": "10.10.50.1"}},
        "egress": {"uplink": "wlan0", "table": 200},
        "host": {"default_exit": "eth0"},
    },
    source="site.toml",
)
CONTAINER = DockerContainer(
    name="te-agent", id="0" * 64, running=True, pid=1, attachments=(Attachment(network="bridge"),)
)
BRIDGE = DockerNetwork(name="bridge", id="1" * 64, driver="bridge", bridge="docker0")
ETH0, WLAN0 = Link(index=2, name="eth0", flags=("UP",)), Link(index=3, name="wlan0", flags=("UP",))
DOCKER0 = Link(index=4, name="docker0", kind="bridge", flags=("UP",))
VETH = Link(index=5, name="veth1", kind="veth", master="docker0", peer_index=2, peer_netnsid=1, flags=("UP",))
OF_ETH0 = Address(interface="eth0", family=4, address="10.10.40.9", prefixlen=24)
OF_WLAN0 = Address(interface="wlan0", family=4, address="10.10.50.9", prefixlen=24)
DEFAULT = Route(
    family=4, table=254, destination="0.0.0.0/0", nexthops=(Nexthop(interface="eth0", gateway="10.10.40.1"),)
)


def host(*links: Link, container: DockerContainer | None = CONTAINER, addresses: tuple[Address, ...] = ()) -> Snapshot:
    return Snapshot(
        taken="2026-01-01T00:00:00+00:00",
        hostname="berlin-7",
        kernel="6.1.0",
        host=NetworkState(links=(*links, DOCKER0, VETH), addresses=addresses or (OF_ETH0, OF_WLAN0), routes=(DEFAULT,)),
        engine=DockerEngine(version="27.0.1", api_version="1.46", networks=(BRIDGE,), container=container),
    )


def test_the_copy_has_the_cards_and_nothing_that_a_program_of_the_host_makes() -> None:
    plan = plan_copy(host(ETH0, WLAN0), INTENT, "berlin-7")
    assert [link.name for link in plan.lab.host.state.links] == ["eth0", "wlan0"]
    assert not any(link.flags for link in plan.lab.host.state.links), "the boot brings them up"
    assert plan.lab.host.state.addresses == ()
    assert {cable.other_machine for cable in plan.lab.cables} == {"gw-eth0", "gw-wlan0"}
    assert plan.network is None


def test_a_network_of_a_compose_file_is_created_in_the_copy() -> None:
    """It has labels, which set up nothing."""
    network = DockerNetwork(
        name="agents_default", id="2" * 64, driver="bridge", bridge="br-222222222222",
        pools=(IPAMPool(subnet="172.20.0.0/16", gateway="172.20.0.1"),), not_kept=("labels",),
    )  # fmt: skip
    snapshot = host(ETH0, WLAN0, container=replace(CONTAINER, attachments=(Attachment(network="agents_default"),)))
    assert snapshot.engine is not None
    composed = replace(snapshot, engine=replace(snapshot.engine, networks=(BRIDGE, network)))
    assert plan_copy(composed, INTENT, "berlin-7").network == network
    other = replace(network, not_kept=("labels", "the option com.docker.network.bridge.inhibit_ipv4"))
    with pytest.raises(CopyImpossible) as refusal:
        plan_copy(replace(composed, engine=replace(snapshot.engine, networks=(BRIDGE, other))), INTENT, "berlin-7")
    assert str(refusal.value).endswith("cannot have: the option com.docker.network.bridge.inhibit_ipv4")


def test_a_gateway_leases_an_uplink_its_present_address() -> None:
    leased = replace(OF_WLAN0, valid_lifetime=3600)
    plan = plan_copy(host(ETH0, WLAN0, addresses=(OF_ETH0, leased)), INTENT, "berlin-7")
    pools = {gateway.name: gateway.dhcp for gateway in plan.lab.gateways}
    assert pools["gw-eth0"] is None
    pool = pools["gw-wlan0"]
    assert pool is not None
    assert (pool.first, pool.last, pool.router) == ("10.10.50.9", "10.10.50.9", "10.10.50.1")


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (host(ETH0), "no interface wlan0"),
        (host(ETH0, replace(WLAN0, kind="vlan")), "wlan0 is a vlan"),
        (host(ETH0, replace(WLAN0, flags=("UP", "NOARP"))), "wlan0 is a point-to-point link"),
        (host(ETH0, WLAN0, container=None), "Docker engine"),
        (host(ETH0, WLAN0, container=replace(CONTAINER, namespace_of="vpn")), "one network of its own"),
        (
            host(ETH0, WLAN0, container=replace(CONTAINER, attachments=(Attachment(network="probes"),))),
            "network probes (driver unknown)",
        ),
    ],
    ids=["no uplink", "VLAN", "point-to-point", "no container", "shared network", "unknown network"],
)
def test_a_host_that_no_copy_can_be_made_of_is_refused_with_the_reason(snapshot: Snapshot, reason: str) -> None:
    with pytest.raises(CopyImpossible) as refusal:
        plan_copy(snapshot, INTENT, "berlin-7")
    assert reason in str(refusal.value)


def test_a_copied_file_keeps_its_permissions(tmp_path: Path) -> None:
    RootFile("psk=secret\n", 0o600).write(tmp_path / "etc" / "profile")
    assert (tmp_path / "etc" / "profile").stat().st_mode & 0o777 == 0o600
