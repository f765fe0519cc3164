"""A live host's container is restarted only with both consents, and the guard restores the host's state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.engine_host import EngineHost, engine_host, needs_engine
from tests.helpers.front_door import Finished, by_check
from viacheck.disruption.timeline_evidence import EVENT_LANE
from viacheck.model.check_evidence import TimelineEvidence
from viacheck.model.result import CheckResult
from viacheck.model.verdict import Verdict

pytestmark = needs_engine
SITE = """\
schema = 1
allow_disruptive = true
[site]
name = "restarted"
[agent]
container = "te-agent"
[agent.attach]
mode = "nat"
network = "bridge"
[uplinks.eth0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
[egress]
uplink = "eth0"
persist = "none"
survives = ["container-restart"]
[probe]
target = "198.51.100.1"
timeout = "400ms"
"""
ONLY = ("-k", "EGRESS-01 or FLAP-04 or FLAP-05 or EGRESS-06")


@pytest.fixture
def host() -> Iterator[EngineHost]:
    with engine_host() as host:
        host.run_agent("bridge")
        yield host


def result_of(done: Finished, check: str) -> CheckResult:
    return by_check(done.outcome, "local:restarted")[check][0]


def process(host: EngineHost) -> str:
    return host.type("docker inspect --format {{.State.Pid}} te-agent")


def state(host: EngineHost) -> list[str]:
    return [host.host.ip(arguments) for arguments in ("rule", "route show table all", "-br address show dev eth0")]


def test_the_container_is_restarted_and_its_packets_watched(host: EngineHost, tmp_path: Path) -> None:
    before, pid_before = state(host), process(host)
    done = host.judge(SITE, tmp_path, "--allow-disruptive", *ONLY)
    restart = result_of(done, "FLAP-04")
    assert restart.verdict is Verdict.PASS, (restart.observed, done.said)
    assert (done.exit_code, done.outcome.targets[0].alerts) == (0, []), done.said
    assert "recovers in" in restart.observed
    timeline = next(evidence for evidence in restart.evidence if isinstance(evidence, TimelineEvidence))
    steps = [event.what for event in timeline.events if event.lane == EVENT_LANE]
    assert steps == ["docker restart te-agent", "the agent's new namespace is open"], (
        "no packet can be sent before that"
    )
    assert process(host) != pid_before
    assert state(host) == before
    assert "  te-agent: docker restart, at most" in done.stdout
    assert any("after the container te-agent is restarted: the host was restored" in note
               for note in done.outcome.targets[0].notes)  # fmt: skip


def test_an_engine_that_systemd_does_not_run_is_not_restarted(host: EngineHost, tmp_path: Path) -> None:
    done = host.judge(SITE, tmp_path, "--allow-disruptive", "--events", "engine-restart", *ONLY)
    restart = result_of(done, "FLAP-05")
    assert restart.verdict is Verdict.NOT_RUN
    assert "systemd does not run the Docker engine here" in restart.observed


def test_without_the_option_the_container_is_not_restarted(host: EngineHost, tmp_path: Path) -> None:
    pid_before = process(host)
    done = host.judge(SITE, tmp_path, *ONLY)
    assert (result_of(done, "FLAP-04").verdict, process(host)) == (Verdict.NOT_RUN, pid_before)
