"""Situations that users of such hosts report, built by hand: rules, routes and gateways of the host and the agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.drawing import drawn_lines
from tests.helpers.front_door import viacheck
from tests.helpers.hand_made import SITE, write_site
from tests.helpers.judgements import PASS
from tests.helpers.situation import CLOSED_RECIPE, Situation, assert_judged_and_corrected, built
from viacheck.model.verdict import Verdict

FAIL, ADVISORY = Verdict.FAIL, Verdict.ADVISORY

OWN_DEFAULT_SITE = SITE.replace('[host]\ndefault_exit = "eth0"\n', "")
"""The main table decides for the host's own packets."""
BY_ETH0 = SITE.replace('uplink = "wlan0"\ntable = 200\ntable_name = "wlan0rt"', 'uplink = "eth0"')
"""The agent leaves by the host's own default route."""
EXIT_NODE = (
    "ip rule add pref 5210 fwmark 0x80000/0xff0000 lookup main",
    "ip rule add pref 5270 lookup 52",
    "ip route add default via 10.8.0.1 dev tun0 table 52",
)
"""What Tailscale adds for an exit node, behind the uplink of a tunnel."""

SITUATIONS = {
    "agent-without-a-route": Situation(
        commands=("ip -n agent route del default",),
        expected={"EGRESS-01": (FAIL, "AGENT_NO_ROUTE")},
        remedy=True,
    ),
    "uplink-that-nothing-configured": Situation(
        # Brought up alone, it would send the agent's packets without an address of its own.
        commands=("ip link set dev wlan0 down", "ip address flush dev wlan0"),
        expected={"HOST-02": (FAIL, "UPLINK_DOWN"), "EGRESS-01": (FAIL, "UPLINK_DOWN")},
        named=("wlan0 is administratively down and has no IPv4 address",),
    ),
    "host-leaves-by-a-dead-tunnel": Situation(
        commands=(
            "ip tuntap add dev tun9 mode tun",
            "ip address add 10.8.9.6 peer 10.8.9.5 dev tun9",
            "ip link set dev tun9 up",
            "ip route replace default via 10.8.9.5 dev tun9",
        ),
        site=OWN_DEFAULT_SITE,
        expected={"EGRESS-01": PASS, "EGRESS-04": (FAIL, "NO_CARRIER")},
        named=("the host's own packets go to tun9, which is up but has no carrier",),
        replica_notes=("tun9 had no carrier",),
    ),
    "host-leaves-by-a-silent-neighbour": Situation(
        commands=(
            "ip link add dmz0 type veth peer name far netns gw0", "ip -n gw0 link set dev far up",
            "ip address add 10.99.0.9/24 dev dmz0", "ip link set dev dmz0 up",
            "ip route replace default via 10.99.0.1 dev dmz0",
        ),
        site=OWN_DEFAULT_SITE,
        expected={"EGRESS-01": PASS, "EGRESS-04": (FAIL, "GATEWAY_SILENT")},
        named=("the host's own packets go to 10.99.0.1 on dmz0, which does not answer ARP",),
    ),
    "vpn-rules-take-host-and-agent": Situation(
        # What wg-quick adds. The agent has a remedy of its own, whatever is decided for the host.
        commands=(
            "ip rule del from 172.17.0.0/16 lookup 200",
            "ip rule add pref 31000 not fwmark 0xca6c lookup 51820",
            "ip rule add pref 30999 lookup main suppress_prefixlength 0",
            "ip route add default via 10.8.0.1 dev tun0 table 51820",
        ),
        site=BY_ETH0,
        tunnel=True,
        expected={
            "HOST-06": (FAIL, "DEFAULT_EXIT_WRONG"), "EGRESS-04": (FAIL, "DEFAULT_EXIT_WRONG"),
            "ROUTE-05": (FAIL, "RULE_SHADOWED"), "EGRESS-01": (FAIL, "RULE_SHADOWED"),
        },
        remedy=True,
        still={"HOST-06": (FAIL, "DEFAULT_EXIT_WRONG"), "EGRESS-04": (FAIL, "DEFAULT_EXIT_WRONG")},
    ),
    "point-to-point-uplink": Situation(
        commands=(
            # Without ARP each end sends to its own MAC address, so both have the same.
            "ip link set dev wlan0 address 02:00:00:00:00:01 arp off",
            "ip -n gw1 link set dev lan0 address 02:00:00:00:00:01 arp off",
            "ip route replace default dev wlan0 table 200",
        ),
        site=SITE.replace('[uplinks.wlan0]\ngateway = "10.10.50.1"', "[uplinks.wlan0]"),
        expected={
            "HOST-03": PASS, "ROUTE-04": PASS, "EGRESS-01": PASS, "EGRESS-03": PASS,
            "EGRESS-09": (Verdict.NOT_APPLICABLE, None),
        },
        in_bundle={"ROUTE-04": PASS},
    ),
    "gateway-typo": Situation(
        commands=("ip neigh replace 10.10.50.1 lladdr 02:00:00:00:00:01 dev wlan0 nud stale",),
        site=SITE.replace("10.10.50.1", "10.10.50.11"),
        expected={"HOST-03": (FAIL, "GATEWAY_SILENT"), "ROUTE-04": (FAIL, "GATEWAY_SILENT")},
        named=("10.10.50.1, which this host's default route by wlan0 uses, answers: the site file is wrong",),
        site_file=("[uplinks.wlan0]", 'gateway = "10.10.50.1"'),
    ),
    "silent-gateway-and-empty-table": Situation(
        commands=("ip route flush table 200",),
        site=SITE.replace("10.10.50.1", "10.10.50.11"),
        expected={
            "HOST-03": (FAIL, "GATEWAY_SILENT"), "ROUTE-04": (FAIL, "TABLE_EMPTY"), "ROUTE-07": (ADVISORY, "FAIL_OPEN"),
            "EGRESS-01": (FAIL, "TABLE_EMPTY"),
        },
    ),
    "rule-that-takes-an-agent-without-a-table": Situation(
        commands=(), site=BY_ETH0,
        expected={
            "ROUTE-05": (FAIL, "RULE_SHADOWED"), "ROUTE-06": (ADVISORY, "RULE_SHADOWED"),
            "EGRESS-01": (FAIL, "RULE_SHADOWED"), "EGRESS-05": (FAIL, "RULE_SHADOWED"),
            "EGRESS-08": (FAIL, "RULE_SHADOWED"), "ROUTE-07": (ADVISORY, "FAIL_OPEN"),
        },
        named=("the rule 'priority 32765 from 172.17.0.0/16 lookup wlan0rt' selects 172.17.0.2 as well",),
        remedy=True,
        still={"ROUTE-07": (ADVISORY, "FAIL_OPEN")},
    ),
    "rule-that-takes-tcp-of-an-agent-without-a-table": Situation(
        commands=(
            "ip rule del from 172.17.0.0/16 lookup 200",
            "ip rule add pref 1 from 172.17.0.0/16 ipproto tcp lookup 200",
        ),
        site=BY_ETH0,
        expected={
            "ROUTE-05": (FAIL, "RULE_SHADOWED"), "EGRESS-01": (FAIL, "RULE_SHADOWED"), "EGRESS-05": PASS,
        },
        named=("decides first (tcp only), and they leave by wlan0",),
    ),
    "table-that-the-site-file-does-not-name": Situation(
        commands=(), site=SITE.replace('table = 200\ntable_name = "wlan0rt"\n', ""),
        expected={
            "ROUTE-05": (FAIL, "RULE_SHADOWED"), "ROUTE-06": (ADVISORY, "RULE_SHADOWED"), "EGRESS-01": PASS,
            "EGRESS-05": PASS, "EGRESS-08": PASS,
        },
        site_file=("[egress]", "table = 200"),
    ),
    "no-table-and-the-main-table-leads-elsewhere": Situation(
        commands=("ip rule del from 172.17.0.0/16 lookup 200", "ip route flush table 200"),
        site=OWN_DEFAULT_SITE.replace('table = 200\ntable_name = "wlan0rt"\n', ""),
        expected={
            "HOST-06": PASS, "ROUTE-05": (FAIL, "DEFAULT_EXIT_WRONG"), "EGRESS-01": (FAIL, "DEFAULT_EXIT_WRONG"),
            "EGRESS-05": (FAIL, "DEFAULT_EXIT_WRONG"), "EGRESS-08": (FAIL, "DEFAULT_EXIT_WRONG"),
        },
        named=("the main table decides for its packets, and leads to eth0 instead of wlan0",),
        site_file=("[egress]", "table = 200"),
        in_bundle={"EGRESS-01": (FAIL, "DEFAULT_EXIT_WRONG")},
    ),
    "exit-node": Situation(
        commands=EXIT_NODE, tunnel=True, site=OWN_DEFAULT_SITE,
        expected={
            "ROUTE-03": (FAIL, "RULE_SHADOWED"), "EGRESS-01": (FAIL, "RULE_SHADOWED"),
            "EGRESS-03": (FAIL, "RULE_SHADOWED"),
        },
        named=("priority 5270",),
        remedy=True,
    ),
    "answers-taken-by-an-exit-node": Situation(
        commands=(*CLOSED_RECIPE, *EXIT_NODE), tunnel=True, site=OWN_DEFAULT_SITE,
        expected={"ROUTE-03": PASS, "EGRESS-01": PASS, "EGRESS-03": (FAIL, "ANSWERS_MISROUTED")},
        named=("rule priority 5270",),
        remedy=True,
    ),
    "static-route-to-the-target": Situation(
        commands=(*CLOSED_RECIPE, "ip route add 198.51.100.0/24 via 10.10.40.1 dev eth0"),
        expected={
            "ROUTE-02": PASS, "ROUTE-03": (FAIL, "RULE_SHADOWED"), "ROUTE-06": PASS,
            "ROUTE-07": (ADVISORY, "RULE_SHADOWED"), "EGRESS-01": (FAIL, "RULE_SHADOWED"),
        },
        named=("198.51.100.0/24 via 10.10.40.1 dev eth0",),
        remedy=True,
    ),
    "vpn-owns-the-default": Situation(
        commands=(
            "ip route add default via 10.8.0.1 dev tun0 table 51820",
            "ip rule del from 172.17.0.0/16 lookup 200",
            "ip rule add pref 32765 from 172.17.0.0/16 lookup 200",
            "ip rule add pref 32764 not fwmark 0xca6c lookup 51820",
            "ip rule add pref 32763 lookup main suppress_prefixlength 0",
        ),
        tunnel=True,
        expected={
            "HOST-06": (FAIL, "DEFAULT_EXIT_WRONG"), "ROUTE-03": (FAIL, "RULE_SHADOWED"), "ROUTE-06": PASS,
            "EGRESS-01": (FAIL, "RULE_SHADOWED"),
        },
        named=("rule priority 32764 not from all fwmark 0xca6c lookup 51820",),
        remedy=True,
        still={"HOST-06": (FAIL, "DEFAULT_EXIT_WRONG")},
    ),
    "half-defaults-into-a-silent-tunnel": Situation(
        commands=(
            *CLOSED_RECIPE,
            "ip netns add vpn; ip link add wg9 type veth peer name far netns vpn",
            "ip -n vpn link set dev far up; ip -n vpn address add 10.99.0.1/24 dev far",
            "ip address add 10.99.0.9/24 dev wg9; ip link set dev wg9 up",
            "ip route add 0.0.0.0/1 via 10.99.0.1 dev wg9; ip route add 128.0.0.0/1 via 10.99.0.1 dev wg9",
        ),
        expected={
            "ROUTE-03": (FAIL, "RULE_SHADOWED"), "EGRESS-01": (FAIL, "RULE_SHADOWED"),
            "EGRESS-03": (FAIL, "RULE_SHADOWED"),
        },
        named=("lets a default in pieces through",),
        remedy=True,
        in_replica={"EGRESS-03": (FAIL, "RULE_SHADOWED")},
        replica_notes=("no answer came in by wg9 on the host, and none comes in by it here",),
    ),
    "metric-penalty": Situation(
        commands=(
            "ip route del default",
            "ip route add default via 10.10.40.1 dev eth0 metric 20100",
            "ip route add default via 10.10.50.1 dev wlan0 metric 600",
        ),
        expected={"HOST-06": (FAIL, "DEFAULT_EXIT_WRONG"), "EGRESS-04": (FAIL, "DEFAULT_EXIT_WRONG")},
        named=("metric 600, whose metric is lower than 20100",),
        remedy=True,
    ),
    "second-network-of-the-agent": Situation(
        commands=(
            "ip link add br-two type bridge", "ip address add 172.31.0.1/24 dev br-two", "ip link set br-two up",
            "ip link add two type veth peer name eth1 netns agent", "ip link set two master br-two up",
            "ip -n agent address add 172.31.0.10/24 dev eth1", "ip -n agent link set eth1 up",
            "ip -n agent route replace default via 172.31.0.1",
            "iptables -t nat -A POSTROUTING -s 172.31.0.0/24 ! -o br-two -j MASQUERADE",
        ),
        expected={
            "EGRESS-01": (FAIL, "DEFAULT_BY_OTHER_NETWORK"), "EGRESS-05": (FAIL, "DEFAULT_BY_OTHER_NETWORK"),
            "EGRESS-08": (FAIL, "DEFAULT_BY_OTHER_NETWORK"), "ROUTE-05": (FAIL, "DEFAULT_BY_OTHER_NETWORK"),
        },
        named=("by its interface eth1 ('default via 172.31.0.1 dev eth1'), not by eth0",),
        remedy=True,
    ),
    "lower-metric-in-the-table": Situation(
        commands=("ip route del default table 200",
                  "ip route add default via 10.10.50.1 dev wlan0 metric 600 table 200",
                  "ip route add default via 10.10.40.1 dev eth0 metric 100 table 200"),
        expected={
            "ROUTE-04": (FAIL, "TABLE_WRONG_UPLINK"), "EGRESS-01": (FAIL, "TABLE_WRONG_UPLINK"),
            "ROUTE-07": (ADVISORY, "FAIL_OPEN"),
        },
        named=("default via 10.10.40.1 dev eth0 metric 100 table 200",),
        remedy=True,
        still={"ROUTE-07": (ADVISORY, "FAIL_OPEN")},
    ),
    "prohibited-in-the-table": Situation(
        commands=("ip route add prohibit 198.51.100.0/24 table 200",),
        expected={"ROUTE-04": (FAIL, "TABLE_WRONG_UPLINK"), "EGRESS-01": (FAIL, "TABLE_WRONG_UPLINK")},
        named=("'prohibit 198.51.100.0/24 table 200' decides for 198.51.100.1 before a default route of table 200",),
        remedy=True,
    ),
    "longer-prefix-in-the-table": Situation(
        commands=("ip route add 128.0.0.0/1 via 10.10.40.1 dev eth0 table 200",),
        expected={"ROUTE-04": (FAIL, "TABLE_WRONG_UPLINK"), "EGRESS-01": (FAIL, "TABLE_WRONG_UPLINK")},
        named=("leaves by eth0, not by wlan0 alone",),
        remedy=True,
    ),
    # An unreachable route of the highest metric would come after the route by eth0.
    "failover-in-the-table": Situation(
        commands=("ip route add default via 10.10.40.1 dev eth0 metric 100 table 200",),
        expected={"ROUTE-04": PASS, "EGRESS-01": PASS, "ROUTE-07": (ADVISORY, "FAIL_OPEN")},
        named=("the route default via 10.10.40.1 dev eth0 metric 100 table 200",),
        remedy=False,
    ),
    # Nearly every flow hashes to eth0, so that the probes do; the way of others is another one.
    "load-balanced-default": Situation(
        commands=(
            "ip rule del from 172.17.0.0/16 lookup 200",
            "ip route replace default nexthop via 10.10.40.1 dev eth0 weight 255 nexthop via 10.10.50.1 dev wlan0",
        ),
        site=OWN_DEFAULT_SITE.replace('uplink = "wlan0"\ntable = 200\ntable_name = "wlan0rt"', 'uplink = "eth0"'),
        expected={
            "EGRESS-01": (FAIL, "EGRESS_DEPENDS_ON_FLOW"), "ROUTE-05": (FAIL, "EGRESS_DEPENDS_ON_FLOW"),
            "EGRESS-08": (FAIL, "EGRESS_DEPENDS_ON_FLOW"),
        },
        named=("nexthop via 10.10.50.1 dev wlan0 weight 1",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_is_judged_and_corrected(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    assert_judged_and_corrected(SITUATIONS, name, tmp_path, pytestconfig)


def test_the_drawing_tells_what_was_seen_from_what_is_predicted(tmp_path: Path) -> None:
    """By another network of the agent, by an uplink that the site file does not name, and from a bundle."""
    chosen = ("-q", "-k", "EGRESS-01 or ROUTE-05")
    with built(SITUATIONS["second-network-of-the-agent"]) as host:
        second = host.viacheck(*chosen, site=write_site(tmp_path), report_dir=tmp_path / "second")
    lines = drawn_lines(second)
    assert lines["/run/netns/agent", "docker0"] == "missed"
    assert lines["/run/netns/agent", "br-two"] == "leak"
    assert {end for (start, end), _ in lines.items() if start == "docker0"} == set()
    assert (lines["table 254", "eth0"], lines["table 254", "wlan0"]) == ("leak", "missed")
    with built(SITUATIONS["exit-node"]) as host:
        live = host.viacheck(*chosen, site=write_site(tmp_path, OWN_DEFAULT_SITE), report_dir=tmp_path / "live")
    bundle = viacheck("--bundle", str(live.report_dir / "bundle.tar.gz"), *chosen, report_dir=tmp_path / "bundle")
    seen, predicted = drawn_lines(live), drawn_lines(bundle)
    assert seen["/run/netns/agent", "docker0"] == seen["docker0", "table 52"] == "taken"
    assert (seen["table 52", "tun0"], seen["table 52", "wlan0"]) == ("leak", "missed")
    on_path = {("/run/netns/agent", "docker0"), ("docker0", "table 52"), ("table 52", "tun0")}
    assert {kind for line, kind in predicted.items() if line in on_path} == {"predicted"}
    assert predicted["table 52", "wlan0"] == "idle"
