"""The agent's container in the engine's own terms: paused, in a crash loop, exited, without its interface."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from viacheck.analysis.container_facts import AgentFault, agent_fault, is_unhealthy
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis import diagnose
from viacheck.model.intent import Intent
from viacheck.model.intent_file import parse_intent
from viacheck.model.measurements import Measurements
from viacheck.model.namespace_state import Link, NetworkState
from viacheck.model.snapshot import Snapshot
from viacheck.parsers.docker_api import engine_from_answers

VERSION = {"Version": "28.5.2", "ApiVersion": "1.51"}
LO, ETH0 = Link(index=1, name="lo"), Link(index=2, name="eth0", kind="veth")
RUNNING = {"Status": "running", "Running": True, "Pid": 77, "StartedAt": "2026-11-20T08:00:00.123456789Z"}


def intent(mode: str = "nat") -> Intent:
    attach = {"mode": mode} if mode == "nat" else {"mode": mode, "parent": "eth0"}
    return parse_intent(
        {
            "schema": 1, "site": {"name": "x"}, "agent": {"container": "te-agent", "attach": attach},
            "uplinks": {"eth0": {"gateway": "10.10.40.1"}}, "egress": {"uplink": "eth0"},
        },
        source="test",
    )  # fmt: skip


def resolved(state: dict[str, Any], *, restarts: int = 0, links: tuple[Link, ...] = (LO, ETH0)) -> ResolvedIntent:
    answer = {"Name": "/te-agent", "Id": "0" * 64, "State": state, "RestartCount": restarts}
    snapshot = Snapshot(
        taken="2026-11-26T12:00:00+00:00", hostname="h", kernel="6.1", host=NetworkState(),
        agent=NetworkState(links=links), engine=engine_from_answers(VERSION, {}, [], answer),
    )  # fmt: skip
    return ResolvedIntent(intent(), snapshot)


@pytest.mark.parametrize(
    ("state", "restarts", "fault", "text"),
    [
        (RUNNING, 0, None, ""),
        (RUNNING, 7, None, ""),
        ({**RUNNING, "Status": "paused", "Paused": True}, 0, AgentFault.PAUSED, "is paused"),
        (
            {**RUNNING, "Status": "restarting", "Restarting": True, "ExitCode": 3},
            12,
            AgentFault.CRASH_LOOP,
            "12 restarts, last start 2026-11-20T08:00:00.123456789Z, exit code 3",
        ),
        ({**RUNNING, "StartedAt": "2026-11-26T11:59:58.5Z"}, 4, AgentFault.CRASH_LOOP, "4 restarts"),
        ({**RUNNING, "StartedAt": "2026-11-26T11:59:58.5Z"}, 1, None, ""),
        (
            {"Status": "exited", "Running": False, "ExitCode": 137, "OOMKilled": True},
            0,
            AgentFault.EXITED,
            "is exited: exit code 137, killed for lack of memory",
        ),
        (
            {"Status": "created", "Running": False, "Error": "driver failed programming external connectivity"},
            0,
            AgentFault.EXITED,
            "exit code 0, driver failed programming external connectivity",
        ),
    ],
)
def test_the_engines_own_terms(state: dict[str, Any], restarts: int, fault: AgentFault | None, text: str) -> None:
    found = agent_fault(resolved(state, restarts=restarts))
    assert (found.fault if found is not None else None) == fault
    if found is not None:
        assert text in found.text


def test_a_namespace_with_lo_alone_has_lost_its_interface() -> None:
    found = agent_fault(resolved(RUNNING, links=(LO,)))
    assert found is not None
    assert found.fault is AgentFault.NO_INTERFACE


def test_pipework_reports_its_own_missing_interface() -> None:
    without = resolved(RUNNING, links=(LO,))
    assert agent_fault(replace(without, intent=intent("pipework-dhcp"))) is None


def test_an_unhealthy_container_runs_all_the_same() -> None:
    place = resolved({**RUNNING, "Health": {"Status": "unhealthy"}})
    assert agent_fault(place) is None
    assert is_unhealthy(place)
    cause = diagnose("HOST-07", place, Measurements())
    assert cause is not None
    assert cause.code == "AGENT_UNHEALTHY"
    assert not is_unhealthy(resolved({**RUNNING, "Health": {"Status": "healthy"}}))
