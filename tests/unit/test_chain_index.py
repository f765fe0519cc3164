"""The index of a long chain leaves out no rule that a packet may match."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from viacheck.analysis.packet_filter.chain_index import SHORTEST, ChainIndex, rules_to_evaluate
from viacheck.analysis.packet_filter.conditions import FilteredPacket, matches
from viacheck.model.filter_chains import FilterChain, FilterMatch, FilterRule

ADDRESSES = ("10.0.0.0", "10.0.0.1", "10.0.128.7", "10.9.0.1", "192.0.2.1")
NETWORKS = ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.0.0.1/32", "10.0.0.1", "192.0.2.0/24", "2001:db8::/32")
PORTS = ("53", "443", "440-450")

conditions = st.one_of(
    st.builds(
        FilterMatch,
        field=st.sampled_from(["source", "destination"]),
        values=st.lists(st.sampled_from(NETWORKS), min_size=1, max_size=2).map(tuple),
        negated=st.booleans(),
    ),
    st.builds(
        FilterMatch,
        field=st.sampled_from(["sport", "dport"]),
        values=st.lists(st.sampled_from(PORTS), min_size=1, max_size=2).map(tuple),
        negated=st.booleans(),
    ),
    st.builds(FilterMatch, field=st.just("protocol"), values=st.sampled_from([("6",), ("17",)])),
    st.builds(FilterMatch, field=st.just("unknown"), values=st.just(("xt_string",))),
)
rules = st.builds(
    FilterRule, matches=st.lists(conditions, max_size=3).map(tuple), verdict=st.sampled_from(["drop", "accept", None])
)
packets = st.builds(
    FilteredPacket,
    family=st.just(4),
    source=st.sampled_from(ADDRESSES),
    destination=st.sampled_from(ADDRESSES),
    iif=st.just("docker0"),
    oif=st.just("eth0"),
    protocol=st.sampled_from([None, 1, 6, 17]),
    sport=st.sampled_from([None, 53, 40_000]),
    dport=st.sampled_from([None, 53, 443]),
)


def chain_of(some: list[FilterRule]) -> FilterChain:
    return FilterChain(backend="nft", family="ip", table="filter", name="FORWARD", rules=tuple(some))


@given(st.lists(rules, max_size=12), packets)
def test_what_an_index_leaves_out_cannot_match(some: list[FilterRule], packet: FilteredPacket) -> None:
    left = list(ChainIndex(some).rules(packet))
    evaluated = [(id(rule), matches(rule, packet)) for rule in some]
    assert [(id(rule), matches(rule, packet)) for rule in left if matches(rule, packet) is not False] == [
        (rule, answer) for rule, answer in evaluated if answer is not False
    ]


def test_a_long_chain_is_evaluated_where_the_packet_may_match() -> None:
    packet = FilteredPacket(family=4, source="10.0.0.1", destination="192.0.2.7", iif="docker0", oif="eth0")
    many = [
        FilterRule(matches=(FilterMatch(field="destination", values=(f"192.0.2.{number}/32",)),), handle=number)
        for number in range(SHORTEST)
    ]
    assert [rule.handle for rule in rules_to_evaluate(chain_of(many), packet)] == [7]
    assert len(list(rules_to_evaluate(chain_of(many[:-1]), packet))) == SHORTEST - 1
