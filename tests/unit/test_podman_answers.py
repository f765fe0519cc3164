"""Podman on its socket, from the recorded answers of a real one: networks, container, remedies, the socket's place."""

from __future__ import annotations

import copy
import dataclasses
import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.paths import RECORDED
from viacheck.analysis.macvlan_facts import leased_by_engine, network_faults
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.remedy import Remedy, command, container_pid, with_programs
from viacheck.host import docker
from viacheck.model.docker_state import DockerEngine, IPAMPool
from viacheck.model.intent_draft import attachment_lines
from viacheck.model.intent_file import parse_intent
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import Snapshot
from viacheck.parsers.docker_api import engine_from_answers
from viacheck.parsers.podman_api import podman_networks

ANSWERS: dict[str, Any] = json.loads((RECORDED / "engine-podman-5.json").read_text())
SECRET = "s3cret-token"


def translated(of_podman: Any = ANSWERS["of_podman"], container: Any = ANSWERS["container"]) -> DockerEngine:
    return engine_from_answers(
        ANSWERS["version"], ANSWERS["info"], ANSWERS["networks"], container, of_podman=of_podman
    )  # fmt: skip


def test_its_own_answer_has_parents_ranges_and_bridges() -> None:
    engine = translated()
    assert (engine.podman, engine.program, engine.rootless) == (True, "podman", False)
    facts = {
        network.name: (network.driver, network.parent, network.bridge, network.address_management)
        for network in engine.networks
    }
    assert facts == {
        "podman": ("bridge", None, "podman0", None),
        "measure": ("bridge", None, "br-measure", None),
        "macvlan0": ("macvlan", "eth0", None, None),
        "leased0": ("macvlan", "eth0", None, "dhcp"),
        "partly0": ("macvlan", "eth0", None, None),
    }
    pools = {network.name: network.pools for network in engine.networks}
    lan = IPAMPool(subnet="10.10.40.0/24", gateway="10.10.40.1")
    assert pools["macvlan0"] == (dataclasses.replace(lan, ip_range="10.10.40.192/27"),)
    assert pools["partly0"] == (dataclasses.replace(lan, ip_range="10.10.40.20-10.10.40.30"),)
    assert pools["leased0"] == ()
    partly = engine.network("partly0")
    assert partly is not None
    assert (partly.options, partly.not_kept) == ({"mode": "vepa"}, ("labels",))


def test_dockers_api_calls_its_default_network_by_another_name() -> None:
    """A podman before version 4 gives Docker's answer alone."""
    assert {network["Name"] for network in ANSWERS["networks"]} >= {"bridge", "macvlan0"}
    engine = translated(of_podman=None)
    facts = {network.name: (network.parent, network.bridge) for network in engine.networks}
    assert facts["podman"] == (None, "podman0")
    assert facts["measure"] == (None, None)
    assert facts["macvlan0"] == (None, None)


def test_the_container_is_on_its_networks() -> None:
    container = translated().container
    assert container is not None
    assert (container.name, container.running, container.network_mode) == ("te-agent", True, "bridge")
    assert (container.restart_policy, container.dns) == ("unless-stopped", ("10.10.40.53",))
    assert {on.network: (on.address, on.gateway, on.aliases) for on in container.attachments} == {
        "macvlan0": ("10.10.40.193", "10.10.40.1", ()),
        "measure": ("172.30.0.2", "172.30.0.1", ()),
    }
    assert "TEAGENT_ACCOUNT_TOKEN" in container.environment_names
    assert SECRET not in json.dumps(dataclasses.asdict(container))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_any_range_is_a_subnet_or_its_ends(first: int, last: int) -> None:
    ends = {"start_ip": str(IPv4Address(first)), "end_ip": str(IPv4Address(last))}
    answer = [{"name": "x", "id": "x", "driver": "macvlan", "subnets": [{"subnet": "0.0.0.0/0", "lease_range": ends}]}]
    ((pool,),) = (network.pools for network in podman_networks(answer))
    assert pool.ip_range is not None
    assert "/" in pool.ip_range or pool.ip_range == f"{ends['start_ip']}-{ends['end_ip']}"


def test_a_range_that_is_no_subnet_and_a_lease_are_not_written_into_a_site_file() -> None:
    engine = translated()
    lines = {network.name: attachment_lines(network) for network in engine.networks}
    assert 'ip_range = "10.10.40.192/27"' in lines["macvlan0"]
    assert not any("ip_range" in line for line in lines["partly0"])
    assert lines["leased0"] == ('mode = "macvlan"', 'network = "leased0"', 'parent = "eth0"')


def test_its_commands_are_those_of_docker_by_its_own_name() -> None:
    inside = ("nsenter", "--net", "--target", container_pid("te-agent"), "ip", "route")
    remedy = with_programs(
        Remedy((command("docker", "start", "te-agent"), inside), (command("ip", "docker"),)), {"docker": "podman"}
    )
    assert remedy.lines == [
        "podman start te-agent",
        "nsenter --net --target $(podman inspect -f '{{.State.Pid}}' te-agent) ip route",
    ]
    assert remedy.rollback_lines == ["ip docker"]


@pytest.mark.parametrize(("existing", "used"), [((), 0), ((0,), 0), ((1,), 1), ((0, 1), 0)])
def test_its_socket_is_used_where_docker_has_none(
    existing: tuple[int, ...], used: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / "docker.sock", tmp_path / "podman.sock"]
    for number in existing:
        places[number].touch()
    monkeypatch.setattr(docker, "PODMAN_SOCKET", str(places[1]))
    assert docker.usual_address(f"unix://{places[0]}") == f"unix://{places[used]}"


def place(gateway: str, parent: int = 11, network: str = "leased0") -> ResolvedIntent:
    """An agent on a network with DHCP, whose lease names a router."""
    attach = {
        "mode": "macvlan", "network": network, "parent": "eth0", "subnet": "10.10.40.0/24", "gateway": "10.10.40.1",
    }  # fmt: skip
    intent = parse_intent(
        {
            "schema": 1, "site": {"name": "x"}, "agent": {"container": "te-agent", "attach": attach},
            "uplinks": {"eth0": {"gateway": "10.10.40.1"}}, "egress": {"uplink": "eth0"},
        },
        source="test",
    )  # fmt: skip
    lan = Address(interface="eth0", family=4, address="10.10.40.9", prefixlen=24)
    links = (Link(index=11, name="eth0", flags=("UP", "LOWER_UP")), Link(index=12, name="wlan0", flags=("UP",)))
    own = Link(index=2, name="eth0", kind="macvlan", flags=("UP",), peer_index=parent, peer_netnsid=0)
    default = Route(
        family=4, table=254, destination="0.0.0.0/0", nexthops=(Nexthop(gateway=gateway, interface="eth0"),)
    )
    answer = copy.deepcopy(ANSWERS["container"])
    answer["NetworkSettings"]["Networks"] = {network: {"IPAddress": "10.10.40.100"}}
    snapshot = Snapshot(
        taken="2026-11-26T12:00:00+00:00", hostname="h", kernel="6.1",
        host=NetworkState(links=links, addresses=(lan,)),
        agent=NetworkState(
            links=(own,), addresses=(dataclasses.replace(lan, address="10.10.40.100"),), routes=(default,)
        ),
        engine=translated(container=answer),
    )  # fmt: skip
    return ResolvedIntent(intent, snapshot)


def test_the_lease_says_the_gateway_of_a_network_with_dhcp() -> None:
    assert leased_by_engine(place("10.10.40.1"))
    assert network_faults(place("10.10.40.1")) == []
    assert [(fault.code, fault.text) for fault in network_faults(place("10.10.40.254"))] == [
        ("GATEWAY_MISMATCH", "its gateway is 10.10.40.254")
    ]
    assert not leased_by_engine(place("10.10.40.1", network="macvlan0"))


def test_the_parent_is_what_podman_says() -> None:
    answers = [
        {**network, "network_interface": "wlan0"} if network["name"] == "leased0" else network
        for network in ANSWERS["of_podman"]
    ]
    wrong = dataclasses.replace(place("10.10.40.1").snapshot, engine=translated(answers))
    assert [fault.text for fault in network_faults(ResolvedIntent(place("10.10.40.1").intent, wrong))] == [
        "the parent of leased0 is wlan0"
    ]
