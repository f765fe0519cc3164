"""``--local`` on bridged hosts that viacheck did not make: a real engine with a macvlan network, and pipework by hand.

Everything is typed as the guide says it, inside the engine's own namespaces, where its process numbers are true.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.engine_host import EngineHost, engine_host, needs_engine
from tests.helpers.front_door import Finished, by_check
from tests.helpers.judgements import assert_saved_state_agrees
from viacheck.model.check_evidence import StateEvidence
from viacheck.model.result import CheckResult
from viacheck.model.verdict import Verdict

pytestmark = needs_engine

HEAD = """\
schema = 1
[site]
name = "bridged-by-hand"
[agent]
container = "te-agent"
[uplinks.eth0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
[egress]
uplink = "eth0"
persist = "none"
[host]
default_exit = "eth0"
[probe]
target = "198.51.100.1"
timeout = "400ms"
[agent.attach]
"""
MACVLAN = """\
mode = "macvlan"
network = "macvlan0"
parent = "eth0"
subnet = "10.10.40.0/24"
gateway = "10.10.40.1"
"""
PIPEWORK = """\
mode = "pipework-static"
parent = "eth0"
address = "10.10.40.200/24"
gateway = "10.10.40.1"
"""


@pytest.fixture
def host() -> Iterator[EngineHost]:
    with engine_host() as made:
        yield made


def told(done: Finished, check: str) -> CheckResult:
    return by_check(done.outcome, "local:bridged-by-hand")[check][0]


def test_a_macvlan_network_by_hand(host: EngineHost, tmp_path: Path) -> None:
    host.type("docker network create -d macvlan --subnet=10.10.40.0/24 --gateway=10.10.40.1 -o parent=eth0 macvlan0")
    host.run_agent("macvlan0")
    done = host.judge(HEAD + MACVLAN, tmp_path)
    assert done.exit_code == 0, done.said
    for number in range(1, 7):
        assert told(done, f"MACVLAN-0{number}").verdict is Verdict.PASS, done.said
    for check in ("HOST-01", "HOST-07", "EGRESS-01", "EGRESS-02", "EGRESS-03"):
        assert told(done, check).verdict is Verdict.PASS, done.said
    facts = [one for one in told(done, "MACVLAN-03").evidence if isinstance(one, StateEvidence)]
    assert "not a failure" in facts[0].lines[0]
    assert_saved_state_agrees(
        done,
        in_replica={"EGRESS-05": (Verdict.NOT_APPLICABLE, None)},
        replica_notes=("Docker's DNS is not reproduced in the replica",),
    )


def test_a_macvlan_network_on_the_wrong_parent_and_its_mend(host: EngineHost, tmp_path: Path) -> None:
    host.type("docker network create -d macvlan --subnet=10.10.40.0/24 --gateway=10.10.40.1 -o parent=wlan0 macvlan0")
    host.run_agent("macvlan0")
    (tmp_path / "before").mkdir()
    done = host.judge(HEAD + MACVLAN, tmp_path / "before")
    assert done.exit_code == 1, done.said
    assert_saved_state_agrees(done)
    diagnosis = told(done, "MACVLAN-01").diagnosis
    assert diagnosis is not None
    assert diagnosis.code == "PARENT_WRONG"
    for line in diagnosis.remedy:
        host.type(line)
    (tmp_path / "after").mkdir()
    mended = host.judge(HEAD + MACVLAN, tmp_path / "after")
    assert mended.exit_code == 0, mended.said


def test_an_agent_that_was_started_without_net_and_its_mend(host: EngineHost, tmp_path: Path) -> None:
    host.type("docker network create -d macvlan --subnet=10.10.40.0/24 --gateway=10.10.40.1 -o parent=eth0 macvlan0")
    host.run_agent("bridge")
    (tmp_path / "before").mkdir()
    done = host.judge(HEAD + MACVLAN, tmp_path / "before")
    # The packets leave by eth0, by docker0 and NAT: the live EGRESS-02 and MACVLAN-03 show it, a bundle by EGRESS-01.
    assert_saved_state_agrees(done, in_bundle={"EGRESS-01": (Verdict.FAIL, "AGENT_NOT_ATTACHED")})
    diagnosis = told(done, "MACVLAN-02").diagnosis
    assert diagnosis is not None
    assert diagnosis.code == "AGENT_NOT_ATTACHED"
    for line in diagnosis.remedy:
        host.type(line)
    # The kernel tells some time later that the bridge has lost its last port.
    host.shell("for _ in $(seq 300); do ip link show docker0 | grep -q NO-CARRIER && exit; sleep 0.1; done; exit 1")
    (tmp_path / "after").mkdir()
    mended = host.judge(HEAD + MACVLAN, tmp_path / "after")
    assert mended.exit_code == 0, mended.said


@pytest.fixture
def with_pipework(host: EngineHost) -> EngineHost:
    """The same host with pipework where the guide puts it."""
    host.install_pipework()
    return host


def test_pipework_by_hand(with_pipework: EngineHost, tmp_path: Path) -> None:
    with_pipework.run_agent("none")
    with_pipework.type("pipework eth0 te-agent 10.10.40.200/24@10.10.40.1")
    done = with_pipework.judge(HEAD + PIPEWORK, tmp_path)
    assert done.exit_code == 0, done.said
    for number in range(1, 5):
        assert told(done, f"PIPEWORK-0{number}").verdict is Verdict.PASS, done.said
    for check in ("MACVLAN-05", "MACVLAN-06", "EGRESS-01", "EGRESS-02"):
        assert told(done, check).verdict is Verdict.PASS, done.said
    assert told(done, "PIPEWORK-05").verdict is Verdict.NOT_APPLICABLE
    assert_saved_state_agrees(done)


def test_pipework_by_hand_is_not_persistent_unless_that_is_meant(with_pipework: EngineHost, tmp_path: Path) -> None:
    with_pipework.run_agent("none")
    with_pipework.type("pipework eth0 te-agent 10.10.40.200/24@10.10.40.1")
    done = with_pipework.judge(HEAD.replace('persist = "none"\n', "") + PIPEWORK, tmp_path)
    assert done.exit_code == 1, done.said
    assert_saved_state_agrees(done)
    diagnosis = told(done, "PIPEWORK-05").diagnosis
    assert diagnosis is not None
    assert diagnosis.code == "PIPEWORK_NOT_PERSISTENT"
    for words in ("a reboot", "a change of the parent", "a restart of the container"):
        assert words in diagnosis.cause


def test_a_restarted_container_has_lost_its_interface_and_pipework_mends_it(
    with_pipework: EngineHost, tmp_path: Path
) -> None:
    with_pipework.run_agent("none")
    with_pipework.type("pipework eth0 te-agent 10.10.40.200/24@10.10.40.1")
    with_pipework.type("docker restart te-agent")
    (tmp_path / "before").mkdir()
    done = with_pipework.judge(HEAD + PIPEWORK, tmp_path / "before")
    assert_saved_state_agrees(done)
    diagnosis = told(done, "PIPEWORK-03").diagnosis
    assert diagnosis is not None
    assert diagnosis.code == "PIPEWORK_NOT_APPLIED"
    for line in diagnosis.remedy:
        with_pipework.type(line)
    (tmp_path / "after").mkdir()
    mended = with_pipework.judge(HEAD + PIPEWORK, tmp_path / "after")
    assert mended.exit_code == 0, mended.said
