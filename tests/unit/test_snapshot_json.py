"""Saved snapshots: read again as they were, of every version, and compared as typed values."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.helpers import routing_strategies
from tests.helpers.paths import RECORDED
from viacheck.model.diff import Change, Subject, SysctlValue, changes
from viacheck.model.filter_chains import FilterChain, FilterRule, PacketFilter
from viacheck.model.namespace_state import Address, NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.saved_routes import GROUPED_FROM, count_of, each_route, routes_to
from viacheck.model.snapshot import HostFile, ManagerAnswer, Snapshot
from viacheck.model.snapshot_json import read_snapshot, read_without_routes, snapshot_json

RULE = Rule(family=4, priority=1000, source="172.17.0.0/16", table=200)
ROUTE = Route(family=4, table=200, destination="0.0.0.0/0", protocol="boot",
              nexthops=(Nexthop(gateway="10.10.50.1", interface="wlan0"),))  # fmt: skip
STATE = NetworkState(rules=(RULE,), routes=(ROUTE,), sysctls={"net/ipv4/ip_forward": "1"})
SNAPSHOT = Snapshot(taken="", hostname="h", kernel="6.1", host=STATE, agent=NetworkState())


def changed(**parts: object) -> list[Change]:
    """The changes to the sample when these parts of the host's state become others."""
    return changes(SNAPSHOT, replace(SNAPSHOT, host=replace(STATE, **parts)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["healthy", "rule-missing", "unproven"])
def test_a_recorded_snapshot_is_read_and_written_as_it_was(name: str) -> None:
    (target,) = json.loads((RECORDED / f"result-{name}.json").read_text())["targets"]
    snapshot = read_snapshot(target["snapshot"])
    assert read_snapshot(json.loads(json.dumps(snapshot_json(snapshot)))) == snapshot
    assert len(snapshot.host.rules) == len(target["snapshot"]["host"]["rules"])


@settings(max_examples=60)
@given(st.lists(routing_strategies.rules(), max_size=3), st.lists(routing_strategies.routes(), max_size=3))
def test_any_rules_and_routes_are_read_again(rules: list[Rule], routes: list[Route]) -> None:
    snapshot = replace(SNAPSHOT, host=NetworkState(rules=tuple(rules), routes=tuple(routes)))
    assert read_snapshot(json.loads(json.dumps(snapshot_json(snapshot)))) == snapshot


def test_many_routes_in_a_row_are_saved_as_one_entry_and_read_again() -> None:
    learned = [replace(ROUTE, table=300, destination=f"11.0.{number}.0/24") for number in range(GROUPED_FROM)]
    routes = (ROUTE, *learned, replace(ROUTE, destination="12.0.0.0/8"), *learned[1:])
    saved = json.loads(json.dumps(snapshot_json(replace(SNAPSHOT, host=replace(STATE, routes=routes)))))
    assert [len(entry.get("destinations", "1")) for entry in saved["host"]["routes"][:3]] == [1, GROUPED_FROM, 1]
    assert read_snapshot(saved).host.routes == routes
    assert [entry["destination"] for entry in each_route(saved["host"]["routes"])] == [r.destination for r in routes]
    assert count_of(saved["host"]["routes"]) == len(routes)
    for destination in ("0.0.0.0/0", "11.0.7.0/24", "13.0.0.0/8"):
        to_it = [entry for entry in each_route(saved["host"]["routes"]) if entry["destination"] == destination]
        assert routes_to(saved["host"]["routes"], destination) == to_it
    assert read_without_routes(saved) == replace(SNAPSHOT, host=replace(STATE, rules=(), routes=()))


@pytest.mark.parametrize("destinations", [[], [1], [{}], "11.0.0.0/8", None])
def test_a_strangers_list_of_destinations_is_read_or_refused(destinations: object) -> None:
    saved = snapshot_json(SNAPSHOT)
    saved["host"]["routes"] = [{"family": 4, "table": 1, "destinations": destinations}]
    if destinations == []:
        assert read_snapshot(saved).host.routes == ()
    else:
        with pytest.raises(ValidationError):
            read_snapshot(saved)


def test_a_snapshot_with_the_former_key_of_the_managers_answers_keeps_them() -> None:
    answer = ManagerAnswer("ifquery --state", 0, "lo=lo\nwlan0=wlan0")
    saved = snapshot_json(replace(SNAPSHOT, manager_answers=(answer,)))
    saved["own_words"] = saved.pop("manager_answers")
    assert read_snapshot(saved).manager_answers == (answer,)


def test_equal_states_have_no_changes() -> None:
    address = Address(interface="eth0", family=4, address="10.0.0.9", prefixlen=24)
    before = replace(SNAPSHOT, host=replace(STATE, addresses=(replace(address, valid_lifetime=100),)))
    after = replace(SNAPSHOT, host=replace(STATE, addresses=(replace(address, valid_lifetime=90),)))
    assert changes(before, after) == []
    counted = FilterRule(verdict="drop", packets=1, bytes=40, text="drop")
    chain = FilterChain(backend="nft", family="ip", table="filter", name="forward", rules=(counted,))
    more = replace(chain, rules=(replace(counted, packets=9, bytes=360),))
    assert (
        changed(packet_filter=PacketFilter(chains=(chain,)))[1:]
        == changed(packet_filter=PacketFilter(chains=(more,)))[1:]
    )


def test_a_change_holds_the_values_and_its_text() -> None:
    other = replace(ROUTE, metric=50, scope="link")
    assert changed(routes=(other,)) == [
        Change(Subject.ROUTE, "host", ROUTE, None),
        Change(Subject.ROUTE, "host", None, other),
    ]
    assert [str(change) for change in changed(routes=(other,), rules=())] == [
        "- host rule: priority 1000 from 172.17.0.0/16 lookup 200",
        "- host route: default via 10.10.50.1 dev wlan0 table 200 proto boot",
        "+ host route: default via 10.10.50.1 dev wlan0 metric 50 table 200 proto boot scope link",
    ]
    (gone,) = changed(sysctls={})
    assert gone.before == SysctlValue("net/ipv4/ip_forward", "1")
    assert str(gone) == "- host sysctl: net/ipv4/ip_forward = 1"
    without_agent = changes(SNAPSHOT, replace(SNAPSHOT, agent=None))
    assert [str(change) for change in without_agent] == ["agent namespace: can be opened -> cannot be opened"]


def test_a_repeated_rule_is_a_change_and_a_changed_file_is_one() -> None:
    assert [str(change) for change in changed(rules=(RULE, RULE))] == [
        "+ host rule: priority 1000 from 172.17.0.0/16 lookup 200"
    ]
    path = "/etc/network/interfaces"
    before, after = (replace(SNAPSHOT, files=(HostFile(path=path, exists=True, text=text),)) for text in ("a", "b"))
    (change,) = changes(before, after)
    assert (change.subject, change.heading) == (Subject.FILE, f"file {path}")
    assert str(change).startswith(f"file {path}: text with SHA-256 ")
