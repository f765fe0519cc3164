"""Which changes of a host during a run may change where the agent's packets go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reports.run_diff import differences
from viacheck.model.diff import changes, moving_packets
from viacheck.model.docker_state import DockerEngine, DockerNetwork
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.result import Run, RunResult, TargetRecord
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import HostFile, Snapshot
from viacheck.model.snapshot_json import snapshot_json

NEEDED = {"eth0", "docker0"}
LINKS = (Link(index=2, name="eth0", flags=("UP",)), Link(index=6, name="vethc28fc46"))
HOST = NetworkState(
    links=LINKS,
    addresses=(Address(interface="vethc28fc46", family=6, address="fe80::1", prefixlen=64),),
    rules=(Rule(family=4, priority=100, source="172.17.0.0/16", table=200),),
    routes=(Route(family=4, table=200, destination="0.0.0.0/0", nexthops=(Nexthop(interface="eth0"),)),),
    sysctls={"net/ipv4/conf/vethc28fc46/rp_filter": "0", "net/ipv4/conf/eth0/rp_filter": "0"},
)
RESTARTED = replace(
    HOST,
    links=(LINKS[0], Link(index=8, name="vethbbb2446")),
    addresses=(Address(interface="vethbbb2446", family=6, address="fe80::2", prefixlen=64),),
    sysctls={"net/ipv4/conf/vethbbb2446/rp_filter": "0", "net/ipv4/conf/eth0/rp_filter": "0"},
)
CHANGED = {
    "a rule is gone": replace(HOST, rules=()),
    "a route is new": replace(HOST, routes=(*HOST.routes, Route(family=4, table=254, destination="203.0.113.0/24"))),
    "an uplink is gone": replace(HOST, links=LINKS[1:]),
    "an uplink is down": replace(HOST, links=(replace(LINKS[0], flags=()), LINKS[1])),
    "a value of an uplink": replace(HOST, sysctls={**HOST.sysctls, "net/ipv4/conf/eth0/rp_filter": "1"}),
    "a value of the host": replace(HOST, sysctls={**HOST.sysctls, "net/ipv4/ip_forward": "0"}),
}


def moved(host: NetworkState) -> list[str]:
    before, after = (
        Snapshot(taken="2026-01-01T00:00:00+00:00", hostname="h", kernel="6", host=state) for state in (HOST, host)
    )
    assert changes(before, after)
    return list(map(str, moving_packets(changes(before, after), NEEDED)))


def test_the_interface_of_a_container_that_restarts_moves_no_packets() -> None:
    assert moved(RESTARTED) == []


@pytest.mark.parametrize("state", CHANGED.values(), ids=CHANGED)
def test_a_change_of_the_path_counts(state: NetworkState) -> None:
    assert moved(state)


def test_each_difference_between_two_runs_is_a_sentence() -> None:
    """None of them holds a value as Python prints it."""
    engine, file = DockerEngine(version="27.0.1", api_version="1.46"), HostFile(path="/etc/rc.local", exists=True)
    before = Snapshot(
        taken="2026-01-01T00:00:00+00:00", hostname="h", kernel="6", host=HOST, engine=engine, files=(file,)
    )
    network = DockerNetwork(name="probes", id="1" * 64, driver="macvlan")
    values = {"net/ipv4/conf/vethbbb2446/rp_filter": "0", "net/ipv4/conf/eth0/rp_filter": "1"}
    links = replace(LINKS[0], flags=()), RESTARTED.links[1]
    after = replace(
        before,
        host=replace(RESTARTED, rules=(), links=links, sysctls=values),
        engine=replace(engine, networks=(network,)),
        files=(replace(file, text="exit 0"),),
    )
    sentences = [difference.text for difference in differences(run_of(before), run_of(after))]
    assert sentences == [
        "The host's link eth0 changed from 'eth0 <UP> mtu 1500' to 'eth0 <> mtu 1500'.",
        "The host's link vethc28fc46 <> mtu 1500 is gone.",
        "The host's link vethbbb2446 <> mtu 1500 is new.",
        "The host's address fe80::1/64 dev vethc28fc46 is gone.",
        "The host's address fe80::2/64 dev vethbbb2446 is new.",
        "The host's rule priority 100 from 172.17.0.0/16 lookup 200 is gone.",
        "The host's sysctl net/ipv4/conf/eth0/rp_filter changed from 0 to 1.",
        "Engine network probes macvlan is new.",
        "The text of /etc/rc.local changed.",
    ]


def run_of(snapshot: Snapshot) -> RunResult:
    """Return a run that saved a state and judged nothing."""
    target = TargetRecord(
        id="local:h", kind="local", verdict="inconclusive", intent={}, snapshot=snapshot_json(snapshot)
    )
    run = Run(id="1", started=snapshot.taken, finished=snapshot.taken, command="viacheck")
    return RunResult(run=run, targets=[target], results=[])
