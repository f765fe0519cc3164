"""The parser of iptables-save against what it printed on Docker hosts, and what the chains do to the agent's packets.

The recordings were made with Docker 20.10.24 and iptables 1.8.9: docker0, a compose network, a published port, and a
rule of the operator's in DOCKER-USER.
"""

from __future__ import annotations

import re
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.paths import RECORDED
from viacheck.analysis.packet_filter.conditions import FilteredPacket
from viacheck.analysis.packet_filter.evaluate import after_prerouting, forwarding, source_nat
from viacheck.model.filter_chains import FilterChain, FilterMatch, PacketFilter
from viacheck.parsers.iptables_save import NotIptablesSave, parse_iptables_save, written_by_nft_backend

COMPOSE = "br-4c1f0a9be7d2"
BACKENDS: list[tuple[str, Literal["iptables", "iptables-legacy"]]] = [
    ("docker-20.10-iptables-nft.save", "iptables"),
    ("docker-20.10-iptables-legacy.save", "iptables-legacy"),
]


@pytest.fixture(params=BACKENDS, ids=[backend for _, backend in BACKENDS])
def docker_host(request: pytest.FixtureRequest) -> PacketFilter:
    name, backend = request.param
    return PacketFilter(chains=parse_iptables_save((RECORDED / name).read_text(), "ip", backend))


def chain_of(packet_filter: PacketFilter, table: str, name: str) -> FilterChain:
    return next(chain for chain in packet_filter.chains if (chain.table, chain.name) == (table, name))


def parsed(*rules: str, declared: str = ":FORWARD ACCEPT [0:0]", table: str = "filter") -> PacketFilter:
    text = "\n".join([f"*{table}", declared, *rules, "COMMIT"])
    return PacketFilter(chains=parse_iptables_save(text, "ip", "iptables"))


def outbound(**changes: object) -> FilteredPacket:
    """The agent's first UDP packet, on its way from docker0 to an uplink."""
    fields: dict[str, object] = {
        "family": 4, "source": "172.17.0.2", "destination": "198.51.100.1", "iif": "docker0", "oif": "wlan0",
        "protocol": 17, "sport": 40000, "dport": 53,
    }  # fmt: skip
    return FilteredPacket(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_backends_are_distinguished() -> None:
    assert written_by_nft_backend((RECORDED / BACKENDS[0][0]).read_text())
    assert not written_by_nft_backend((RECORDED / BACKENDS[1][0]).read_text())


def test_both_backends_parse_to_the_same_chains() -> None:
    contents = []
    for name, backend in BACKENDS:
        chains = parse_iptables_save((RECORDED / name).read_text(), "ip", backend)
        contents.append(
            {
                (chain.table, chain.name): (chain.type, chain.hook, chain.priority, chain.policy, chain.rules)
                for chain in chains
            }
        )
    assert contents[0] == contents[1]


def test_no_condition_of_docker_is_unknown(docker_host: PacketFilter) -> None:
    unknown = [
        rule.text
        for chain in docker_host.chains
        for rule in chain.rules
        for match in rule.matches
        if match.field == "unknown" or rule.verdict == "unknown"
    ]
    assert unknown == []


def test_base_chains_get_the_kernels_hooks(docker_host: PacketFilter) -> None:
    hooks = {(c.table, c.name): (c.type, c.hook, c.priority) for c in docker_host.chains if c.hook}
    assert hooks["nat", "POSTROUTING"] == ("nat", "postrouting", 100)
    assert hooks["nat", "PREROUTING"] == ("nat", "prerouting", -100)
    assert hooks["filter", "FORWARD"] == ("filter", "forward", 0)
    assert hooks["mangle", "PREROUTING"] == ("filter", "prerouting", -150)
    assert hooks["mangle", "OUTPUT"] == ("route", "output", -150)
    assert chain_of(docker_host, "filter", "DOCKER-USER").hook is None
    assert chain_of(docker_host, "filter", "FORWARD").policy == "drop"


def test_the_operators_rule_is_taken_apart(docker_host: PacketFilter) -> None:
    rule = chain_of(docker_host, "filter", "DOCKER-USER").rules[0]
    assert rule.verdict == "drop"
    assert rule.matches == (
        FilterMatch(field="iif", values=("wlan0",)),
        FilterMatch(field="protocol", values=("6",)),
        FilterMatch(field="dport", values=("22", "8000-8010")),
        FilterMatch(field="ctstate", values=("new",)),
    )


def test_a_published_port_is_destination_nat_to_the_container(docker_host: PacketFilter) -> None:
    rule = chain_of(docker_host, "nat", "DOCKER").rules[-1]
    assert (rule.verdict, rule.argument) == ("dnat", "172.18.0.2")
    assert FilterMatch(field="iif", values=(COMPOSE,), negated=True) in rule.matches


def test_the_agents_packets_are_masqueraded_on_any_uplink(docker_host: PacketFilter) -> None:
    translation = source_nat(docker_host, outbound())
    assert translation.kind == "masquerade"
    assert translation.rule
    assert translation.rule.text == "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"


def test_other_sources_and_the_bridge_itself_are_not_masqueraded(docker_host: PacketFilter) -> None:
    assert source_nat(docker_host, outbound(source="10.10.40.9", iif=None)).kind == "none"
    assert source_nat(docker_host, outbound(oif="docker0")).kind == "none"


def test_docker_lets_the_agent_out_although_the_policy_is_drop(docker_host: PacketFilter) -> None:
    passage = forwarding(docker_host, outbound())
    assert passage.allowed is True
    assert passage.rule
    assert passage.rule.text == "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT"


def test_what_docker_did_not_ask_for_falls_to_the_policy(docker_host: PacketFilter) -> None:
    passage = forwarding(docker_host, outbound(source="10.10.40.7", iif="eth0"))
    assert passage.allowed is False
    assert passage.policy
    assert passage.chain
    assert passage.chain.name == "FORWARD"


def test_answers_come_in_and_strangers_do_not(docker_host: PacketFilter) -> None:
    inbound = outbound(source="198.51.100.1", destination="172.17.0.2", iif="wlan0", oif="docker0", protocol=17)
    assert forwarding(docker_host, inbound).allowed is False
    answer = outbound(destination="172.17.0.2", iif="wlan0", oif="docker0", ctstate="established")
    assert forwarding(docker_host, answer).allowed is True


def test_networks_are_isolated_from_each_other(docker_host: PacketFilter) -> None:
    passage = forwarding(docker_host, outbound(oif=COMPOSE, destination="172.18.0.2"))
    assert passage.allowed is False
    assert passage.chain
    assert passage.chain.name == "DOCKER-ISOLATION-STAGE-2"


@pytest.mark.parametrize(("version", "raw"), [("26", False), ("28", True)])
def test_the_chains_of_newer_engines_let_the_agent_out_and_no_stranger_in(version: str, raw: bool) -> None:
    chains = parse_iptables_save((RECORDED / f"docker-{version}-iptables-nft.save").read_text(), "ip", "iptables")
    packet_filter = PacketFilter(chains=chains)
    rules = [rule for chain in chains for rule in chain.rules]
    assert not [rule.text for rule in rules for match in rule.matches if match.field == "unknown"]
    assert source_nat(packet_filter, outbound()).kind == "masquerade"
    assert forwarding(packet_filter, outbound()).allowed is True
    answer = outbound(destination="172.17.0.2", iif="wlan0", oif="docker0", ctstate="established")
    assert forwarding(packet_filter, answer).allowed is True
    stranger = outbound(source="198.51.100.1", destination="172.17.0.2", iif="wlan0", oif="docker0")
    assert forwarding(packet_filter, stranger).allowed is False
    # Since 28 the raw table drops what reaches a container's address by another interface than its bridge.
    assert any(chain.table == "raw" for chain in chains) is raw


def test_marks_follow_the_mangle_table(docker_host: PacketFilter) -> None:
    assert after_prerouting(docker_host, outbound(oif=None)).mark == 2
    assert after_prerouting(docker_host, outbound(oif=None, mark=0x301)).mark == 0x301
    assert after_prerouting(docker_host, outbound(oif=None, mark=0x300)).mark == 0x302
    assert after_prerouting(docker_host, outbound(oif=None, protocol=6)).mark == 0


def test_counters_are_read() -> None:
    rule = parsed("[12:3400] -A FORWARD -s 172.16.0.0/12 -j DROP").chains[0].rules[0]
    assert (rule.packets, rule.bytes, rule.text) == (12, 3400, "-A FORWARD -s 172.16.0.0/12 -j DROP")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("-m recent --update --seconds 60 --name x --rsource", "-m recent --update --seconds 60 --name x --rsource"),
        ("-m physdev ! --physdev-in veth1", "-m physdev '!' --physdev-in veth1"),
        ("-p icmp -m icmp ! --icmp-type 3/4", "'!' --icmp-type 3/4"),
        ("-p tcp -m tcp --tcp-flags SYN,RST NEW", "--tcp-flags SYN,RST NEW"),
        ("-m iprange --src-range 10.0.0.9-10.0.0.1", "--src-range 10.0.0.9-10.0.0.1"),
        ("-m conntrack ! --ctstatus NONE", "'!' --ctstatus NONE"),
        ("-s 10.0.0.1/255.0.255.0", "-s 10.0.0.1/255.0.255.0"),
        ("-m addrtype --dst-type LOCAL --limit-iface-in", "--limit-iface-in"),
    ],
)
def test_an_unknown_condition_is_kept_as_unknown(rule: str, expected: str) -> None:
    matches = parsed(f"-A FORWARD {rule} -j DROP").chains[0].rules[0].matches
    assert [match.values for match in matches if match.field == "unknown"] == [(expected,)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("-p icmp -m icmp --icmp-type 3/4", [("protocol", ("1",)), ("icmp-code", ("4",)), ("icmp-type", ("3",))]),
        ("-p ipv6-icmp -m icmp6 --icmpv6-type 128", [("protocol", ("58",)), ("icmp-type", ("128",))]),
        ("-m conntrack --ctstatus SEEN_REPLY,ASSURED", [("ctstatus", ("seen-reply", "assured"))]),
        ("-m conntrack --ctstate ESTABLISHED,DNAT", [("ctstate", ("established", "dnat"))]),
        ("-m limit --limit 3/min --limit-burst 10", [("limit", ("within",))]),
    ],
)
def test_conditions_on_icmp_conntrack_and_rate_are_read(rule: str, expected: list[tuple[str, tuple[str, ...]]]) -> None:
    matches = parsed(f"-A FORWARD {rule} -j DROP").chains[0].rules[0].matches
    assert [(match.field, match.values) for match in matches] == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("-j SNAT --to-source 10.0.0.9", ("snat", "10.0.0.9", None)),
        ("-j SNAT --to-source 10.0.0.9-10.0.0.12:1024-2048", ("snat", "10.0.0.9-10.0.0.12", None)),
        ("-j DNAT --to-destination :8080", ("dnat", None, None)),
        ("-j REJECT --reject-with icmp-port-unreachable", ("reject", None, None)),
        ("-j MARK --set-xmark 0xc8/0xffffffff", (None, None, "0xc8/0xffffffff")),
        ("-j MARK --set-mark 0x10/0xff0", (None, None, "0x10/0xff0")),
        ('-j LOG --log-prefix "a -j DROP "', (None, None, None)),
        ("-j SOMETHINGNEW", ("unknown", None, None)),
        ("-g FORWARD", ("goto", "FORWARD", None)),
        ("", (None, None, None)),
    ],
)
def test_targets(target: str, expected: tuple[str | None, str | None, str | None]) -> None:
    rule = parsed(f"-A FORWARD -i eth0 {target}").chains[0].rules[0]
    assert (rule.verdict, rule.argument, rule.set_mark) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("--restore-mark --nfmask 0xffffffff --ctmask 0xff", ("copy 0xff/0xffffffff", None)),
        ("--save-mark", (None, "copy 0xffffffff/0xffffffff")),
        ("--save-mark --nfmask 0x3 --ctmask 0xf0", (None, "copy 0x3/0xf0")),
        ("--save-mark --nfmask 0xff --ctmask 0xff --left-shift-mark 8", (None, "unknown")),
        ("--set-xmark 0x1/0x3", (None, "0x1/0x3")),
        ("--set-mark 0x4/0x3", (None, "0x4/0x7")),
    ],
)
def test_the_mark_of_a_flow(target: str, expected: tuple[str | None, str | None]) -> None:
    rule = parsed(f"-A FORWARD -m connmark ! --mark 0x1/0x3 -m mark --mark 0x2 -j CONNMARK {target}").chains[0].rules[0]
    assert (rule.set_mark, rule.set_ctmark) == expected
    assert rule.matches == (
        FilterMatch(field="ctmark", values=("0x1/0x3",), negated=True),
        FilterMatch(field="mark", values=("0x2/0xffffffff",)),
    )


@pytest.mark.parametrize(
    ("rule", "changes", "allowed"),
    [
        ("-m iprange --src-range 172.17.0.2-172.17.0.9", {}, False),
        ("-m iprange --dst-range 198.51.100.2-198.51.100.9", {}, True),
        ("-m iprange ! --src-range 10.0.0.1-10.0.0.9 --dst-range 198.51.0.0-198.51.255.255", {}, False),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", {"protocol": 6}, False),
        ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN", {"protocol": 6}, True),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", {"protocol": 6, "ctstate": "established"}, True),
        ("-p tcp -m tcp --tcp-flags RST RST", {"protocol": 6, "ctstate": "established"}, None),
        ("-p tcp -m tcp --tcp-flags ALL NONE", {"protocol": 6, "ctstate": "invalid"}, True),
        ("-p udp -m multiport --ports 40000:40009,53", {}, False),
        ("-p udp -m multiport ! --ports 40000:40009", {}, True),
        ("-p udp -m multiport ! --ports 1:9", {}, False),
        ("-m owner --uid-owner 1000", {}, True),
        ("-m owner ! --uid-owner 1000", {}, False),
        ("-m owner --uid-owner 1000", {"iif": None}, None),
        ("-m pkttype --pkt-type unicast", {}, False),
        ("-m pkttype --pkt-type broadcast", {}, True),
        ("-m hashlimit --hashlimit-upto 5/sec --hashlimit-burst 5 --hashlimit-mode srcip --hashlimit-name a", {}, None),
        (
            "-m hashlimit --hashlimit-above 5/sec --hashlimit-burst 5 --hashlimit-mode srcip --hashlimit-name a",
            {},
            True,
        ),
        ("-m recent --set --name seen --mask 255.255.255.255 --rsource", {}, False),
        ("-m time --timestart 08:00:00 --timestop 20:00:00", {}, None),
        ("-m connlimit --connlimit-above 3 --connlimit-mask 32 --connlimit-saddr", {}, None),
        ('-m string --string "x" --algo bm --to 65535', {}, None),
    ],
)
def test_frequent_matches_are_decided_for_a_packet_that_is_known(
    rule: str, changes: dict[str, object], allowed: bool | None
) -> None:
    assert forwarding(parsed(f"-A FORWARD {rule} -j DROP"), outbound(**changes)).allowed is allowed


def test_a_line_that_is_none_of_iptables_save_is_refused() -> None:
    with pytest.raises(ValueError, match=r"line 2 .*iptables: command not found"):
        parse_iptables_save("*filter\niptables: command not found\n", "ip", "iptables")


def test_an_unknown_condition_decides_only_where_it_matters() -> None:
    flow = outbound()
    limited = "-A FORWARD -i docker0 -m limit --limit 1/sec"
    assert forwarding(parsed(f"{limited} -j ACCEPT"), flow).allowed is True
    assert forwarding(parsed(f"{limited} -j DROP"), flow).allowed is None
    assert forwarding(parsed(f"{limited} -j DROP", "-A FORWARD -j DROP"), flow).allowed is False
    assert forwarding(parsed("-A FORWARD -i docker0 -j ACCEPT", f"{limited} -j DROP"), flow).allowed is True
    undecided = forwarding(parsed(f"{limited} -j DROP", "-A FORWARD -i docker0 -j ACCEPT"), flow)
    assert undecided.rule
    assert undecided.rule.text == f"{limited} -j DROP"


def test_an_unknown_condition_before_masquerading() -> None:
    declared = ":POSTROUTING ACCEPT [0:0]"
    masquerade = "-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE"
    doubtful = "-A POSTROUTING -m set --match-set exempt dst -j"
    assert (
        source_nat(parsed(f"{doubtful} RETURN", masquerade, declared=declared, table="nat"), outbound()).kind
        == "unknown"
    )
    assert (
        source_nat(parsed(f"{doubtful} MASQUERADE", masquerade, declared=declared, table="nat"), outbound()).kind
        == "masquerade"
    )
    assert source_nat(parsed(f"{doubtful} ACCEPT", declared=declared, table="nat"), outbound()).kind == "none"


def test_jumps_come_back_and_gotos_do_not() -> None:
    declared = ":FORWARD DROP [0:0]\n:USER - [0:0]\n:INNER - [0:0]"
    inner = "-A INNER -i eth9 -j DROP"
    jump = parsed("-A FORWARD -j USER", "-A FORWARD -j ACCEPT", "-A USER -j INNER", inner, declared=declared)
    goto = parsed("-A FORWARD -g USER", "-A FORWARD -j ACCEPT", "-A USER -j INNER", inner, declared=declared)
    nested = parsed(
        "-A FORWARD -j USER", "-A FORWARD -j ACCEPT", "-A USER -g INNER", "-A USER -j DROP", inner, declared=declared
    )
    assert forwarding(jump, outbound()).allowed is True
    assert forwarding(goto, outbound()).allowed is False
    assert forwarding(nested, outbound()).allowed is True


def test_a_drop_in_any_backend_is_final() -> None:
    accepting = parsed("-A FORWARD -j ACCEPT")
    legacy = parse_iptables_save("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n", "ip", "iptables-legacy")
    passage = forwarding(PacketFilter(chains=accepting.chains + legacy), outbound())
    assert passage.allowed is False
    assert passage.policy


def test_absence_proves_nothing_while_something_is_unread() -> None:
    unread = PacketFilter(unread=("nftables: Operation not permitted",))
    assert source_nat(unread, outbound()).kind == "unknown"
    assert forwarding(unread, outbound()).allowed is None
    assert after_prerouting(unread, outbound()).mark is None
    assert source_nat(PacketFilter(), outbound()).kind == "none"
    assert forwarding(PacketFilter(), outbound()).allowed is True


PARTS = st.lists(
    st.sampled_from(("-s 10.0.0.0/8", "! -d 10.0.0.9/32", "-i eth+", "-p tcp", "-m tcp", "--dport 1:9", "-m limit",
                     "--limit 3/sec", "-m mark", "--mark 0x1/0xff", "--ctstate NEW", "!", "-m", "--dport", "--mark x")),
    max_size=5,
)  # fmt: skip
TARGETS = st.sampled_from(
    ("", "-j ACCEPT", "-j LOGGING", "-g LOGGING", "-j MARK --set-xmark 0x1/0x1", "-j SNAT --to-source 1.2.3.4:5", "-j",
     "-j TPROXY --on-port 1", "-j MARK --set-xmark")
)  # fmt: skip


def quoted(comment: str) -> str:
    """A comment as iptables-save prints it (xtables_save_string)."""
    return '"' + re.sub(r"([\\\"'])", r"\\\1", comment) + '"'


@settings(max_examples=150)
@given(st.lists(st.tuples(PARTS, TARGETS), max_size=4), st.text(st.characters(exclude_characters="\n"), max_size=9))
def test_a_rule_is_read_or_refused_with_the_declared_error_and_never_dropped(
    rules: list[tuple[list[str], str]], comment: str
) -> None:
    lines = [f"-A FORWARD -m comment --comment {quoted(comment)} {' '.join(parts)} {target}" for parts, target in rules]
    try:
        packet_filter = parsed(*lines, declared=":FORWARD ACCEPT [0:0]\n:LOGGING - [0:0]")
    except NotIptablesSave:
        return
    assert len(chain_of(packet_filter, "filter", "FORWARD").rules) == len(lines)


@settings(max_examples=100)
@given(st.text(alphabet="*:-A FORWARD\nfilter nat[0:]mCOMIT#\"'\\", max_size=60))
def test_any_text_is_read_or_refused_with_the_declared_error(text: str) -> None:
    try:
        parse_iptables_save(text, "ip", "iptables")
    except NotIptablesSave:
        return
