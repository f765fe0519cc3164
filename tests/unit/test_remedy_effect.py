"""What the model says that a remedy achieves: nothing, where it cannot evaluate the agent's packets after it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.test_bypass_causes import CONNECTED, FORWARDING, LOCAL, ON_LINK, OWN_ADDRESS, PORT
from tests.unit.test_remedy import HOST, with_rules
from tests.unit.test_remedy import nat as behind_nat
from viacheck.analysis.explain import explain
from viacheck.analysis.explanation_text import explanation_lines
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.diagnosis.remedy import Remedy
from viacheck.diagnosis.remedy_effect import remedy_effect
from viacheck.model.filter_chains import PacketFilter

ADD_RULE = Remedy(steps=(("ip", "rule", "add", "priority", "1000", "from", "172.17.0.0/16", "lookup", "200"),))
UNREAD = PacketFilter(unread=("nftables: Operation not permitted",))


def without_the_rule(*, empty: bool = False, unread: bool = False, no_agent: bool = False) -> ResolvedIntent:
    """The guide's host without its rule; as a user without root sees it, neither filter nor agent is known."""
    host = with_rules(LOCAL)
    routes = tuple(route for route in host.routes if not (empty and route.table == 200))
    host = replace(
        host, links=(*host.links, PORT), routes=(*routes, OWN_ADDRESS, ON_LINK), sysctls=FORWARDING,
        packet_filter=UNREAD if unread else HOST.packet_filter,
    )  # fmt: skip
    return behind_nat(host, None if no_agent else CONNECTED)


@pytest.mark.parametrize(
    ("resolved", "reaches"),
    [
        (without_the_rule(), True),
        (without_the_rule(empty=True), False),
        (without_the_rule(unread=True), None),
        (without_the_rule(empty=True, unread=True), None),
        (without_the_rule(no_agent=True), None),
        (without_the_rule(empty=True, no_agent=True), None),
    ],
    ids=["table", "empty", "filter-unread", "empty-filter-unread", "agent-unread", "empty-agent-unread"],
)
def test_a_remedy_reaches_the_uplink_only_where_the_model_knows(resolved: ResolvedIntent, reaches: bool | None) -> None:
    effect = remedy_effect(resolved, ADD_RULE)
    assert effect is not None
    assert effect.reaches_intended is reaches


def test_the_source_is_unknown_where_nat_cannot_be_evaluated() -> None:
    explanation = explain(without_the_rule(unread=True), "203.0.113.9")
    assert explanation.source_on_wire is None
    assert "on wire    by eth0 via 10.10.40.1, source unknown" in list(explanation_lines(explanation))
