"""The agent's own routing and its attachment, from recorded and hand-written answers of Docker and podman."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from netns_lab.replica.upstream import Upstream
from tests.helpers.paths import RECORDED
from viacheck.analysis.agent_network import attached_elsewhere
from viacheck.analysis.macvlan_facts import network_faults
from viacheck.analysis.predict import other_gateway, predict
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis import Cause, diagnose
from viacheck.model.check import MACVLAN, OWN_MAC
from viacheck.model.check_evidence import PacketsEvidence, PacketSighting
from viacheck.model.filter_chains import FilterChain, PacketFilter
from viacheck.model.intent_file import parse_intent
from viacheck.model.measurements import Measurements, Offer, TrafficMeasurements
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import Snapshot
from viacheck.parsers.docker_api import engine_from_answers, last_exit_code, networks_of_containers

DOCKER = {"Version": "28.5.2", "ApiVersion": "1.51"}
PODMAN = {"Version": "5.4.2", "ApiVersion": "1.41", "Components": [{"Name": "Podman Engine", "Version": "5.4.2"}]}
MAIN = Rule(family=4, priority=32766, table=254)
ATTACH = {
    "nat": {"network": "bridge"},
    "macvlan": {"network": "macvlan0", "parent": "eth0", "subnet": "10.10.40.0/24", "gateway": "10.10.40.1"},
    "pipework-static": {"parent": "br0", "address": "10.10.40.200/24", "gateway": "10.10.40.1"},
}
ATTACH["ipvlan"] = ATTACH["macvlan"]


def address(interface: str, text: str) -> Address:
    return Address(interface=interface, family=4, address=text, prefixlen=24)


def default(gateway: str | None, interface: str, **more: Any) -> Route:
    return Route(
        family=4, table=254, destination="0.0.0.0/0", nexthops=(Nexthop(gateway=gateway, interface=interface),), **more
    )


HOST = NetworkState(
    links=(
        Link(index=1, name="lo"),
        Link(index=11, name="eth0", flags=("UP", "LOWER_UP")),
        Link(index=12, name="wlan0", flags=("UP", "LOWER_UP")),
        Link(index=13, name="docker0", kind="bridge", flags=("UP", "LOWER_UP")),
    ),
    addresses=(address("eth0", "10.10.40.9"), address("wlan0", "10.10.50.9"), address("docker0", "172.17.0.1")),
    rules=(MAIN,),
    routes=(default("10.10.40.1", "eth0"),),
)


def agent(
    *more: Link, kind: str = "macvlan", parent: int = 11, routes: tuple[Route, ...] | None = None
) -> NetworkState:
    own = Link(
        index=2, name="eth9", kind=kind, flags=("UP",), peer_index=parent, peer_netnsid=0, mac="02:00:00:00:00:09"
    )
    return NetworkState(
        links=(own, *more),
        addresses=(address("eth9", "10.10.40.200"), *(address(link.name, f"10.8.{link.index}.2") for link in more)),
        rules=(MAIN,),
        routes=(
            Route(
                family=4, table=254, destination="10.10.40.0/24", nexthops=(Nexthop(interface="eth9"),), scope="link"
            ),
            *((default("10.10.40.1", "eth9"),) if routes is None else routes),
        ),
    )


def network(name: str, driver: str, gateway: str = "10.10.40.1", **more: Any) -> dict[str, Any]:
    subnet = "172.18.0.0/16" if driver == "bridge" else "10.10.40.0/24"
    pool = {"Subnet": subnet, "Gateway": "172.18.0.1" if driver == "bridge" else gateway}
    options = {} if driver == "bridge" else {"parent": "eth0"}
    return {"Name": name, "Id": name, "Driver": driver, "IPAM": {"Config": [pool]}, "Options": options, **more}


def container(*networks: str, mode: str | None = None, **host_config: Any) -> dict[str, Any]:
    return {
        "Name": "/te-agent", "Id": "0" * 64, "State": {"Status": "running", "Running": True, "Pid": 7},
        "HostConfig": {"NetworkMode": mode or (networks[0] if networks else "none"), **host_config},
        "NetworkSettings": {"Networks": {name: {"IPAddress": "10.10.40.200"} for name in networks}},
    }  # fmt: skip


def resolved(
    mode: str = "macvlan",
    *,
    networks: list[dict[str, Any]],
    of: dict[str, Any],
    state: NetworkState | None = None,
    version: dict[str, Any] | None = None,
    host: NetworkState = HOST,
    target: str = "198.51.100.1",
    **more: Any,
) -> ResolvedIntent:
    uplink = ATTACH[mode].get("parent", "eth0")
    intent = parse_intent(
        {
            "schema": 1, "site": {"name": "x"},
            "agent": {"container": "te-agent", "attach": {"mode": mode, **ATTACH[mode]}},
            "uplinks": {uplink: {"gateway": "10.10.40.1"}}, "egress": {"uplink": uplink}, "probe": {"target": target},
        },
        source="test",
    )  # fmt: skip
    snapshot = Snapshot(
        taken="2026-11-26T12:00:00+00:00", hostname="h", kernel="6.1", host=host,
        agent=agent() if state is None else state,
        engine=engine_from_answers(version or DOCKER, {}, networks, of), **more,
    )  # fmt: skip
    return ResolvedIntent(intent, snapshot)


def cause_of(check: str, place: ResolvedIntent, measured: Measurements | None = None) -> Cause:
    cause = diagnose(check, place, measured or Measurements())
    assert cause is not None
    return cause


MACVLAN0 = network("macvlan0", "macvlan")


@pytest.mark.parametrize(("mode", "driver"), [("macvlan", "ipvlan"), ("ipvlan", "macvlan")])
def test_macvlan_and_ipvlan_are_never_taken_for_each_other(mode: str, driver: str) -> None:
    place = resolved(mode, networks=[network("macvlan0", driver)], of=container("macvlan0"), state=agent(kind=driver))
    cause = cause_of("MACVLAN-01", place)
    assert cause.code == "NETWORK_WRONG_DRIVER"
    assert cause.site_file == ("[agent.attach]", f'mode = "{driver}"')
    assert not cause.remedy


def test_ipvlan_as_intended_has_no_fault_and_no_mac_of_its_own() -> None:
    place = resolved(
        "ipvlan", networks=[network("macvlan0", "ipvlan")], of=container("macvlan0"), state=agent(kind="ipvlan")
    )
    assert network_faults(place) == []
    assert MACVLAN.to(place.intent)
    assert not OWN_MAC.to(place.intent)


def test_an_interface_of_the_other_kind_shows_without_an_engine() -> None:
    place = resolved(networks=[], of=container(), state=agent(kind="ipvlan"))
    bare = ResolvedIntent(place.intent, Snapshot(**{**_fields(place.snapshot), "engine": None}))
    assert [fault.code for fault in network_faults(bare)] == ["NETWORK_WRONG_DRIVER"]


def _fields(snapshot: Snapshot) -> dict[str, Any]:
    return {name: getattr(snapshot, name) for name in snapshot.__dataclass_fields__}


PODMAN_NETWORK = {**MACVLAN0, "Options": {}}
"""As podman answers Docker's API: without the parent and the range."""


def test_podman_hides_the_parent_and_the_kernel_knows_it() -> None:
    place = resolved(networks=[PODMAN_NETWORK], of=container("macvlan0", mode="bridge"), version=PODMAN)
    assert network_faults(place) == []
    wrong = resolved(
        networks=[PODMAN_NETWORK], of=container("macvlan0", mode="bridge"), version=PODMAN, state=agent(parent=12)
    )
    assert [fault.text for fault in network_faults(wrong)] == ["the agent's eth9 sits on wlan0"]
    assert "podman does not say which address" in str(cause_of("MACVLAN-01", wrong).decision)
    assert not cause_of("MACVLAN-01", wrong).remedy
    docker = resolved(networks=[PODMAN_NETWORK], of=container("macvlan0"))
    assert [fault.code for fault in network_faults(docker)] == ["PARENT_WRONG"]


@pytest.mark.parametrize(
    ("mode", "name", "driver", "check", "line"),
    [
        ("macvlan", "te_macvlan0", "macvlan", "MACVLAN-02", 'network = "te_macvlan0"'),
        ("macvlan", "te_default", "bridge", "MACVLAN-02", 'mode = "nat"'),
        ("nat", "te_default", "bridge", "NAT-03", 'network = "te_default"'),
        ("nat", "lan", "macvlan", "NAT-03", 'mode = "macvlan"'),
    ],
)
def test_a_container_attached_otherwise_gets_the_lines_to_write(
    mode: str, name: str, driver: str, check: str, line: str
) -> None:
    place = resolved(mode, networks=[network("bridge", "bridge"), network(name, driver)], of=container(name))
    cause = cause_of(check, place)
    assert cause.code == "AGENT_NOT_ATTACHED"
    assert line in cause.site_file
    assert not cause.remedy
    assert attached_elsewhere(resolved(mode, networks=[MACVLAN0], of=container(ATTACH[mode]["network"]))) is None


@pytest.mark.parametrize(
    ("mode", "check"), [("nat", "NAT-03"), ("macvlan", "MACVLAN-02"), ("pipework-static", "PIPEWORK-02")]
)
def test_an_agent_on_the_hosts_network(mode: str, check: str) -> None:
    place = resolved(mode, networks=[MACVLAN0], of=container("host"), state=HOST)
    cause = cause_of(check, place)
    assert cause.code == "AGENT_ON_HOST_NETWORK"
    assert "masquerade" not in cause.sentence
    assert not cause.remedy
    if mode == "nat":
        assert predict(place, "icmp").as_intended is True


def test_a_tunnel_in_the_agents_namespace() -> None:
    tunnel = Link(index=3, name="tun0", kind="tun", flags=("UP",))
    halves = tuple(
        Route(family=4, table=254, destination=half, nexthops=(Nexthop(interface="tun0"),))
        for half in ("0.0.0.0/1", "128.0.0.0/1")
    )
    for routes in ((default(None, "tun0"),), (default("10.10.40.1", "eth9"), *halves)):
        place = resolved(networks=[MACVLAN0], of=container("macvlan0"), state=agent(tunnel, routes=routes))
        assert cause_of("EGRESS-01", place).code == "AGENT_USES_TUNNEL"
        assert predict(place, "icmp").as_intended is False


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("28.5.2", "docker network connect --gw-priority=1 macvlan0 te-agent"),
        ("20.10.24", "ip route replace default via 10.10.40.1 dev eth9"),
    ],
)
def test_the_other_networks_default_by_the_engines_version(version: str, line: str) -> None:
    second = Link(index=3, name="eth1", kind="veth", flags=("UP",), peer_index=99)
    attachments = {
        "macvlan0": {"IPAddress": "10.10.40.200"},
        "backend": {"IPAddress": "10.8.3.2"},
    }
    place = resolved(
        networks=[MACVLAN0, network("backend", "bridge")],
        of={**container("macvlan0"), "NetworkSettings": {"Networks": attachments}},
        state=agent(second, routes=(default("172.18.0.1", "eth1"),)), version={**DOCKER, "Version": version},
    )  # fmt: skip
    cause = cause_of("EGRESS-02", place)
    assert cause.code == "DEFAULT_BY_OTHER_NETWORK"
    assert "Docker's network backend" in cause.sentence
    assert cause.remedy.lines[-1].endswith(line)
    assert (cause.decision is None) == (version == "28.5.2")


def test_another_router_shows_in_a_bundle_too() -> None:
    place = resolved(
        networks=[MACVLAN0], of=container("macvlan0"), state=agent(routes=(default("10.10.40.2", "eth9"),))
    )
    assert other_gateway(place) == "10.10.40.2"
    assert cause_of("EGRESS-09", place).code == cause_of("EGRESS-01", place).code == "GATEWAY_MISMATCH"
    assert other_gateway(resolved(networks=[MACVLAN0], of=container("macvlan0"))) is None


def test_the_target_and_the_resolver_may_be_the_host_itself() -> None:
    place = resolved(networks=[MACVLAN0], of=container("macvlan0"), target="10.10.40.9")
    assert cause_of("HOST-06", place).code == cause_of("EGRESS-01", place).code == "TARGET_IS_HOST"
    packets = PacketsEvidence(title="dns", sent=1, answered=0, sightings=[], watched=[])
    measured = Measurements(traffic=TrafficMeasurements(packets={"dns": packets}))
    by_option = resolved(networks=[MACVLAN0], of=container("macvlan0", Dns=["10.10.40.9"]), resolvers=("127.0.0.11",))
    by_host = resolved(
        networks=[MACVLAN0], of=container("macvlan0"), resolvers=("127.0.0.11",), host_resolvers=("10.10.40.9",)
    )
    for asked in (by_option, by_host):
        assert cause_of("EGRESS-05", asked, measured).code == "RESOLVER_IS_HOST"


def test_full_size_packets_that_left_are_lost_beyond_the_uplink() -> None:
    place = resolved(networks=[MACVLAN0], of=container("macvlan0"))
    left = PacketSighting(
        time=0.0, interface="eth0", direction="out", probe=1, role="probe", protocol="icmp", source="10.10.40.193",
        destination="198.51.100.1", source_mac="02:00:00:00:00:01", destination_mac="02:00:00:00:00:02", length=1514,
    )  # fmt: skip
    for sightings, text in (
        ([left], "leave by eth0 and are lost beyond it"),
        ([], "are lost between the agent and eth0"),
    ):
        packets = PacketsEvidence(title="full-size", sent=1, answered=0, sightings=sightings, watched=[])
        measured = Measurements(traffic=TrafficMeasurements(packets={"full-size": packets}))
        assert text in cause_of("EGRESS-06", place, measured).sentence


def test_a_range_that_a_server_hands_out_moves_with_its_line_of_the_site_file() -> None:
    offer = Offer(address="10.10.40.195", server="10.10.40.2", server_mac="02:00:00:00:00:99")
    measured = Measurements(traffic=TrafficMeasurements(offers=(offer,)))
    alone = {**MACVLAN0, "IPAM": {"Config": [{"Subnet": "10.10.40.0/24", "Gateway": "10.10.40.1"}]}}
    place = resolved(networks=[alone], of=container("macvlan0"))
    engine = place.snapshot.engine
    assert engine is not None
    known = replace(engine, networks=tuple(replace(one, containers=("te-agent",)) for one in engine.networks))
    cause = cause_of("MACVLAN-04", ResolvedIntent(place.intent, replace(place.snapshot, engine=known)), measured)
    assert cause.site_file[0] == "[agent.attach]"
    assert cause.site_file[1].removeprefix("ip_range = ").strip('"') in "\n".join(cause.remedy.lines)
    assert not cause_of("MACVLAN-04", place, measured).remedy


def test_a_replica_has_the_gateway_of_a_child_uplink_on_its_parents_wire() -> None:
    child = Link(index=12, name="wlan0", kind="macvlan", flags=("UP", "LOWER_UP"), peer_index=11)
    intent = parse_intent(
        {
            "schema": 1, "site": {"name": "x"}, "agent": {"container": "te-agent", "attach": {"mode": "nat"}},
            "uplinks": {"eth0": {"gateway": "10.10.40.1"}, "wlan0": {"gateway": "10.10.50.1"}},
            "egress": {"uplink": "wlan0"},
        },
        source="test",
    )  # fmt: skip
    for links, expected in ((HOST.links, False), ((*HOST.links[:2], child, *HOST.links[3:]), True)):
        gateway = Upstream(replace(HOST, links=links), intent, ()).gateway("eth0")
        assert any(address.address == "10.10.50.1" for address in gateway.addresses) == expected


def test_a_parent_in_a_bridge_that_others_need_stays_there() -> None:
    links = (
        Link(index=11, name="eth0", flags=("UP", "LOWER_UP"), master="br0"),
        Link(index=14, name="br0", kind="bridge", flags=("UP", "LOWER_UP")),
        Link(index=15, name="tap0", kind="tun", master="br0"),
    )
    host = NetworkState(
        links=links, addresses=(address("br0", "10.10.40.9"),), rules=(MAIN,), routes=(default("10.10.40.1", "br0"),)
    )
    cause = cause_of("MACVLAN-01", resolved(networks=[MACVLAN0], of=container("macvlan0"), host=host))
    assert cause.code == "BRIDGED_UPLINK"
    assert not cause.remedy
    assert 'parent = "br0"' in cause.site_file


def test_a_missing_container_gets_no_command() -> None:
    intended = resolved(networks=[network("macvlan0", "macvlan", gateway="10.10.40.7")], of=container("macvlan0"))
    engine = engine_from_answers(DOCKER, {}, [network("macvlan0", "macvlan", gateway="10.10.40.7")])
    place = ResolvedIntent(intended.intent, Snapshot(**{**_fields(intended.snapshot), "engine": engine, "agent": None}))
    assert not cause_of("MACVLAN-01", place).remedy


def test_what_the_engine_lists_and_says_of_the_last_end() -> None:
    listed = [{"Names": ["/a"], "NetworkSettings": {"Networks": {"macvlan0": {}}}}]
    assert networks_of_containers(listed) == {"a": ("macvlan0",)}
    assert networks_of_containers([{"Names": ["/a"]}]) is None
    events = "\n".join(json.dumps({"Actor": {"Attributes": {"exitCode": code}}}) for code in ("1", "3"))
    assert last_exit_code(events + "\nnot json\n") == 3
    assert last_exit_code("") is None
    for version in ("20.10", "26", "28", "29"):
        answers = json.loads((RECORDED / f"engine-{version}.json").read_text())
        assert not engine_from_answers(answers["version"], answers["info"], answers["networks"]).podman


def test_the_forward_policy_drops_what_a_bridge_forwards_only_with_br_netfilter() -> None:
    links = (
        Link(index=11, name="eth0", flags=("UP", "LOWER_UP"), master="br0"),
        Link(index=14, name="br0", kind="bridge", flags=("UP", "LOWER_UP")),
        Link(index=16, name="veth1pl1", kind="veth", master="br0", peer_index=2, peer_netnsid=0),
    )
    chain = FilterChain(
        backend="iptables",
        family="ip",
        table="filter",
        name="FORWARD",
        hook="forward",
        type="filter",
        policy="drop",
        rules=(),
    )
    for value, as_intended in (("1", False), ("0", True)):
        host = NetworkState(
            links=links, addresses=(address("br0", "10.10.40.9"),), rules=(MAIN,),
            routes=(default("10.10.40.1", "br0"),), packet_filter=PacketFilter(chains=(chain,)),
            sysctls={"net/bridge/bridge-nf-call-iptables": value},
        )  # fmt: skip
        state = agent(kind="veth", parent=16)
        place = resolved("pipework-static", networks=[], of=container(), host=host, state=state)
        assert predict(place, "icmp").as_intended is as_intended
        if not as_intended:
            cause = cause_of("EGRESS-01", place)
            assert cause.code == "FORWARD_DROPPED"
            assert cause.remedy.lines == ["iptables -I FORWARD -i br0 -o br0 -j ACCEPT"]
