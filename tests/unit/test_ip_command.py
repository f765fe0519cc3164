"""The one formatter of rules and routes, and the reader of ``ip`` commands: each gives back what the other writes."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import routing_strategies
from viacheck.model.config_entry import Place, WrittenRoute, WrittenRule
from viacheck.model.policy_rule import Rule, rule_command, rule_text
from viacheck.model.route import Nexthop, Route, route_arguments, route_command, route_details
from viacheck.parsers.ip_command import assignments, entries, ip_commands
from viacheck.parsers.shell import ShellError, Word, first_command, tokens

PLACE = Place("/etc/network/interfaces", 1)
NAMES = {"local": 255, "main": 254}
SHELL = st.text(alphabet="ip rule route add del from to via dev table 10.0.0.0/8 '\"\\$;&|()<>#\n=lookup", max_size=120)


def number_of(name: str) -> int | None:
    return NAMES.get(name, int(name) if name.isdecimal() else None)


def installed(command: str) -> Rule | Route:
    """What the one command of a line installs."""
    (entry,) = entries(ip_commands(command), PLACE, None, "up", number_of)
    assert isinstance(entry, WrittenRule | WrittenRoute)
    return entry.rule if isinstance(entry, WrittenRule) else entry.route


@settings(max_examples=150)
@given(routing_strategies.rules())
def test_a_rule_is_read_back_from_its_command(rule: Rule) -> None:
    assert installed(rule_command("add", rule)) == rule
    assert installed(f"ip {'-6 ' if rule.family == 6 else ''}rule add {rule_text(rule)}") == rule


@settings(max_examples=150)
@given(routing_strategies.routes())
def test_a_route_is_read_back_from_its_command(route: Route) -> None:
    assert installed(route_command("add", route)) == route


@settings(max_examples=200)
@given(SHELL)
def test_any_line_is_read_or_refused_with_the_declared_error(line: str) -> None:
    dict(assignments(line))
    try:
        list(entries(ip_commands(line), PLACE, None, "up", number_of))
    except ShellError:
        return


@settings(max_examples=200)
@given(st.lists(st.text("ab 'é\\\"$;&|()<>#\n`", min_size=1, max_size=12), min_size=1, max_size=6))
def test_quoted_words_are_split_as_the_shell_splits_them(quoted: list[str]) -> None:
    assert first_command(shlex.join(quoted)) == quoted


def test_a_rule_keeps_every_selector_in_its_text() -> None:
    rule = Rule(family=4, priority=5, table=200, tun_id=7, suppress_ifgroup=3, unread=("dscp 10",))
    assert str(rule) == "priority 5 from all tun_id 7 dscp 10 lookup 200 suppress_ifgroup 3"
    assert rule_text(rule, table="wlan0rt", with_priority=False).endswith("lookup wlan0rt suppress_ifgroup 3")
    detached = Rule(family=4, priority=5, table=200, iif="gone", iif_detached=True)
    assert str(detached) == "priority 5 from all iif gone [detached] lookup 200"
    assert rule_command("del", detached) == "ip rule del priority 5 from all iif gone lookup 200"


def test_a_command_restores_the_origin_of_a_rule_and_of_a_route() -> None:
    rule = Rule(family=6, priority=5, table=200, source="fd00::/8", protocol="static")
    assert rule_command("add", rule) == "ip -6 rule add priority 5 from fd00::/8 lookup 200 protocol static"
    assert rule_command("del", rule) == "ip -6 rule del priority 5 from fd00::/8 lookup 200"
    hop = Nexthop(gateway="10.0.0.1", interface="eth0", flags=("onlink", "linkdown"))
    route = Route(family=4, table=254, destination="0.0.0.0/0", nexthops=(hop,), protocol="dhcp", metric=100, mtu=1400)
    assert route_command("replace", route) == (
        "ip route replace default via 10.0.0.1 dev eth0 onlink metric 100 proto dhcp mtu 1400"
    )
    subnet = Route(family=4, table=254, destination="10.0.0.0/24", nexthops=(Nexthop(interface="eth0"),), scope="link",
                   protocol="kernel", source="10.0.0.9")  # fmt: skip
    assert route_details(subnet) == "10.0.0.0/24 dev eth0 src 10.0.0.9 proto kernel scope link"
    assert route_arguments(subnet) == ["10.0.0.0/24", "dev", "eth0", "src", "10.0.0.9", "proto", "kernel"]


def test_a_route_by_a_nexthop_object_names_the_object_alone() -> None:
    hops = (Nexthop(gateway="10.0.0.1", interface="eth0"), Nexthop(gateway="10.0.0.2", interface="eth0"))
    route = Route(family=4, table=200, destination="0.0.0.0/0", nexthops=hops, nexthop_id=7)
    assert route_command("replace", route) == "ip route replace default nhid 7 table 200"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("ip ru a pref 7 fr 172.17/16 ta 200", "priority 7 from 172.17.0.0/16 lookup 200"),
        ("ip rule add from 10.0.0.0/8 ipproto sctp table 9", "priority 0 from 10.0.0.0/8 ipproto sctp lookup 9"),
        ("ip -4 r r 0/0 via 10.0.0.1 oif eth0 ta 7 initcwnd 10", "default via 10.0.0.1 dev eth0 table 7"),
        ("ip route add default via fe80::1 dev eth0 pref high", "default via fe80::1 dev eth0"),
        ("ip route add default nexthop via 10.0.0.1 dev a weight 2 nexthop dev b",
         "default nexthop via 10.0.0.1 dev a weight 2 nexthop dev b weight 1"),
        ("ip route add 10.0.0.0/8 via $GW dev $IFACE", "10.0.0.0/8"),
    ],
)  # fmt: skip
def test_keywords_are_read_as_iproute2_reads_them(line: str, text: str) -> None:
    assert str(installed(line)) == text


def test_redirections_and_comments_are_no_words() -> None:
    line = "ip rule add from 10.0.0.0/8 table main>/dev/null 2>&1 # and more"
    assert str(installed(line)) == "priority 0 from 10.0.0.0/8 lookup main"
    assert [token.text for token in tokens("a 'b c' \"d\\\"\" e\\ f") if isinstance(token, Word)] == [
        "a", "b c", 'd"', "e f",
    ]  # fmt: skip
    with pytest.raises(ShellError, match=re.escape("no escaped character")):
        list(tokens("a \\"))
