"""A lab runs the shell that is understood whole, and nothing that could reach beyond rules and routes."""

from __future__ import annotations

import pytest

from viacheck.parsers.shell_allowlist import objection_to_hook, objection_to_script

ADD = "ip rule add priority 1000 from 172.17.0.0/16 lookup 200"


@pytest.mark.parametrize(
    "command",
    [
        ADD,
        f"{ADD} 2>/dev/null || true",
        f"/sbin/ip -4 ru del pref 1000 >/dev/null 2>&1 || :; {ADD}",
        f"ip rule show | grep -q 'lookup 200' || {ADD}",
        f"if ! ip rule | grep -qF 172.17; then {ADD}; fi",
        "ip route replace default via $IF_GATEWAY dev ${IFACE} table 200",
        f'[ "$IFACE" = wlan0 ] && {ADD}',
        f"{ADD} # for the agent",
        f"{ADD} &>/dev/null",
        "ip link set dev wlan0 mtu 1400 && ip a flush dev wlan0; ip neigh show",
    ],
)
def test_ip_and_what_stands_around_it_may_be_run(command: str) -> None:
    assert objection_to_hook(command) is None


@pytest.mark.parametrize(
    "command",
    [
        "touch /tmp/x",
        "systemctl restart docker",
        f"{ADD}; touch /tmp/x",
        f"{ADD} || touch /tmp/x",
        f"{ADD} & touch /tmp/x",
        f"{ADD} | tee /tmp/x",
        f"{ADD} &>/dev/null touch /tmp/x",
        f"{ADD} > /tmp/x",
        f"{ADD} >/dev/null/../../tmp/x",
        f"{ADD} 2>/dev/nullx",
        f"{ADD} < /etc/shadow",
        "ip rule add from $(touch /tmp/x)",
        "ip rule add from `touch /tmp/x`",
        'ip rule add from "$(touch /tmp/x)"',
        "ip rule '#' ; touch /tmp/x",
        "\u00a0# ; touch /tmp/x",
        "\x0b# ; touch /tmp/x",
        "ip rule\ntouch /tmp/x",
        "(touch /tmp/x)",
        "{ touch /tmp/x; }",
        "PATH=/tmp",
        "PATH=/tmp ip rule",
        "LD_PRELOAD=/tmp/x.so ip rule",
        "/tmp/ip rule",
        "./ip rule",
        "$IFACE rule",
        "exec touch /tmp/x",
        "sudo touch /tmp/x",
        ". /tmp/x",
        "eval touch /tmp/x",
        "ip -batch /tmp/x",
        "ip -n other rule",
        "ip netns exec other touch /tmp/x",
        "ip vrf exec red touch /tmp/x",
        "ip link set dev wlan0 netns 1",
        "ip link set dev wlan0 'netns' 1",
        "ip link set dev wlan0 xdp obj /tmp/x.o",
        "ip route restore",
        "grep -f /etc/shadow x",
        "ip rule | grep -qf /etc/shadow x",
        "ip rule | grep -q x /etc/shadow",
        "[ -e /run/x ] || ip rule",
        "ip rule add from $NET lookup 200",
        "ip rule add from ${IFACE:-x} lookup 200",
        "ip rule add from 'x",
        "ip rule \\\n; touch /tmp/x",
        "dhclient -1 wlan0",
        "sysctl -w net.ipv4.ip_forward=1",
        "sleep 1000",
    ],
)
def test_nothing_else_is(command: str) -> None:
    assert objection_to_hook(command) is not None


def test_a_script_may_name_its_own_values() -> None:
    script = """#!/bin/sh
set -e
# wlan0 only
[ "$IFACE" = wlan0 ] || exit 0
NET=172.17.0.0/16
ip rule add priority 1000 from $NET lookup 200
"""
    assert objection_to_script(script) is None
    objection = objection_to_script(script + "logger done\n")
    assert objection is not None
    assert (objection.line, objection.reason) == (7, "it runs a program other than ip")
    objection = objection_to_script("NET=$(cat /etc/x)\n")
    assert objection is not None
    assert objection.line == 1
