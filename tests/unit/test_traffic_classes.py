"""The partition of destination ports: no two classes share a port, and none crosses a border of a selector."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from viacheck.analysis.class_selectors import Selector, disjoint, icmp_type_of, selectors_of_chain
from viacheck.model.filter_chains import FilterChain, FilterMatch, FilterRule

TCP = 6


def test_ranges_that_overlap_are_parted_at_their_borders() -> None:
    given_selectors = [
        Selector(protocol=TCP),
        Selector(protocol=TCP, dport=5000, last_dport=6000),
        Selector(protocol=TCP, dport=5500),
        Selector(protocol=17, dport=53),
    ]
    assert [(selector.protocol, selector.ports_text) for selector in disjoint(given_selectors)] == [
        (TCP, None), (TCP, "5000-5499"), (TCP, "5500"), (TCP, "5501-6000"), (17, "53"),
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 10))))
def test_every_port_is_in_one_class_and_each_class_is_inside_or_outside_of_each_range(
    spans: list[tuple[int, int]],
) -> None:
    ranges = [Selector(protocol=TCP, dport=first, last_dport=first + more) for first, more in spans]
    parts = [set(selector.ports) for selector in disjoint(ranges)]
    assert sorted(port for part in parts for port in part) == sorted({p for s in ranges for p in s.ports})
    for part in parts:
        assert all(part <= set(given_range.ports) or not part & set(given_range.ports) for given_range in ranges)


def test_a_type_of_icmp_that_a_rule_names_is_a_class_of_its_own() -> None:
    echo, rest = Selector(protocol=1, icmp_type=8), Selector(protocol=1)
    chain = FilterChain(
        backend="nft", family="ip", table="t", name="c",
        rules=(FilterRule(matches=(FilterMatch(field="icmp-type", values=("8", "0")),)),),
    )  # fmt: skip
    named = [*selectors_of_chain(chain), rest]
    assert list(disjoint(named)) == [rest, echo]
    assert [icmp_type_of(selector, named) for selector in (echo, rest)] == [8, 13]
    assert icmp_type_of(rest, [rest]) == 8
