"""The plan of a copy of this host: what it is made of, and which hosts get none, each with its reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from netns_lab.whole_host.copied_host import CopyImpossible, plan_copy
from netns_lab.whole_host.root_files import RootFile
from netns_lab.whole_host.stacked_uplinks import missing_links, read_details
from viacheck.model.docker_state import Attachment, DockerContainer, DockerEngine, DockerNetwork, IPAMPool
from viacheck.model.intent_file import parse_intent
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import HostFile, Snapshot

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


CRONTAB = HostFile(
    path="/etc/cron.d/agent", exists=True, text="@reboot root ip rule add from 172.17.0.0/16 table 200\n", mode=0o644
)
CARD, OTHER_CARD = Link(index=6, name="eth1", flags=("UP",)), Link(index=7, name="eth2", flags=("UP",))
OF_A_BOND = replace(WLAN0, kind="bond")
SLAVES = replace(CARD, master="wlan0"), replace(OTHER_CARD, master="wlan0")
DETAILS = """[
    {"ifname": "eth1"}, {"ifname": "eth2"},
    {"ifname": "wlan0", "linkinfo": {"info_kind": "vlan", "info_data": {"protocol": "802.1Q", "id": 50}}},
    {"ifname": "bond0", "linkinfo": {"info_kind": "bond", "info_data": {"mode": "active-backup", "miimon": 100}}}
]"""


def test_a_vlan_is_made_by_the_boot_of_a_card_behind_a_switch_with_its_tag() -> None:
    plan = plan_copy(
        host(ETH0, replace(WLAN0, kind="vlan", peer_index=CARD.index), CARD), INTENT, "berlin-7", read_details(DETAILS)
    )
    assert [link.name for link in plan.lab.host.state.links] == ["eth0", "eth1"]
    (switch,) = plan.lab.switches
    ends = {(cable.machine, cable.interface, cable.other_machine) for cable in plan.lab.cables}
    assert ends == {
        ("host", "eth0", "gw-eth0"), ("host", "eth1", switch.name),
        (switch.name, switch.state.links[-1].name, "gw-wlan0"),
    }  # fmt: skip
    typed = [" ".join(argv) for machine, argv in plan.lab.commands if machine == switch.name]
    assert typed[0].endswith("name wire.50 type vlan protocol 802.1Q id 50")
    assert [" ".join(argv) for made in plan.made for argv in made.commands] == [
        "ip link add link eth1 name wlan0 type vlan protocol 802.1Q id 50"
    ]
    assert not [note for note in plan.lab.notes if "cable replaces" in note]


def test_a_bond_is_made_by_the_boot_of_cards_on_one_switch() -> None:
    details = {"wlan0": {"mode": "active-backup", "miimon": 100}}
    plan = plan_copy(host(ETH0, OF_A_BOND, *SLAVES), INTENT, "berlin-7", details)
    assert [link.name for link in plan.lab.host.state.links] == ["eth0", "eth1", "eth2"]
    (switch,) = plan.lab.switches
    assert {cable.interface for cable in plan.lab.cables if cable.other_machine == switch.name} == {"eth1", "eth2"}
    assert plan.lab.commands == ()
    (bond,) = plan.made
    assert bond.text == "wlan0 (bond of eth1, eth2, active-backup)"
    alone = plan_copy(host(ETH0, OF_A_BOND, *SLAVES), INTENT, "berlin-7", {"wlan0": {"mode": "802.3ad"}})
    assert "wlan0: no switch speaks LACP with the copy, so that one of its cards carries all packets" in alone.lab.notes
    with pytest.raises(CopyImpossible, match="mode balance-rr, which needs a switch"):
        plan_copy(host(ETH0, OF_A_BOND, *SLAVES), INTENT, "berlin-7", {"wlan0": {"mode": "balance-rr"}})


def test_what_a_boot_did_not_make_is_named_and_added() -> None:
    (bond,) = plan_copy(host(ETH0, OF_A_BOND, *SLAVES), INTENT, "berlin-7", {"wlan0": {"mode": "802.3ad"}}).made
    assert dict.fromkeys(
        text for text, _argv in missing_links(NetworkState(links=(ETH0, CARD, OTHER_CARD)), [bond])
    ) == {"wlan0 (bond of eth1, eth2, 802.3ad)": None}
    half = NetworkState(links=(ETH0, OF_A_BOND, SLAVES[0], OTHER_CARD))
    assert [(text, " ".join(argv)) for text, argv in missing_links(half, [bond])] == [
        ("eth2 in wlan0", "ip link set dev eth2 down"),
        ("eth2 in wlan0", "ip link set dev eth2 master wlan0"),
        ("eth2 in wlan0", "ip link set dev eth2 up"),
    ]
    assert not list(missing_links(NetworkState(links=(ETH0, OF_A_BOND, *SLAVES)), [bond]))


def test_a_vlan_may_stand_on_a_bond() -> None:
    bond = Link(index=8, name="bond0", kind="bond", flags=("UP",))
    slaves = replace(CARD, master="bond0"), replace(OTHER_CARD, master="bond0")
    vlan = replace(WLAN0, kind="vlan", peer_index=bond.index)
    plan = plan_copy(host(ETH0, vlan, bond, *slaves), INTENT, "berlin-7", read_details(DETAILS))
    assert [made.name for made in plan.made] == ["bond0", "wlan0"]
    assert {cable.interface for cable in plan.lab.cables if cable.machine == "host"} == {"eth0", "eth1", "eth2"}


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
        (host(ETH0, replace(WLAN0, kind="vlan")), "wlan0 is a VLAN whose id and parent are not known"),
        (host(ETH0, replace(WLAN0, kind="vrf")), "wlan0 is a vrf"),
        (host(ETH0, replace(WLAN0, kind="bond")), "wlan0 is a bond of nothing"),
        (host(ETH0, replace(WLAN0, kind="bridge")), "wlan0 is a bridge without a card"),
        (host(ETH0, replace(WLAN0, flags=("UP", "NOARP"))), "wlan0 is a point-to-point link"),
        (replace(host(ETH0, WLAN0), files=(CRONTAB,)), "cron sets rules or routes at boot (/etc/cron.d/agent:1)"),
        (host(ETH0, WLAN0, container=None), "Docker engine"),
        (host(ETH0, WLAN0, container=replace(CONTAINER, namespace_of="vpn")), "one network of its own"),
        (
            host(ETH0, WLAN0, container=replace(CONTAINER, attachments=(Attachment(network="probes"),))),
            "network probes (driver unknown)",
        ),
    ],
    ids=[
        "no uplink",
        "VLAN",
        "VRF",
        "bond",
        "bridge",
        "point-to-point",
        "cron",
        "no container",
        "shared network",
        "unknown network",
    ],
)
def test_a_host_that_no_copy_can_be_made_of_is_refused_with_the_reason(snapshot: Snapshot, reason: str) -> None:
    with pytest.raises(CopyImpossible) as refusal:
        plan_copy(snapshot, INTENT, "berlin-7")
    assert reason in str(refusal.value)


def test_a_copied_file_keeps_its_permissions(tmp_path: Path) -> None:
    RootFile("psk=secret\n", 0o600).write(tmp_path / "etc" / "profile")
    assert (tmp_path / "etc" / "profile").stat().st_mode & 0o777 == 0o600
