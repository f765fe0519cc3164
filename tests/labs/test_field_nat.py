"""Situations that users of such hosts report, built by hand: what NAT does to the agent's packets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.judgements import PASS
from tests.helpers.situation import CLOSED_RECIPE, Situation, assert_judged_and_corrected
from viacheck.model.verdict import Verdict

FAIL, ADVISORY = Verdict.FAIL, Verdict.ADVISORY

SITUATIONS = {
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
    "set-of-ranges-that-excludes-from-nat": Situation(
        commands=(
            "nft 'add set inet nat vpn { type ipv4_addr; flags interval; "
            "elements = { 192.0.2.0/24, 198.51.100.1-198.51.100.9 }; }'",
            "nft insert rule inet nat postrouting ip saddr 172.17.0.0/16 ip daddr @vpn accept",
            # Docker 28 has such a rule for each container. No answer to its own address arrives that it could drop.
            "iptables -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP",
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
    "dns-sent-elsewhere-by-a-rule": Situation(
        commands=("ip rule add pref 10 iif docker0 ipproto udp dport 53 lookup main",),
        expected={"ROUTE-03": PASS, "EGRESS-01": PASS, "EGRESS-05": (FAIL, "CLASS_BYPASSES_UPLINK")},
        named=("DNS queries to 198.51.100.53 leave by eth0 instead of wlan0, because of rule priority 10",),
        in_bundle={"EGRESS-05": (FAIL, "CLASS_BYPASSES_UPLINK")},
        in_replica={"EGRESS-05": (FAIL, "CLASS_BYPASSES_UPLINK")},
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
    "routed-on-purpose": Situation(
        commands=("nft delete table inet nat", "ip -n gw1 route add 172.17.0.0/16 via 10.10.50.9"),
        expected={
            "NAT-02": (ADVISORY, "SUBNET_ROUTED"), "EGRESS-01": PASS, "EGRESS-02": (ADVISORY, "SUBNET_ROUTED"),
            "EGRESS-03": PASS,
        },
        in_bundle={"NAT-02": (ADVISORY, "SUBNET_ROUTED")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_is_judged_and_corrected(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    assert_judged_and_corrected(SITUATIONS, name, tmp_path, pytestconfig)
