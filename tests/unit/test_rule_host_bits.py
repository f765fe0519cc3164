"""A rule's prefix with bits behind its length: the kernel keeps them, and does not compare them."""

from __future__ import annotations

import pytest

from tests.unit.test_remedy import nat, with_rules
from viacheck.analysis.agent_rules import covers_subnet, rules_for_agent
from viacheck.model.policy_rule import Rule


@pytest.mark.parametrize(("source", "selected"), [("172.17.9.8/16", True), ("172.18.0.1/16", False)])
def test_a_rule_selects_the_agent_whatever_stands_behind_its_prefix(source: str, selected: bool) -> None:
    rule = Rule(family=4, priority=1000, source=source, table=200)
    case = nat(with_rules(rule))
    assert covers_subnet(case, rule) is selected
    assert (rules_for_agent(case) == [rule]) is selected
