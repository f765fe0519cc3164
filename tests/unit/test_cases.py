"""The cases of a check: by protocol, by source of the agent, by both, or the only one."""

from __future__ import annotations

import tomllib

import pytest

from fixtures.cases import cases_of
from viacheck.model.intent import SIDE_EVENTS
from viacheck.model.intent_file import parse_intent

SITE = """\
schema = 1
site = {name = "berlin-7"}
uplinks = {eth0 = {gateway = "10.10.40.1"}}
egress = {uplink = "eth0"}
probe = {protocols = ["udp", "tcp"]}
[agent]
container = "te-agent"
attach = {mode = "nat"}
"""
SOURCES = 'source = [{interface = "eth1"}, {address = "172.17.0.3"}]\n'


@pytest.mark.parametrize(
    ("names", "sources", "texts"),
    [
        ((), SOURCES, [None]),
        (("protocol",), SOURCES, ["udp", "tcp"]),
        (("agent_source",), SOURCES, ["from eth1", "from 172.17.0.3"]),
        (("agent_source", "protocol"), SOURCES,
         ["udp from eth1", "tcp from eth1", "udp from 172.17.0.3", "tcp from 172.17.0.3"]),
        (("agent_source", "protocol"), "", [None]),
        (("side_event",), SOURCES, list(SIDE_EVENTS)),
    ],
)  # fmt: skip
def test_each_case_has_a_name(names: tuple[str, ...], sources: str, texts: list[str | None]) -> None:
    cases = cases_of((*names, "traffic", "expect"), parse_intent(tomllib.loads(SITE + sources), source="site.toml"))
    assert [case.text for case in cases] == texts
    assert all(case.arguments.keys() == set(names) for case in cases)
