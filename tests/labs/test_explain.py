"""``./viacheck explain`` through its front door: the steps, the wire, what if, and the kernel beside the model."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.helpers.front_door import sub_command


def explain(*words: str) -> subprocess.CompletedProcess[str]:
    return sub_command("explain", *words)


def explained(*words: str) -> dict[str, Any]:
    done = explain(*words, "--json")
    assert done.returncode == 0, done.stderr
    explanation: dict[str, Any] = json.loads(done.stdout)
    return explanation


def test_the_agents_packet_is_explained_to_the_wire() -> None:
    explanation = explained("--lab", "policy-routing", "--to", "203.0.113.9", "--proto", "tcp", "--dport", "443")
    assert (explanation["uplink"], explanation["gateway"], explanation["table"], explanation["source_on_wire"]) == (
        "wlan0",
        "10.10.50.1",
        200,
        "10.10.50.9",
    )
    assert [step["chosen"] for step in explanation["steps"]] == [False, True]
    assert "dev eth0" in explanation["without"]["wlan0"]
    assert "on the wire with source 10.10.40.9" in explanation["without"]["wlan0"]
    assert "masquerade: matches" in explanation["nat_rules"][0]
    assert (explanation["agree"], explanation["agreement"]) == (True, "agree")


def test_a_rule_that_comes_first_is_named() -> None:
    explanation = explained("--lab", "policy-routing+rule-shadowed", "--to", "203.0.113.9")
    chosen = next(step for step in explanation["steps"] if step["chosen"])
    assert chosen["rule"] == "priority 100 from 172.17.0.2/32 lookup main"
    assert explanation["uplink"] == "eth0"


def test_a_dropped_packet_says_by_what() -> None:
    explanation = explained("--lab", "nat+forward-dropped", "--to", "203.0.113.9")
    assert explanation["forward"] is not None
    assert explanation["forward"].startswith("dropped by forward: policy")
    assert explanation["forward_rules"] == ["forward: policy drop: matches"]
    lines = explain("--lab", "nat+forward-dropped", "--to", "203.0.113.9").stdout.splitlines()
    assert "on wire    nothing: the host drops the packet" in lines
    assert not any(line.startswith("NAT") for line in lines)


def test_a_bridged_agent_has_no_way_but_its_parent() -> None:
    explanation = explained("--lab", "macvlan", "--to", "203.0.113.9")
    assert (explanation["decided_in"], explanation["uplink"], explanation["agree"]) == ("agent", "eth0", True)
    assert explanation["without"]["eth0"].startswith("nothing leaves")


def test_ipv6_fails_closed_behind_its_backstop() -> None:
    explanation = explained("--lab", "policy-routing-hardened", "--to", "2001:db8:ffff::1")
    assert (explanation["uplink"], explanation["source_on_wire"]) == ("wlan0", "fd00:17::2")
    assert "unreachable" in explanation["without"]["wlan0"]


def test_the_hosts_own_packet_takes_the_default_exit() -> None:
    explanation = explained("--lab", "policy-routing", "--to", "203.0.113.9", "--from", "host")
    assert (explanation["uplink"], explanation["source_on_wire"], explanation["forward"]) == (
        "eth0",
        "10.10.40.9",
        None,
    )


def test_people_get_lines_and_programs_get_json() -> None:
    lines = explain("--lab", "policy-routing", "--to", "203.0.113.9").stdout.splitlines()
    assert "on wire    by wlan0 via 10.10.50.1, source 10.10.50.9" in lines
    assert lines[-1] == "kernel     table 200: via 10.10.50.1 dev wlan0 (agrees)"
    assert json.loads(explain("--lab", "nat", "--to", "203.0.113.9", "--json").stdout)["outcome"] == "unicast"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lab", "nat", "--to", "example"), "--to: invalid IP address 'example'"),
        (("--lab", "nat", "--to", "fe80::1%eth0"), "--to: 'fe80::1%eth0' names an interface"),
        (("--lab", "nat", "--to", "203.0.113.9", "--from", "me"), "allowed: an address, agent, host"),
        (("--lab", "nat", "--to", "203.0.113.9", "--from", "2001:db8::1"), "are of different families"),
        (("--lab", "nat", "--to", "203.0.113.9", "--dport", "80"), "--dport goes with --proto tcp or --proto udp"),
        (("--lab", "nat", "--to", "203.0.113.9", "--proto", "tcp", "--dport", "65536"), "allowed: 1 to 65535"),
        (("--lab", "nat", "--to", "203.0.113.9", "--site", "site.toml"), "--site goes with --local"),
        (("--lab", "nta", "--to", "203.0.113.9"), "--lab: unknown lab 'nta'; did you mean nat?"),
        (("--local", "--to", "203.0.113.9"), "--local needs --site FILE"),
        (("--lab", "nat,policy-routing", "--to", "203.0.113.9"), "--lab: explain takes one lab, not 2"),
    ],
)
def test_wrong_words_are_told_in_one_line(words: tuple[str, ...], said: str) -> None:
    done = explain(*words)
    assert done.returncode == 4
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
