"""Situations that users of such hosts report, built by hand: marks that rules set, and packets that rules drop."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.hand_made import SITE
from tests.helpers.judgements import PASS
from tests.helpers.situation import CLOSED_RECIPE, Situation, assert_judged_and_corrected
from viacheck.model.verdict import Verdict

FAIL, ADVISORY = Verdict.FAIL, Verdict.ADVISORY

MARKED_FLOWS = (
    "iptables -t mangle -A PREROUTING -j CONNMARK --restore-mark",
    "iptables -t mangle -A PREROUTING -i docker0 -m mark --mark 0 -j MARK --set-mark 0x200",
    "iptables -t mangle -A POSTROUTING -j CONNMARK --save-mark",
    "ip rule del from 172.17.0.0/16 lookup 200",
    "ip rule add pref 1000 from 172.17.0.0/16 lookup 200",
    "ip rule add pref 900 fwmark 0x200 lookup 200",
)
"""A host with several uplinks that keeps each flow on its own by a mark."""

SITUATIONS = {
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
    "dropped-by-the-other-backend-of-iptables": Situation(
        commands=(
            "iptables -A FORWARD -i docker0 -j ACCEPT",
            "iptables-legacy -A FORWARD -i docker0 -o wlan0 -p tcp -j REJECT --reject-with tcp-reset",
        ),
        expected={"HOST-04": (FAIL, "FORWARD_DROPPED"), "EGRESS-01": (FAIL, "FORWARD_DROPPED"), "EGRESS-03": PASS},
        named=("of chain FORWARD of table filter (iptables-legacy) drops the agent's packets",),
        remedy=True,
    ),
    "answers-dropped-by-a-concatenation": Situation(
        commands=(
            "nft 'add table ip guard; add chain ip guard passing { type filter hook forward priority -5; }'",
            "nft 'add set ip guard lan { type ifname . ipv4_addr; flags interval; "
            "elements = { \"eth0\" . 10.10.40.0/24, \"wlan0\" . 10.10.50.0/24 }; }'",
            "nft 'add rule ip guard passing iifname . ip saddr != @lan iifname \"wlan0\" ip protocol . th sport vmap "
            "{ tcp . 443 : accept, tcp . 1024-65535 : drop, udp . 33434 : drop }'",
        ),
        expected={"HOST-04": (FAIL, "FORWARD_DROPPED"), "EGRESS-01": PASS, "EGRESS-03": (FAIL, "FORWARD_DROPPED")},
        named=("iifname . ip saddr != @lan",),
        remedy=True,
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
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_is_judged_and_corrected(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    assert_judged_and_corrected(SITUATIONS, name, tmp_path, pytestconfig)
