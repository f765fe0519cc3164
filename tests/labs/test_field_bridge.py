"""Bridged hosts as people report them, built by hand with a real engine, judged, and corrected as the report says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab.docker_engine.image import IMAGE, import_image
from tests.helpers.engine_host import EngineHost, engine_host, needs_engine
from tests.helpers.front_door import Finished
from tests.helpers.judgements import NOT_RUN, PASS, assert_saved_state_agrees, decided
from viacheck.model.diagnosis_record import Diagnosis
from viacheck.model.result import CheckResult
from viacheck.model.verdict import Verdict

pytestmark = needs_engine

MACVLAN = """\
schema = 1
[site]
name = "field"
[agent]
container = "te-agent"
[agent.attach]
mode = "macvlan"
network = "macvlan0"
parent = "eth0"
subnet = "10.10.40.0/24"
gateway = "10.10.40.1"
ip_range = "10.10.40.192/27"
[uplinks.eth0]
gateway = "10.10.40.1"
[egress]
uplink = "eth0"
persist = "none"
[probe]
target = "198.51.100.1"
protocols = ["icmp"]
timeout = "400ms"
"""
LAN_BRIDGE = (
    MACVLAN.replace("eth0", "br0")
    .replace('"macvlan"\nnetwork = "macvlan0"', '"pipework-static"\naddress = "10.10.40.200/24"')
    .replace('subnet = "10.10.40.0/24"\n', "")
    .replace('ip_range = "10.10.40.192/27"\n', "")
)
CREATE = (
    "docker network create -d macvlan --subnet=10.10.40.0/24 --gateway={gateway} --ip-range=10.10.40.192/27"
    "{options} -o parent=eth0 macvlan0"
)
QUICK = "(HOST-07 or MACVLAN-01 or MACVLAN-02 or EGRESS-01 or EGRESS-02 or NAT-03) and not FLAP"


@pytest.fixture(scope="module")
def host() -> Iterator[EngineHost]:
    with engine_host() as made:
        import_image(made.engine.client)
        made.shell("echo nameserver 198.51.100.1 >/etc/resolv.conf")
        yield made


@pytest.fixture
def lan(host: EngineHost) -> Iterator[EngineHost]:
    """The host with its macvlan network, and nothing else when the test has ended."""
    host.shell(CREATE.format(gateway="10.10.40.1", options=""))
    yield host
    host.shell("docker ps -aq | xargs -r docker rm -f; docker network prune -f")


def run_agent(host: EngineHost, options: str = "--net macvlan0", program: str = "sleep infinity") -> None:
    host.shell(f"docker run -d --init --name te-agent {options} {IMAGE} {program}")


def in_agent(host: EngineHost, line: str) -> None:
    host.shell(f"nsenter --net --target $(docker inspect -f '{{{{.State.Pid}}}}' te-agent) {line}")


def judge(host: EngineHost, folder: Path, name: str, site: str = MACVLAN, only: str = QUICK) -> Finished:
    (folder / name).mkdir()
    return host.judge(site, folder / name, "-k", only)


def worst(done: Finished, check: str) -> CheckResult:
    results = [result for result in done.outcome.results if result.check == check]
    return next((result for result in results if result.verdict is Verdict.FAIL), results[0])


def diagnosis(done: Finished, check: str, code: str) -> Diagnosis:
    result = worst(done, check)
    assert result.verdict is Verdict.FAIL, done.said
    assert result.diagnosis is not None
    assert result.diagnosis.code == code, done.said
    return result.diagnosis


def test_a_second_network_takes_the_default_route(lan: EngineHost, tmp_path: Path) -> None:
    run_agent(lan)
    lan.shell("docker network create backend && docker network connect backend te-agent")
    before = judge(lan, tmp_path, "before")
    assert_saved_state_agrees(before, in_bundle={"EGRESS-01": (Verdict.FAIL, "DEFAULT_BY_OTHER_NETWORK")})
    cause = diagnosis(before, "EGRESS-02", "DEFAULT_BY_OTHER_NETWORK")
    assert "Docker's network backend" in cause.cause
    assert cause.decision is not None
    assert "before Docker 28" in cause.decision
    for line in cause.remedy:
        lan.shell(line)
    after = judge(lan, tmp_path, "after")
    assert after.exit_code == 0, after.said
    for line in cause.undo:
        lan.shell(line)
    assert "default via 172." in lan.shell("docker exec te-agent ip route show default")


def test_an_agent_without_a_default_route(lan: EngineHost, tmp_path: Path) -> None:
    run_agent(lan)
    in_agent(lan, "ip route del default")
    before = judge(lan, tmp_path, "before")
    assert_saved_state_agrees(before)
    cause = diagnosis(before, "EGRESS-01", "AGENT_NO_ROUTE")
    assert "docker restart te-agent" in cause.cause
    for line in cause.remedy:
        lan.shell(line)
    lan.shell("docker exec te-agent ping -c 1 -W 5 198.51.100.1")


def test_a_container_that_shares_another_ones_network(lan: EngineHost, tmp_path: Path) -> None:
    lan.shell(f"docker run -d --init --name vpn --net macvlan0 {IMAGE} sleep infinity")
    run_agent(lan, "--net container:vpn")
    healthy = judge(lan, tmp_path, "healthy", only="HOST-07 or MACVLAN-02")
    assert healthy.exit_code == 0, healthy.said
    lan.shell("docker restart -t 0 vpn")
    assert_saved_state_agrees(healthy)
    lost = judge(lan, tmp_path, "lost", only="HOST-07")
    assert_saved_state_agrees(lost)
    cause = diagnosis(lost, "HOST-07", "AGENT_NOT_RUNNING")
    assert "no interface but lo" in cause.cause
    assert cause.remedy == ["docker restart te-agent"]


def test_a_crash_loop_has_its_exit_code(lan: EngineHost, tmp_path: Path) -> None:
    run_agent(lan, "--net macvlan0 --restart always", "sh -c 'sleep 1; exit 3'")
    lan.shell("until [ $(docker inspect -f '{{.RestartCount}}' te-agent) -ge 2 ]; do sleep 0.1; done")
    loop = judge(lan, tmp_path, "loop", only="HOST-07")
    assert_saved_state_agrees(loop)
    cause = diagnosis(loop, "HOST-07", "AGENT_NOT_RUNNING")
    assert "restarts again and again" in cause.cause
    assert "exit code 3" in cause.cause


def test_a_network_with_a_wrong_gateway_keeps_its_options(host: EngineHost, tmp_path: Path) -> None:
    host.shell(CREATE.format(gateway="10.10.40.254", options=" --aux-address=printer=10.10.40.193"))
    try:
        run_agent(host, "--net macvlan0 --ip 10.10.40.205")
        wrong = judge(host, tmp_path, "before")
        assert_saved_state_agrees(wrong, in_bundle={"EGRESS-01": NOT_RUN})
        cause = diagnosis(wrong, "MACVLAN-01", "GATEWAY_MISMATCH")
        before = host.shell("docker network inspect -f '{{json .IPAM.Config}}' macvlan0")
        for line in cause.remedy:
            host.shell(line)
        after = judge(host, tmp_path, "after")
        assert after.exit_code == 0, after.said
        settings = host.shell("docker network inspect -f '{{json .IPAM.Config}}' macvlan0")
        assert settings == before.replace("10.10.40.254", "10.10.40.1")
        assert "10.10.40.205/24" in host.shell("docker exec te-agent ip address")
        for line in cause.undo:
            host.shell(line)
        assert host.shell("docker network inspect -f '{{json .IPAM.Config}}' macvlan0") == before
        host.shell(f"docker create --name beside --net macvlan0 {IMAGE} sleep infinity")
        withheld = diagnosis(judge(host, tmp_path, "beside", only="MACVLAN-01"), "MACVLAN-01", "GATEWAY_MISMATCH")
        assert not withheld.remedy
        assert "beside" in str(withheld.decision)
        assert not withheld.site_file, "the gateway of the file answers"
    finally:
        host.shell("docker ps -aq | xargs -r docker rm -f; docker network prune -f")


def test_the_packet_filter_drops_the_frames_of_a_lan_bridge(tmp_path: Path) -> None:
    with engine_host() as host:
        import_image(host.engine.client)
        run_agent(host, "--net none")
        host.shell(
            "ip link add br0 type bridge; ip address del 10.10.40.9/24 dev eth0; ip link set eth0 master br0;"
            "ip tuntap add tap0 mode tap; ip link set tap0 up master br0;"
            "ip link set br0 up; ip address add 10.10.40.9/24 dev br0; ip route replace default via 10.10.40.1 dev br0;"
            "ip link add veth1pl1 type veth peer name eth1; ip link set veth1pl1 up master br0;"
            "ip link set eth1 netns $(docker inspect -f '{{.State.Pid}}' te-agent)"
        )
        for line in ("address add 10.10.40.200/24 dev eth1", "link set eth1 up", "route add default via 10.10.40.1"):
            in_agent(host, f"ip {line}")
        before = judge(host, tmp_path, "before", LAN_BRIDGE, "EGRESS-01")
        assert_saved_state_agrees(before)
        cause = diagnosis(before, "EGRESS-01", "FORWARD_DROPPED")
        assert "br_netfilter" in cause.cause
        for line in cause.remedy:
            host.shell(line)
        host.shell("docker exec te-agent ping -c 1 -W 5 198.51.100.1")


def test_a_probe_target_or_a_resolver_that_is_the_host_itself(lan: EngineHost, tmp_path: Path) -> None:
    run_agent(lan, "--net macvlan0 --dns 10.10.40.9")
    site = MACVLAN.replace("198.51.100.1", "10.10.40.9")
    target = judge(lan, tmp_path, "target", site, "HOST-07 or EGRESS-01")
    cause = diagnosis(target, "EGRESS-01", "TARGET_IS_HOST")
    assert "macvlan isolates the agent from its own host" in cause.cause
    assert "target of [probe]" in str(cause.decision)
    assert_saved_state_agrees(target)
    resolver = judge(lan, tmp_path, "resolver", only="EGRESS-01 or EGRESS-05")
    cause = diagnosis(resolver, "EGRESS-05", "RESOLVER_IS_HOST")
    assert "10.10.40.9 is this host itself" in cause.cause
    assert_saved_state_agrees(
        resolver,
        in_replica={"EGRESS-05": (Verdict.NOT_APPLICABLE, None)},
        replica_notes=("Docker's DNS is not reproduced in the replica",),
    )


def test_an_ipvlan_network_is_never_taken_for_macvlan(host: EngineHost, tmp_path: Path) -> None:
    """The real engine makes the network on any kernel; its container needs one with ipvlan."""
    host.shell(CREATE.format(gateway="10.10.40.1", options="").replace("-d macvlan", "-d ipvlan"))
    try:
        host.shell(f"docker create --name te-agent --net macvlan0 {IMAGE} sleep infinity")
        done = judge(host, tmp_path, "macvlan", only="MACVLAN-01")
        cause = diagnosis(done, "MACVLAN-01", "NETWORK_WRONG_DRIVER")
        assert 'mode = "ipvlan"' in cause.site_file
        assert_saved_state_agrees(done)
        right = judge(host, tmp_path, "ipvlan", MACVLAN.replace('"macvlan"', '"ipvlan"'), "MACVLAN-01")
        assert decided(right) == {"MACVLAN-01": PASS}, right.said
    finally:
        host.shell("docker ps -aq | xargs -r docker rm -f; docker network prune -f")


NAT = """\
schema = 1
[site]
name = "field"
[agent]
container = "te-agent"
[agent.attach]
mode = "nat"
network = "probes"
[uplinks.eth0]
gateway = "10.10.40.1"
[egress]
uplink = "eth0"
persist = "none"
[probe]
target = "198.51.100.1"
protocols = ["icmp"]
timeout = "400ms"
"""


def test_an_internal_network_is_the_cause_and_no_firewall_is_opened(host: EngineHost, tmp_path: Path) -> None:
    host.shell("docker network create --internal probes")
    try:
        run_agent(host, "--net probes")
        done = judge(host, tmp_path, "internal", NAT, "NAT-03 or HOST-04 or EGRESS-01")
        cause = diagnosis(done, "EGRESS-01", "NETWORK_INTERNAL")
        assert not cause.remedy
        assert_saved_state_agrees(done)
    finally:
        host.shell("docker ps -aq | xargs -r docker rm -f; docker network prune -f")


def test_another_network_of_compose_gets_the_line_of_the_site_file(host: EngineHost, tmp_path: Path) -> None:
    host.shell(CREATE.format(gateway="10.10.40.1", options="").replace(" macvlan0", " te_macvlan0"))
    try:
        run_agent(host, "--net te_macvlan0")
        done = judge(host, tmp_path, "renamed", only="MACVLAN-01 or MACVLAN-02 or EGRESS-01 or NAT-03")
        cause = diagnosis(done, "MACVLAN-02", "AGENT_NOT_ATTACHED")
        assert 'network = "te_macvlan0"' in cause.site_file
        assert not cause.remedy, "no network is created again because of a wrong name in the file"
        assert_saved_state_agrees(done)
    finally:
        host.shell("docker ps -aq | xargs -r docker rm -f; docker network prune -f")
