"""An uplink in a VRF: what is watched there, and what the models leave unknown."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.test_bypass_causes import CONNECTED, FORWARDING, LOCAL, ON_LINK, OWN_ADDRESS, PORT
from tests.unit.test_remedy import RULE, link, nat, with_rules
from viacheck.analysis.answers import misrouted_answer, unknown_answer_route
from viacheck.analysis.classes import ClassVerdict, class_partition
from viacheck.analysis.resolved_intent import ResolvedIntent
from viacheck.model.policy_rule import Rule

VRF_RULE = Rule(family=4, priority=1000, l3mdev=True)


def host_with_vrf() -> ResolvedIntent:
    """The guide's host with wlan0 in a VRF, and another interface in it that is no uplink."""
    host = with_rules(LOCAL, VRF_RULE, RULE)
    links = [replace(each, master="vrf0") if each.name == "wlan0" else each for each in host.links]
    links += [PORT, link(20, "vrf0", kind="vrf"), link(21, "eth7", master="vrf0")]
    routes = (*host.routes, OWN_ADDRESS, ON_LINK)
    return nat(replace(host, links=tuple(links), routes=routes, sysctls=FORWARDING), CONNECTED)


def test_the_interfaces_of_a_vrf_are_watched_and_the_vrf_is_not() -> None:
    resolved = host_with_vrf()
    assert {"wlan0", "eth7"} <= set(resolved.egress_interfaces)
    assert "vrf0" not in resolved.watchable
    assert len(set(resolved.watchable)) == len(resolved.watchable)


def test_the_way_out_is_known_and_the_way_of_the_answers_is_not() -> None:
    resolved = host_with_vrf()
    classes = class_partition(resolved)
    assert ClassVerdict.INTENDED in {each.verdict for each in classes.classes}
    assert not classes.unknown
    assert "belongs to a VRF" in unknown_answer_route(resolved, "udp")
    assert misrouted_answer(resolved) is None


def test_without_a_vrf_the_same_rule_leaves_nothing_unknown() -> None:
    host = host_with_vrf().snapshot.host
    links = tuple(replace(each, kind="bridge") if each.name == "vrf0" else each for each in host.links)
    assert not unknown_answer_route(nat(replace(host, links=links), CONNECTED), "udp")
