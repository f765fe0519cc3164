"""Situations that users of such hosts report, built by hand, judged, and corrected by what the report says.

Each row is a host of the guide with a few commands more. A printed remedy is typed literally: what failed passes then,
what passed still passes, and the rollback restores rules, routes and packet filter exactly. A kind of its own is a row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.helpers.drawing import drawn_lines
from tests.helpers.front_door import Finished, viacheck
from tests.helpers.hand_made import SITE, HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from tests.helpers.judgements import PASS, Judgement, assert_bundle_and_replica_agree, judgements
from viacheck.model.result import Verdict

OWN_DEFAULT_SITE = SITE.replace('[host]\ndefault_exit = "eth0"\n', "")
"""The main table decides for the host's own packets."""
BY_ETH0 = SITE.replace('uplink = "wlan0"\ntable = 200\ntable_name = "wlan0rt"', 'uplink = "eth0"')
"""The agent leaves by the host's own default route."""
STATE = "ip rule; ip route show table all; nft list ruleset 2>/dev/null | sed 's/packets [0-9]* bytes [0-9]*//'"
FAIL, ADVISORY = Verdict.FAIL, Verdict.ADVISORY

CLOSED_RECIPE = (
    "ip rule del from 172.17.0.0/16 lookup 200",
    "ip rule add pref 990 from 172.17.0.0/16 lookup main suppress_prefixlength 0",
    "ip rule add pref 1000 from 172.17.0.0/16 lookup 200",
    "ip route add unreachable default metric 4278198272 table 200",
)
EXIT_NODE = (
    "ip rule add pref 5210 fwmark 0x80000/0xff0000 lookup main",
    "ip rule add pref 5270 lookup 52",
    "ip route add default via 10.8.0.1 dev tun0 table 52",
)
"""What Tailscale adds for an exit node, behind the uplink of a tunnel."""


MARKED_FLOWS = (
    "iptables -t mangle -A PREROUTING -j CONNMARK --restore-mark",
    "iptables -t mangle -A PREROUTING -i docker0 -m mark --mark 0 -j MARK --set-mark 0x200",
    "iptables -t mangle -A POSTROUTING -j CONNMARK --save-mark",
    "ip rule del from 172.17.0.0/16 lookup 200",
    "ip rule add pref 1000 from 172.17.0.0/16 lookup 200",
    "ip rule add pref 900 fwmark 0x200 lookup 200",
)
"""A host with several uplinks that keeps each flow on its own by a mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One host: the commands that make it of the guide's host, and the right answer."""

    commands: tuple[str, ...]
    expected: Mapping[str, Judgement]
    """Verdict and code of the checks that are judged."""
    site: str = SITE
    tunnel: bool = False
    """The host has a third interface, tun0, behind which the probe target answers as well."""
    named: tuple[str, ...] = ()
    """Texts of the causes."""
    remedy: bool = False
    """The report prints commands for a failing check."""
    still: Mapping[str, Judgement] = field(default_factory=dict)
    """What the remedies leave: by default every check passes."""
    site_file: tuple[str, ...] = ()
    """The lines of the site file that the report asks to correct."""
    in_bundle: Mapping[str, Judgement] = field(default_factory=dict)
    """Verdict and code of checks that a bundle judges otherwise."""
    in_replica: Mapping[str, Judgement] = field(default_factory=dict)
    """The same of its replica, which names what it cannot copy."""
    replica_notes: tuple[str, ...] = ()


EVERY = 4
"""One situation in so many is judged from its bundle and in its replica too; with ``--soak`` each is."""
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
    "marked-flows": Situation(
        commands=(*MARKED_FLOWS, "ip rule add pref 800 lookup main suppress_prefixlength 0"),
        expected={
            "ROUTE-02": PASS, "ROUTE-03": PASS, "ROUTE-05": PASS, "ROUTE-06": PASS, "EGRESS-01": PASS,
            "EGRESS-03": PASS, "EGRESS-08": PASS,
        },
    ),
    "marked-flows-without-local-networks": Situation(
        commands=(*MARKED_FLOWS, "ip rule add pref 899 to 172.17.0.0/16 lookup main"),
        expected={"ROUTE-02": PASS, "ROUTE-06": (ADVISORY, "LOCAL_NETS_LOST")},
        remedy=True,
    ),
    "answers-with-the-mark-of-their-flow": Situation(
        commands=MARKED_FLOWS,
        expected={"ROUTE-02": PASS, "EGRESS-01": PASS, "EGRESS-03": (FAIL, "ANSWERS_MISROUTED")},
        named=("rule priority 900",),
        remedy=True,
    ),
    "marks-drawn-at-random": Situation(
        commands=(
            "ip rule del from 172.17.0.0/16 lookup 200",
            "ip rule add pref 900 fwmark 0x2 lookup 200",
            "nft add table ip balance; nft add chain ip balance pre '{ type filter hook prerouting priority -150; }'",
            "nft add rule ip balance pre iifname docker0 meta mark set numgen random mod 2 offset 1",
        ),
        expected={
            "ROUTE-02": (FAIL, "EGRESS_DEPENDS_ON_FLOW"), "ROUTE-05": (FAIL, "EGRESS_DEPENDS_ON_FLOW"),
            "EGRESS-01": (FAIL, "EGRESS_DEPENDS_ON_FLOW"), "EGRESS-08": (FAIL, "EGRESS_DEPENDS_ON_FLOW"),
        },
        named=("leave by eth0 or wlan0: drawn for each packet by", "wlan0: rule priority 900 from all fwmark 0x2"),
        remedy=True,
    ),
    "packets-dropped-as-they-arrive": Situation(
        commands=(
            "nft add table inet guard; nft add chain inet guard pre '{ type filter hook prerouting priority -300; }'",
            "nft add rule inet guard pre iifname docker0 udp dport 33434 drop",
        ),
        expected={"EGRESS-01": (FAIL, "FORWARD_DROPPED"), "EGRESS-08": PASS, "ROUTE-05": PASS},
        named=("drops the packets as they come from the agent on docker0, before they are routed",),
    ),
    "answers-dropped-as-they-arrive": Situation(
        commands=("iptables -t raw -A PREROUTING -i wlan0 -p icmp -j DROP",),
        expected={"EGRESS-01": PASS, "EGRESS-03": (FAIL, "FORWARD_DROPPED")},
        named=("drops the answers as they arrive on wlan0, before they are routed",),
    ),
    "echo-replies-dropped": Situation(
        commands=("iptables -I FORWARD -p icmp --icmp-type echo-reply -j DROP",),
        expected={"HOST-04": (FAIL, "FORWARD_DROPPED"), "EGRESS-01": PASS, "EGRESS-03": (FAIL, "FORWARD_DROPPED")},
        named=("--icmp-type 0 -j DROP' of chain FORWARD", "drops the agent's answers"),
        remedy=True,
        in_bundle={"HOST-04": (FAIL, "FORWARD_DROPPED")},
    ),
    "pings-marked-for-the-other-uplink": Situation(
        commands=(
            *CLOSED_RECIPE,
            "nft add table ip pings; nft add chain ip pings pre '{ type filter hook prerouting priority mangle; }'",
            "nft add rule ip pings pre iifname docker0 icmp type echo-request meta mark set 7",
            "ip rule add pref 900 fwmark 7 lookup main",
        ),
        expected={
            "ROUTE-03": (FAIL, "RULE_SHADOWED"), "EGRESS-01": (FAIL, "RULE_SHADOWED"), "EGRESS-05": PASS,
            "EGRESS-08": (FAIL, "RULE_SHADOWED"),
        },
        named=("priority 900",),
        remedy=True,
    ),
    "every-second-answer-dropped": Situation(
        commands=("iptables -A FORWARD -i wlan0 -m statistic --mode nth --every 2 --packet 0 -j DROP",),
        expected={"HOST-04": (FAIL, "FORWARD_DROPPED"), "EGRESS-01": PASS, "EGRESS-03": (FAIL, "FORWARD_DROPPED")},
        named=("drops a part of the agent's answers",),
        remedy=True,
        in_bundle={"HOST-04": (FAIL, "FORWARD_DROPPED")},
        in_replica={"HOST-04": PASS, "EGRESS-03": PASS},
        replica_notes=("--mode nth --every 2 --packet 0 -j DROP (condition random",),
    ),
    "answers-over-a-rate-dropped": Situation(
        commands=(
            "iptables -A FORWARD -i wlan0 -m limit --limit 1/s --limit-burst 2 -j ACCEPT",
            "iptables -A FORWARD -i wlan0 -j DROP",
        ),
        expected={"HOST-04": PASS, "EGRESS-01": PASS, "EGRESS-03": (FAIL, "FORWARD_DROPPED")},
        named=("this host loses the agent's answers", "drop' of chain FORWARD of table filter (iptables, forward)"),
        remedy=True,
        in_replica={"HOST-04": (FAIL, "FORWARD_DROPPED")},
        replica_notes=("(condition limit within)",),
    ),
    "answers-of-some-lengths-dropped": Situation(
        commands=("iptables -t mangle -A PREROUTING -i wlan0 -m length --length 28:1400 -j DROP",),
        expected={"HOST-04": PASS, "EGRESS-01": PASS, "EGRESS-03": (FAIL, "FORWARD_DROPPED")},
        named=("-m length --length 28:1400 -j DROP' of chain PREROUTING of table mangle",),
        in_replica={"EGRESS-03": PASS},
        replica_notes=("-m length",),
    ),
    "answers-with-a-low-ttl-dropped": Situation(
        commands=("nft add table ip ttls; nft add chain ip ttls way '{ type filter hook forward priority 0; }'",
                  "nft add rule ip ttls way iifname wlan0 ip ttl '<' 70 drop"),
        expected={"HOST-04": (Verdict.INCONCLUSIVE, None), "EGRESS-01": PASS, "EGRESS-03": (FAIL, "FORWARD_DROPPED")},
        named=('iifname "wlan0" ip ttl < 70 drop',),
        remedy=True,
    ),
    "ttl-of-the-packets-set-to-1": Situation(
        commands=("iptables -t mangle -A PREROUTING -i docker0 -j TTL --ttl-set 1",),
        expected={"HOST-04": PASS, "EGRESS-01": (FAIL, "TTL_EXPIRES")},
        named=("TTL --ttl-set 1' of chain PREROUTING of table mangle", "lowers the TTL of the agent's packets"),
        remedy=True,
    ),
    "ttl-of-the-answers-set-to-1": Situation(
        commands=(
            "nft add table ip ttls; nft add chain ip ttls pre '{ type filter hook prerouting priority mangle; }'",
            "nft add rule ip ttls pre iifname wlan0 ip ttl set 1",
        ),
        expected={"HOST-04": PASS, "EGRESS-01": PASS, "EGRESS-03": (FAIL, "TTL_EXPIRES")},
        named=('iifname "wlan0" ip ttl set 1', "lowers the TTL of the answers"),
        remedy=True,
    ),
    # A carrier that forbids tethering is deceived so; with a TTL of 1 the next router drops what leaves. The far end
    # stands behind that router here.
    "ttl-of-what-leaves-set-to-1": Situation(
        commands=(
            "iptables -t mangle -A POSTROUTING -o wlan0 -j TTL --ttl-set 1",
            "ip netns add far; ip -n gw1 link add far0 type veth peer name lan0 netns far",
            "ip -n gw1 addr del 198.51.100.1/32 dev lo; ip -n gw1 addr add 192.0.2.1/24 dev far0",
            "ip -n gw1 link set far0 up; ip netns exec gw1 sysctl -qw net.ipv4.ip_forward=1",
            "ip -n far addr add 198.51.100.1/32 dev lo; ip -n far addr add 192.0.2.2/24 dev lan0",
            "ip -n far link set lo up; ip -n far link set lan0 up; ip -n far route add default via 192.0.2.1",
            "ip -n gw1 route add 198.51.100.1/32 via 192.0.2.2",
        ),
        site=f'{SITE}protocols = ["icmp"]\n',
        expected={"HOST-04": PASS, "EGRESS-01": PASS, "EGRESS-03": (FAIL, "TTL_EXPIRES")},
        named=("lowers the TTL of the agent's packets to 1: they leave by wlan0, and the next router drops them",),
        remedy=True,
        in_bundle={"EGRESS-03": (FAIL, "TTL_EXPIRES")},
        in_replica={"EGRESS-03": PASS},
    ),
    "host-that-answers-no-ping-of-the-agent": Situation(
        commands=(*CLOSED_RECIPE, "iptables -A INPUT -i docker0 -p icmp --icmp-type echo-request -j DROP"),
        expected={"ROUTE-06": (ADVISORY, "FORWARD_DROPPED"), "EGRESS-01": PASS, "EGRESS-03": PASS},
        named=("--icmp-type 8 -j DROP' of chain INPUT of table filter (iptables, input)",),
    ),
    # Local networks have their rule: what the reverse-path check drops is no fault of theirs.
    "strict-check-of-marked-packets": Situation(
        commands=(
            "ip rule del from 172.17.0.0/16 lookup 200",
            "ip rule add pref 800 from 172.17.0.0/16 lookup main suppress_prefixlength 0",
            "ip rule add pref 900 fwmark 0x2 lookup 200",
            "iptables -t mangle -A PREROUTING -i docker0 -j MARK --set-mark 2",
            "sysctl -q -w net.ipv4.conf.wlan0.rp_filter=1",
        ),
        expected={"ROUTE-06": PASS, "EGRESS-01": PASS, "EGRESS-03": (FAIL, "RP_FILTER_DROP")},
        remedy=True,
    ),
    "packets-that-conntrack-does-not-see": Situation(
        commands=("iptables -t raw -A PREROUTING -i docker0 -j NOTRACK",),
        expected={
            "NAT-02": (FAIL, "MASQUERADE_MISSING"), "EGRESS-01": PASS, "EGRESS-02": (FAIL, "MASQUERADE_MISSING"),
            "EGRESS-03": (FAIL, "MASQUERADE_MISSING"),
        },
        named=("'-A PREROUTING -i docker0 -j NOTRACK' of chain PREROUTING keeps conntrack from tracking",),
        remedy=True,
        in_bundle={"NAT-02": (FAIL, "MASQUERADE_MISSING")},
    ),
    "answers-that-conntrack-does-not-see": Situation(
        commands=(
            "nft add table ip early; nft add chain ip early pre '{ type filter hook prerouting priority raw; }'",
            "nft add rule ip early pre iifname wlan0 notrack",
        ),
        expected={"EGRESS-01": PASS, "EGRESS-03": (FAIL, "ANSWERS_MISROUTED")},
        named=("their NAT is not reversed, so they stay at this host, whose 10.10.50.9",),
        remedy=True,
        in_bundle={"EGRESS-03": (FAIL, "ANSWERS_MISROUTED")},
    ),
    # The chains for NAT see the first packet of a flow alone: the second has no mark, and masquerade drops it.
    "mark-of-first-packets-alone": Situation(
        commands=(
            "ip rule del from 172.17.0.0/16 lookup 200",
            "ip rule add pref 900 fwmark 0x2 lookup 200",
            "iptables -t nat -A PREROUTING -i docker0 -j MARK --set-mark 2",
        ),
        expected={
            "ROUTE-02": PASS, "ROUTE-05": PASS, "EGRESS-01": (FAIL, "EGRESS_DEPENDS_ON_FLOW"), "EGRESS-03": PASS,
            "EGRESS-08": (FAIL, "EGRESS_DEPENDS_ON_FLOW"),
        },
        named=("later ones have mark 0x0, and masquerade drops them, as they would leave by eth0",),
        remedy=True,
        in_bundle={"EGRESS-01": (FAIL, "EGRESS_DEPENDS_ON_FLOW")},
    ),
    "answers-dropped-by-a-set": Situation(
        commands=(
            "ipset create blocked hash:net; ipset add blocked 198.51.100.0/24",
            "iptables -I FORWARD -m set --match-set blocked src -j DROP",
        ),
        expected={"HOST-04": (FAIL, "FORWARD_DROPPED"), "EGRESS-01": PASS, "EGRESS-03": (FAIL, "FORWARD_DROPPED")},
        named=("--match-set blocked src -j DROP",),
        remedy=True,
        in_bundle={"HOST-04": (FAIL, "FORWARD_DROPPED")},
    ),
    "answers-dropped-by-a-range-of-addresses": Situation(
        commands=("iptables -I FORWARD -m iprange --src-range 198.51.100.1-198.51.100.9 -j DROP",),
        expected={"HOST-04": (FAIL, "FORWARD_DROPPED"), "EGRESS-01": PASS, "EGRESS-03": (FAIL, "FORWARD_DROPPED")},
        named=("--src-range 198.51.100.1-198.51.100.9 -j DROP",),
        remedy=True,
    ),
    "set-of-ranges-that-excludes-from-nat": Situation(
        commands=(
            "nft 'add set inet nat vpn { type ipv4_addr; flags interval; "
            "elements = { 192.0.2.0/24, 198.51.100.1-198.51.100.9 }; }'",
            "nft insert rule inet nat postrouting ip saddr 172.17.0.0/16 ip daddr @vpn accept",
        ),
        expected={
            "NAT-02": (FAIL, "MASQUERADE_MISSING"), "EGRESS-01": PASS, "EGRESS-02": (FAIL, "MASQUERADE_MISSING"),
            "EGRESS-03": (FAIL, "MASQUERADE_MISSING"),
        },
        named=("of chain postrouting excludes the agent's packets from source NAT",),
        remedy=True,
        in_bundle={"NAT-02": (FAIL, "MASQUERADE_MISSING")},
    ),
    "exclusion-from-nat-that-cannot-be-read": Situation(
        commands=(
            "nft delete table inet nat",
            "iptables -t nat -A POSTROUTING -m u32 --u32 '0&0xFF000000=0x45000000' -j ACCEPT",
            "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        ),
        expected={
            "NAT-02": (Verdict.INCONCLUSIVE, None), "EGRESS-01": PASS, "EGRESS-02": (FAIL, "MASQUERADE_MISSING"),
            "EGRESS-03": (FAIL, "MASQUERADE_MISSING"),
        },
        named=("=0x45000000\" -j ACCEPT' of chain POSTROUTING, whose conditions the model cannot evaluate",),
        remedy=True,
        in_replica={"NAT-02": PASS, "EGRESS-02": PASS, "EGRESS-03": PASS},
        replica_notes=("u32",),
    ),
    "dns-taken-by-the-lans-router": Situation(
        commands=(
            *CLOSED_RECIPE,
            "iptables -t nat -A PREROUTING -i docker0 -p udp --dport 53 -j DNAT --to-destination 10.10.40.1",
        ),
        expected={
            "EGRESS-01": PASS, "EGRESS-05": (FAIL, "CLASS_BYPASSES_UPLINK"),
            "EGRESS-08": (ADVISORY, "CLASS_BYPASSES_UPLINK"),
        },
        named=("this host sends the agent's DNS queries to 10.10.40.1 instead, by eth0", "--dport 53 -j DNAT"),
    ),
    "target-sent-to-a-silent-machine": Situation(
        commands=("iptables -t nat -A PREROUTING -i docker0 -d 198.51.100.1 -j DNAT --to-destination 10.10.40.77",),
        expected={
            "EGRESS-01": PASS, "EGRESS-03": (FAIL, "TARGET_REDIRECTED"), "EGRESS-06": (Verdict.NOT_RUN, None),
        },
        named=("to 10.10.40.77 in place of 198.51.100.1", "-j DNAT --to-destination 10.10.40.77", "leave by wlan0"),
    ),
    "target-sent-to-an-absent-neighbour": Situation(
        commands=(
            *CLOSED_RECIPE,
            "iptables -t nat -A PREROUTING -i docker0 -d 198.51.100.1 -j DNAT --to-destination 10.10.50.77",
        ),
        expected={"EGRESS-01": (FAIL, "TARGET_REDIRECTED"), "EGRESS-08": PASS},
        named=("They do not leave, as 10.10.50.77 does not answer ARP",),
        in_bundle={"EGRESS-01": (Verdict.NOT_RUN, None)},
    ),
    "target-sent-to-the-other-lan": Situation(
        commands=(
            *CLOSED_RECIPE,
            "iptables -t nat -A PREROUTING -i docker0 -d 198.51.100.1 -j DNAT --to-destination 10.10.40.1",
        ),
        expected={"EGRESS-01": (FAIL, "TARGET_REDIRECTED"), "EGRESS-03": PASS},
        named=("to 10.10.40.1 in place of 198.51.100.1", "leave by eth0"),
        in_bundle={"EGRESS-01": (FAIL, "TARGET_REDIRECTED")},
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
    "routed-on-purpose": Situation(
        commands=("nft delete table inet nat", "ip -n gw1 route add 172.17.0.0/16 via 10.10.50.9"),
        expected={
            "NAT-02": (ADVISORY, "SUBNET_ROUTED"), "EGRESS-01": PASS, "EGRESS-02": (ADVISORY, "SUBNET_ROUTED"),
            "EGRESS-03": PASS,
        },
        in_bundle={"NAT-02": (ADVISORY, "SUBNET_ROUTED")},
    ),
}  # fmt: skip


@contextlib.contextmanager
def built(situation: Situation) -> Iterator[HandMadeHost]:
    with hand_made_host() as host:
        apply_the_guides_recipe(host)
        if situation.tunnel:
            host.uplink("tun0", "10.8.0")
        for command in situation.commands:
            host.run("sh", "-ec", command)
        yield host


def judged(host: HandMadeHost, situation: Situation, folder: Path) -> Finished:
    checks = " or ".join(situation.expected)
    folder.mkdir(exist_ok=True)
    return host.viacheck("-q", "-k", checks, site=write_site(folder, situation.site), report_dir=folder / "report")


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_is_judged_and_corrected(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    situation = SITUATIONS[name]
    with built(situation) as host:
        before = host.run("sh", "-c", STATE)
        done = judged(host, situation, tmp_path)
        found = judgements(done)
        assert {check: found[check] for check in situation.expected} == dict(situation.expected), done.said
        causes = [r.diagnosis for r in done.outcome.results if r.diagnosis and r.diagnosis.reported_by is None]
        for text in situation.named:
            assert any(text in diagnosis.cause for diagnosis in causes), causes
        assert situation.site_file in ((), *(tuple(diagnosis.site_file) for diagnosis in causes))
        remedies = {tuple(diagnosis.remedy): diagnosis for diagnosis in causes if diagnosis.remedy}
        assert bool(remedies) == situation.remedy, list(remedies)
        if remedies:
            assert_corrects(host, situation, tmp_path, [list(d.remedy) for d in remedies.values()])
            for diagnosis in reversed(remedies.values()):
                host.run("sh", "-ec", "\n".join(diagnosis.undo))
            assert host.run("sh", "-c", STATE) == before
    if not (pytestconfig.option.soak or situation.in_replica or list(SITUATIONS).index(name) % EVERY == 0):
        return
    assert_bundle_and_replica_agree(
        done, situation.expected, tmp_path / "saved", in_bundle=situation.in_bundle, in_replica=situation.in_replica,
        replica_notes=situation.replica_notes,
    )  # fmt: skip


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


def assert_corrects(host: HandMadeHost, situation: Situation, folder: Path, remedies: list[list[str]]) -> None:
    """Type the remedies in the order of the report, and judge again."""
    for lines in remedies:
        host.run("sh", "-ec", "\n".join(lines))
    after = judged(host, situation, folder / "corrected")
    found = judgements(after)
    assert {check: found[check] for check in situation.expected} == {
        check: situation.still.get(check, PASS) for check in situation.expected
    }, after.said
