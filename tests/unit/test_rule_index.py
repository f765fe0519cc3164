"""The index of policy routing rules: a walk by it equals the comparison of every rule."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import routing_strategies
from viacheck.analysis.routing.packet import LookupKey
from viacheck.analysis.routing.rules import RuleList
from viacheck.analysis.routing.table import Hit, RoutingTable, read_prefix
from viacheck.model.address_family import Family
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Route

ROUTE = Route(family=4, table=1, destination="0.0.0.0/0")


@st.composite
def packets(draw: st.DrawFn, family: Family) -> LookupKey:
    """A packet of a family."""
    addresses = st.integers(1, (1 << (32 if family == 4 else 128)) - 1)
    return LookupKey(
        family=family, source=draw(st.none() | addresses), destination=draw(addresses),
        iif=draw(st.sampled_from(("lo", "eth0", "docker0"))), oif=None, mark=draw(st.sampled_from((0, 1, 0x10))),
        protocol=draw(st.sampled_from((0, 6))), sport=0, dport=draw(st.sampled_from((0, 443))), tos=0, uid=0,
    )  # fmt: skip


@st.composite
def lists(draw: st.DrawFn) -> tuple[Family, list[Rule], LookupKey]:
    """Rules in the kernel's order, of which some select the packet's source, destination, mark or interface."""
    family = draw(routing_strategies.FAMILIES)
    key = draw(packets(family))
    rules = [replace(rule, family=family) for rule in draw(st.lists(routing_strategies.rules(), max_size=12))]
    rules = [rule for rule in rules if all(":" in (p or ":") if family == 6 else ":" not in (p or "")
             for p in (rule.source, rule.destination))]  # fmt: skip
    whole = "0.0.0.0/0" if family == 4 else "::/0"
    loosened = [
        replace(
            rule,
            source=draw(st.sampled_from((rule.source, None, whole))),
            destination=draw(st.sampled_from((rule.destination, None))),
            fwmark=draw(st.sampled_from((rule.fwmark, None, 1))),
            iif=draw(st.sampled_from((rule.iif, None))),
            oif=None, tos=None, ipproto=None, sport=None, dport=None, uid_first=None, uid_last=None,
            priority=draw(st.integers(0, 20)), goto=draw(st.integers(0, 20)) if rule.action == "goto" else None,
        )
        for rule in rules
    ]  # fmt: skip
    return family, sorted(loosened, key=lambda rule: rule.priority), key


@given(lists())
def test_a_walk_by_the_index_equals_the_comparison_of_every_rule(case: tuple[Family, list[Rule], LookupKey]) -> None:
    family, rules, key = case
    ready = RuleList(rules, family)
    walked = ready.ask(key, lambda number: Hit(ROUTE, (), [ROUTE]) if number == 254 else None)
    steps = [step for entry in walked.walk for step in ([entry] if hasattr(entry, "rule") else entry)]
    assert steps == list(by_comparison(ready, key))


@given(st.lists(routing_strategies.routes(), max_size=6), routing_strategies.prefixes(4))
def test_the_routes_that_overlap_a_prefix_are_those_of_the_comparison_with_every_route(
    routes: list[Route], prefix: str
) -> None:
    of_family = [route for route in routes if route.family == 4]
    wanted = [route for route in of_family if route.network.overlaps(ip_network(prefix))]
    overlapping = list(RoutingTable(of_family, 4).overlapping(*read_prefix(prefix, 4)))
    assert sorted(map(id, overlapping)) == sorted(map(id, wanted))


def by_comparison(ready: RuleList, key: LookupKey) -> list[object]:
    """Walk without the index, as the kernel does (fib_rules_lookup)."""
    every = RuleList((), ready.family)
    every._rules, every._first_of = ready._rules, ready._first_of

    class Everything:
        def candidates(self, _key: LookupKey) -> range:
            return range(len(ready))

    every._index = Everything()  # type: ignore[assignment]
    walked = every.ask(key, lambda number: Hit(ROUTE, (), [ROUTE]) if number == 254 else None)
    return [step for entry in walked.walk for step in ([entry] if hasattr(entry, "rule") else entry)]
