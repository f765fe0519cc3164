"""An engine that started before its network's parent was there, as a run after the boot finds it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.test_remedy import CONTAINER, bridged
from viacheck.diagnosis.priority import diagnose
from viacheck.model.docker_state import ContainerState, DockerEngine
from viacheck.model.measurements import Measurements
from viacheck.parsers.unit_names import device_unit

NOT_FOUND = f'failed to create endpoint te-agent on network macvlan0: network id "{"0a" * 32}" not found'


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (NOT_FOUND, ["systemctl daemon-reload", "systemctl restart docker.service"]),
        ("exec: sleep: not found", ["docker start te-agent"]),
    ],
)
def test_a_network_that_was_not_set_up_again_needs_the_engine_s_restart(error: str, fix: list[str]) -> None:
    stopped = replace(CONTAINER, running=False, pid=0, state=ContainerState(status="exited", error=error))
    case = bridged("macvlan", None, engine=DockerEngine(version="28", api_version="1", container=stopped))
    cause = diagnose("HOST-07", case, Measurements())
    assert cause is not None
    assert cause.code == "AGENT_NOT_RUNNING"
    assert cause.remedy.lines[-len(fix) :] == fix
    assert ("eth0 was not there yet" in cause.sentence) is (error is NOT_FOUND)


def test_a_dash_in_an_interface_s_name_is_escaped_as_systemd_does_it() -> None:
    assert device_unit("br-lan.1") == "sys-subsystem-net-devices-br\\x2dlan.1.device"
