"""Packet filter rules written over netlink, read back, and applied to packets, in namespaces of the test's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from netns_lab.nft_rules import (
    DestinationNAT,
    DropFrames,
    DropICMPErrors,
    Duplicate,
    Forward,
    ForwardPolicy,
    LabRule,
    Masquerade,
    SetMark,
    SourceNAT,
    apply,
    remove,
)
from tests.helpers.paths import ROOT
from viacheck.analysis.packet_filter.conditions import FilteredPacket
from viacheck.analysis.packet_filter.evaluate import after_prerouting, forwarding, source_nat
from viacheck.host.namespace import Namespace
from viacheck.host.packet_filter_reader import read_packet_filter
from viacheck.model.filter_chains import FilterMatch, FilterRule, PacketFilter
from viacheck.netlink.codec import NLM_F_APPEND, NLM_F_CREATE, attribute, nested, string
from viacheck.netlink.nfnetlink import NfnetlinkSocket, NftFamily, NftMessage, NftMessageType
from viacheck.parsers.nft_json import parse_nft_json

TIMEOUT = 5.0
FLOW = FilteredPacket(
    family=4,
    source="172.17.0.2",
    destination="198.51.100.1",
    iif="docker0",
    oif="wlan0",
    protocol=17,
    dport=53,
    sport=4000,
)


@pytest.fixture
def host() -> Iterator[Namespace]:
    """An empty network namespace."""
    namespace = Namespace.create("host")
    yield namespace
    namespace.close()


def ip(namespace: Namespace, *lines: str) -> None:
    """Run ``ip`` commands; none may fail."""
    for line in lines:
        result = namespace.run(["ip", *line.split()])
        assert result.ok, f"{result.command}: {result.stderr}"


def nft(namespace: Namespace, ruleset: str) -> None:
    """Load a ruleset with the nft binary; skip the test where it is missing."""
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed: nothing to compare with")
    process = namespace.call(
        lambda: subprocess.run(["nft", "-f", "-"], input=ruleset, text=True, capture_output=True, check=False)
    )
    assert process.returncode == 0, process.stderr


def rule_read(host: Namespace, hook: str) -> FilterRule:
    """Return the first rule of the only chain at a hook."""
    chains = [chain for chain in read_packet_filter(host).chains if chain.hook == hook]
    assert len(chains) == 1, f"expected one chain at {hook}, found {[chain.name for chain in chains]}"
    return chains[0].rules[0]


def match(field: str, *values: str, negated: bool = False) -> FilterMatch:
    return FilterMatch(field=field, values=values, negated=negated)


def test_an_empty_ruleset_reads_as_an_empty_packet_filter(host: Namespace) -> None:
    assert read_packet_filter(host) == PacketFilter()


@pytest.mark.parametrize(
    "source", ["172.16.0.0/12", "10.3.16.0/20", "192.168.1.32/27", "10.0.0.0/8", "10.1.2.3/32", "fd00:0:0:8::/61"]
)
def test_masks_of_any_length_survive(host: Namespace, source: str) -> None:
    apply(host, "lab", [Masquerade(source=source)])
    assert rule_read(host, "postrouting").matches == (match("source", source),)


@pytest.mark.parametrize(
    ("rule", "hook", "matches", "verdict", "argument"),
    [
        (
            Masquerade(source="172.17.0.0/16", not_oif="docker0"),
            "postrouting",
            (match("source", "172.17.0.0/16"), match("oif", "docker0", negated=True)),
            "masquerade",
            None,
        ),
        (
            SourceNAT(source="172.17.0.0/16", to="10.10.50.9", oif="wlan0"),
            "postrouting",
            (match("source", "172.17.0.0/16"), match("oif", "wlan0")),
            "snat",
            "10.10.50.9",
        ),
        (
            DestinationNAT(to="172.17.0.2", iif="eth0", protocol=6, dport=8080, to_port=80),
            "prerouting",
            (match("source", "0.0.0.0/0"), match("iif", "eth0"), match("protocol", "6"), match("dport", "8080")),
            "dnat",
            "172.17.0.2",
        ),
        (
            Forward(verdict="drop", iif="docker0", oif="wlan0", source="172.17.0.0/16", destination="198.51.100.0/25"),
            "forward",
            (
                match("iif", "docker0"),
                match("oif", "wlan0"),
                match("source", "172.17.0.0/16"),
                match("destination", "198.51.100.0/25"),
            ),
            "drop",
            None,
        ),
    ],
)
def test_written_rules_are_read_back(
    host: Namespace, rule: LabRule, hook: str, matches: tuple[FilterMatch, ...], verdict: str, argument: str | None
) -> None:
    apply(host, "lab", [rule])
    read = rule_read(host, hook)
    assert (read.matches, read.verdict, read.argument) == (matches, verdict, argument)
    assert (read.packets, read.bytes) == (0, 0)


def test_marks_and_policies_are_read_back(host: Namespace) -> None:
    apply(
        host,
        "lab",
        [
            SetMark(mark=0x200, source="172.17.0.0/16", protocol=17),
            ForwardPolicy(verdict="drop"),
            Forward(verdict="accept", source="172.17.0.0/16"),
        ],
    )
    packet_filter = read_packet_filter(host)
    assert after_prerouting(packet_filter, FLOW).mark == 0x200
    assert after_prerouting(packet_filter, replace(FLOW, protocol=6)).mark == 0
    assert forwarding(packet_filter, FLOW).allowed is True
    stranger = forwarding(packet_filter, replace(FLOW, source="10.10.40.7"))
    assert (stranger.allowed, stranger.policy) == (False, True)


def test_each_rule_text_names_what_it_does(host: Namespace) -> None:
    apply(host, "lab", [Masquerade(source="172.16.0.0/12", not_oif="docker0")])
    translation = source_nat(read_packet_filter(host), FLOW)
    assert translation.kind == "masquerade"
    assert translation.rule
    assert 'ip saddr 172.16.0.0/12 oifname != "docker0"' in translation.rule.text
    assert translation.rule.text.endswith("masquerade")


def test_a_device_that_does_not_exist_is_refused(host: Namespace) -> None:
    """Newer kernels would take the chain and wait for such a device to appear."""
    with pytest.raises(OSError, match="nowhere"):
        apply(host, "lab", [Masquerade(source="10.0.0.0/8"), DropFrames(device="nowhere", source="02:00:00:00:00:01")])
    assert read_packet_filter(host) == PacketFilter()


def test_a_batch_is_taken_whole_or_not_at_all(host: Namespace) -> None:
    table = NftMessage(NftMessageType.NEWTABLE, NftFamily.INET, string(1, "lab"), NLM_F_CREATE)
    orphan = NftMessage(NftMessageType.NEWRULE, NftFamily.INET, string(1, "lab") + string(2, "no chain"), NLM_F_CREATE)
    with NfnetlinkSocket(host) as nfnetlink:
        with pytest.raises(FileNotFoundError):
            nfnetlink.commit([table, orphan])
        assert nfnetlink.dump(NftMessageType.GETTABLE) == []


def test_a_large_table_is_one_transaction(host: Namespace) -> None:
    """A batch larger than a socket's usual buffer was once refused with "Message too long"."""
    apply(host, "lab", [Forward(verdict="drop", source=f"10.0.{i // 256}.{i % 256}/32") for i in range(1500)])
    (chain,) = read_packet_filter(host).chains
    assert len(chain.rules) == 1500
    assert chain.rules[-1].matches[-1].values == ("10.0.5.219/32",)


def test_a_table_is_not_applied_over_another(host: Namespace) -> None:
    apply(host, "lab", [Masquerade(source="10.0.0.0/8")])
    with pytest.raises(FileExistsError):
        apply(host, "lab", [Masquerade(source="172.16.0.0/12")])
    assert rule_read(host, "postrouting").matches == (match("source", "10.0.0.0/8"),)


def test_removing_leaves_nothing_and_may_be_done_twice(host: Namespace) -> None:
    ip(host, "link add port type veth peer name other")
    apply(host, "lab", [Masquerade(source="10.0.0.0/8"), DropFrames(device="port", source="02:00:00:00:00:01")])
    apply(host, "other", [Forward(verdict="drop")])
    remove(host, "lab")
    remove(host, "lab")
    assert {chain.table for chain in read_packet_filter(host).chains} == {"other"}


def test_foreign_user_data_is_no_comment(host: Namespace) -> None:
    """Programs that write rules themselves put anything into the user data; nft's own is type, length, value."""
    apply(host, "lab", [Forward(verdict="drop")])
    accept = nested(2, nested(2, attribute(1, (1).to_bytes(4, "big"))))
    immediate = nested(1, string(1, "immediate"), nested(2, attribute(1, bytes(4)), accept))
    body = string(1, "lab") + string(2, "forward") + nested(4, immediate) + attribute(7, b"\xff\xfe\x01written by x")
    with NfnetlinkSocket(host) as nfnetlink:
        nfnetlink.commit([NftMessage(NftMessageType.NEWRULE, NftFamily.INET, body, NLM_F_CREATE | NLM_F_APPEND)])
    rules = read_packet_filter(host).chains[0].rules
    assert [rule.verdict for rule in rules] == ["drop", "accept"]


RULESET = """
table inet site {
    set lans { type ipv4_addr; flags interval; elements = { 10.10.40.0/24, 192.0.2.8-192.0.2.11 } }
    chain input { ip saddr >= 10.0.0.1 ip daddr <= 10.0.0.9; }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        iifname "docker*" oif lo meta mark & 0xff00 == 0x200 accept
        ip saddr @lans tcp dport { 80, 443, 8000-8010 } accept comment "web"
        ip saddr != 10.0.0.0/8 udp sport 1024-65535 drop
        meta l4proto { tcp, udp } th dport 53 ct state new,untracked goto input
        ip6 daddr 2001:db8::/47 limit rate 10/second counter packets 7 bytes 900 accept
        meta nfproto ipv4 fib daddr type local drop
        ip protocol icmp icmp type echo-request accept
        meta mark set meta mark & 0xffff00ff | 0x00000300
        ip daddr . tcp dport { 10.0.0.1 . 80 } accept
        ct mark & 0xff == 0x1 meta mark set ct mark
        ct mark set meta mark & 0xff
        ct mark set ct mark & 0xffffff00 | 0x7
        ct mark set 0x9 meta mark set ct mark
    }
}
table ip pool {
    flags dormant
    chain post { type nat hook postrouting priority 100; masquerade; }
}
"""


def test_a_ruleset_of_nfts_own_is_taken_apart(host: Namespace) -> None:
    nft(host, RULESET)
    chains = {(chain.table, chain.name): chain for chain in read_packet_filter(host).chains}
    rules = chains["site", "forward"].rules
    assert [(rule.matches, rule.verdict) for rule in rules[:3]] == [
        ((match("ctstate", "invalid"),), "drop"),
        ((match("ctstate", "established"),), "accept"),
        ((match("ctstate", "related"),), "accept"),
    ]
    assert rules[3].matches == (match("iif", "docker*"), match("oif", "lo"), match("mark", "0x200/0xff00"))
    assert rules[4].matches == (
        match("source", "10.10.40.0/24", "192.0.2.8/30"),
        match("protocol", "6"),
        match("dport", "80", "443", "8000-8010"),
    )
    assert rules[4].text.endswith('accept comment "web"')
    assert rules[5].matches[:3] == (
        match("source", "0.0.0.0/0"),
        match("source", "10.0.0.0/8", negated=True),
        match("protocol", "17"),
    )
    assert {value for port in rules[5].matches[3:] for value in port.values} <= {"1024-65535", "0-65535"}
    assert rules[6].matches == (
        match("protocol", "6", "17"),
        match("dport", "53"),
        match("ctstate", "new", "untracked"),
    )
    assert (rules[6].verdict, rules[6].argument) == ("goto", "input")
    assert rules[7].matches == (match("destination", "2001:db8::/47"), match("limit", "within"))
    assert (rules[7].packets, rules[7].bytes) == (7, 900)
    assert rules[8].matches == (match("source", "0.0.0.0/0"), match("dst-type", "local"))
    assert rules[9].matches[-1] == match("icmp-type", "8")
    assert (rules[10].verdict, rules[10].set_mark) == (None, "0x300/0xff00")
    assert rules[11].matches == (match("protocol", "6"), match("set", "destination=10.0.0.1/32 dport=80"))
    assert rules[12].matches == (match("ctmark", "0x1/0xff"),)
    assert [(rule.set_mark, rule.set_ctmark) for rule in rules[12:]] == [
        ("copy 0xffffffff/0xffffffff", None),
        (None, "copy 0xff/0xffffffff"),
        (None, "0x7/0xff"),
        ("0x9/0xffffffff", "0x9/0xffffffff"),
    ]
    assert chains["site", "forward"].policy == "drop"
    assert [match.field for match in chains["site", "input"].rules[0].matches] == ["source", "destination"]


FIREWALLD = """
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        icmp type echo-request limit rate 5/second accept
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_ZONES {
        iifname "eth0" goto filter_FWD_public
    }
    chain filter_FWD_public {
        meta l4proto { icmp, ipv6-icmp } accept
    }
}
"""


def nft_printed(namespace: Namespace) -> PacketFilter:
    """Return the packet filter as ``nft -j`` prints it."""
    return PacketFilter(chains=parse_nft_json(namespace.run(["nft", "-j", "list", "ruleset"]).stdout))


@pytest.mark.parametrize("read", [read_packet_filter, nft_printed])
def test_firewallds_chain_rejects_the_agent(host: Namespace, read: Callable[[Namespace], PacketFilter]) -> None:
    """Each reader of nftables understands every rule of firewalld's chain."""
    nft(host, FIREWALLD)
    packet_filter = read(host)
    rules = [rule for chain in packet_filter.chains for rule in chain.rules]
    assert not [match for rule in rules for match in rule.matches if match.field == "unknown"]
    passage = forwarding(packet_filter, FLOW)
    assert passage.allowed is False
    assert passage.rule
    assert passage.rule.verdict == "reject"
    assert "admin-prohibited" in passage.rule.text
    ping = replace(FLOW, protocol=1, sport=None, dport=None, icmp_type=8, icmp_code=0)
    assert forwarding(packet_filter, ping).allowed is True
    assert forwarding(packet_filter, replace(ping, icmp_type=13)).allowed is False
    answer = replace(FLOW, source=FLOW.destination, destination=FLOW.source, iif="wlan0", oif="docker0")
    assert forwarding(packet_filter, replace(answer, ctstate="established")).allowed is True


VERDICT_MAPS = """
table ip docker-bridges {
    map forward-in { type ifname : verdict; elements = { "docker0" : jump from_docker0, "br-lan" : accept } }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state vmap { established : accept, related : accept }
        iifname vmap @forward-in
        oifname vmap { "eth0" : drop, "wlan*" : accept }
        counter drop
    }
    chain from_docker0 {
        oifname "tun0" drop
    }
}
"""


@pytest.mark.parametrize("read", [read_packet_filter, nft_printed])
def test_verdict_maps_by_interface_are_followed(host: Namespace, read: Callable[[Namespace], PacketFilter]) -> None:
    nft(host, VERDICT_MAPS)
    packet_filter = read(host)
    verdicts = {
        oif: forwarding(packet_filter, replace(FLOW, oif=oif)).allowed for oif in ("wlan0", "eth0", "tun0", "eth1")
    }
    assert verdicts == {"wlan0": True, "eth0": False, "tun0": False, "eth1": False}
    assert forwarding(packet_filter, replace(FLOW, iif="br-lan", oif="eth1")).allowed is True
    assert forwarding(packet_filter, replace(FLOW, oif="eth0", ctstate="established")).allowed is True


def test_destination_nat_of_the_flow_is_a_status_of_conntrack(host: Namespace) -> None:
    nft(host, FIREWALLD)
    apply(host, "lab", [DestinationNAT(to="172.17.0.9", iif="docker0", protocol=17, dport=53)])
    packet_filter = read_packet_filter(host)
    assert forwarding(packet_filter, FLOW).allowed is True
    assert forwarding(packet_filter, replace(FLOW, dport=123)).allowed is False


def test_a_dormant_table_is_at_no_hook(host: Namespace) -> None:
    nft(host, RULESET)
    assert source_nat(read_packet_filter(host), FLOW).kind == "none"


def test_nft_shows_what_was_written(host: Namespace) -> None:
    ip(host, "link add port type veth peer name other")
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed: nothing to compare with")
    apply(
        host,
        "lab",
        [
            Masquerade(source="172.16.0.0/12", not_oif="docker0"),
            SourceNAT(source="10.3.16.0/20", to="10.0.0.9", oif="eth0"),
            DestinationNAT(to="172.17.0.2", iif="eth0", protocol=6, dport=8080, to_port=80),
            ForwardPolicy(verdict="drop"),
            Forward(verdict="drop", source="192.168.1.32/27"),
            SetMark(mark=0x200, source="172.17.0.0/16", protocol=6),
            DropICMPErrors(only_packet_too_big=True),
            Duplicate(device="port", to="other"),
        ],
    )
    shown = host.run(["nft", "list", "ruleset"]).stdout
    for line in (
        'ip saddr 172.16.0.0/12 oifname != "docker0" counter packets 0 bytes 0 masquerade',
        'ip saddr 10.3.16.0/20 oifname "eth0" counter packets 0 bytes 0 snat ip to 10.0.0.9',
        'iifname "eth0" tcp dport 8080 counter packets 0 bytes 0 dnat ip to 172.17.0.2:80',
        "type filter hook forward priority filter; policy drop;",
        "ip saddr 192.168.1.32/27 counter packets 0 bytes 0 drop",
        "ip saddr 172.17.0.0/16 meta l4proto tcp counter packets 0 bytes 0 meta mark set 0x00000200",
        "icmp type destination-unreachable icmp code frag-needed counter packets 0 bytes 0 drop",
        "icmpv6 type packet-too-big counter packets 0 bytes 0 drop",
        'counter packets 0 bytes 0 dup to "other"',
    ):
        assert line in shown, f"nft does not show {line!r} in:\n{shown}"


IPTABLES_RULES = (
    ("iptables", "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"),
    ("iptables", "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j MARK --set-mark 0x2/0xff"),
    ("iptables", "-t mangle -A PREROUTING -m connmark --mark 0x2/0xff -j CONNMARK --restore-mark --mask 0xff"),
    ("iptables", "-t mangle -A POSTROUTING -j CONNMARK --save-mark --nfmask 0x3 --ctmask 0xff"),
    ("iptables", "-t mangle -A FORWARD -j CONNMARK --set-xmark 0x1/0x3"),
    ("iptables", "-A FORWARD -i docker0 -p tcp -m multiport --dports 22,8000:8010 -j DROP"),
    ("iptables", "-A FORWARD -p udp -m multiport ! --ports 22,8000:8010,9 -j DROP"),
    ("iptables", "-A FORWARD -m iprange --src-range 10.0.0.1-10.0.0.9 ! --dst-range 10.9.0.0-10.9.0.6 -j DROP"),
    ("iptables", "-A FORWARD -p tcp --syn -m pkttype --pkt-type broadcast -j DROP"),
    ("iptables", "-A FORWARD -p tcp ! --syn -m pkttype ! --pkt-type unicast -j DROP"),
    ("iptables", "-t nat -A POSTROUTING -m owner --uid-owner 1000-1005 --socket-exists ! --gid-owner 7 -j ACCEPT"),
    (
        "iptables",
        "-A FORWARD -p udp -m hashlimit --hashlimit-above 9/sec --hashlimit-mode srcip --hashlimit-name a -j DROP",
    ),
    ("iptables", "-A FORWARD -m recent --set --name seen"),
    ("ip6tables", "-A FORWARD -m iprange --src-range fd00::1-fd00::9 -j DROP"),
    (
        "iptables",
        "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment back -j ACCEPT",
    ),
    ("ip6tables", "-t nat -A POSTROUTING -s fd00::/61 -j SNAT --to-source fd01::9"),
    ("ip6tables", "-A FORWARD -p udp -m udp --dport 53 -m mark --mark 0x1/0xff -j REJECT"),
)


def load_iptables(host: Namespace, variant: str) -> None:
    for tool, arguments in IPTABLES_RULES:
        argv = [f"{tool}-{variant}", *arguments.split()]
        if shutil.which(argv[0]) is None:
            pytest.skip(f"{argv[0]} is not installed")
        result = host.run(argv)
        if not result.ok and variant == "legacy":
            pytest.skip(f"iptables-legacy does not work here: {result.stderr.strip()}")
        assert result.ok, f"{result.command}: {result.stderr}"


def decides(rule: FilterRule) -> tuple[object, ...]:
    """Return everything of a rule except its text."""
    matches = {(match.field, frozenset(match.values), match.negated) for match in rule.matches}
    return matches, rule.verdict, rule.argument, rule.set_mark, rule.set_ctmark, rule.packets, rule.handle


def test_iptables_nft_appears_once_and_as_iptables_save_prints_it(host: Namespace) -> None:
    load_iptables(host, "nft")
    packet_filter = read_packet_filter(host)
    assert packet_filter.unread == ()
    assert packet_filter.read_with == ("netlink", "iptables-nft-save", "ip6tables-nft-save")
    names = [(chain.family, chain.table, chain.name) for chain in packet_filter.chains]
    assert len(names) == len(set(names)), "a table appears twice"
    assert {chain.backend for chain in packet_filter.chains} == {"iptables"}
    translation = source_nat(packet_filter, FLOW)
    assert translation.kind == "masquerade"
    assert translation.rule
    assert translation.rule.text == "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"
    assert translation.rule.handle is not None
    assert forwarding(packet_filter, replace(FLOW, protocol=6, dport=8001)).allowed is False


def test_netlink_alone_finds_the_same_rules_of_iptables_nft(host: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the list of addresses is unknown to netlink's reader; every other condition is the same."""
    load_iptables(host, "nft")
    with_tools = read_packet_filter(host)
    monkeypatch.setenv("PATH", "/nonexistent")
    alone = read_packet_filter(host)
    assert alone.read_with == ("netlink",)
    assert alone.unread == ()
    pairs = [
        pair
        for printed, read in zip(with_tools.chains, alone.chains, strict=True)
        for pair in zip(printed.rules, read.rules, strict=True)
    ]
    differing = [(printed.text, read.text) for printed, read in pairs if decides(printed) != decides(read)]
    assert len(differing) == 1, differing
    assert "xt match recent" in differing[0][1]
    assert source_nat(alone, FLOW).kind == "masquerade"
    assert forwarding(alone, replace(FLOW, protocol=6, dport=8001)).allowed is False


def test_iptables_legacy_is_read_where_it_has_tables(host: Namespace) -> None:
    load_iptables(host, "legacy")
    packet_filter = read_packet_filter(host)
    assert packet_filter.unread == ()
    assert packet_filter.read_with == ("iptables-legacy-save", "ip6tables-legacy-save")
    assert source_nat(packet_filter, FLOW).kind == "masquerade"
    flow6 = replace(FLOW, family=6, source="fd00::2", destination="2001:db8::1")
    translation = source_nat(packet_filter, flow6)
    assert (translation.kind, translation.address) == ("snat", "fd01::9")


def test_reading_makes_no_legacy_tables(host: Namespace) -> None:
    read_packet_filter(host)
    names = host.call(lambda: [path.read_text() for path in Path("/proc/thread-self/net").glob("ip*_tables_names")])
    assert "".join(names) == ""


def test_without_a_tool_legacy_tables_are_unread(host: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    load_iptables(host, "legacy")
    monkeypatch.setenv("PATH", "/nonexistent")
    packet_filter = read_packet_filter(host)
    assert packet_filter.unread[0] == "iptables-legacy: iptables-legacy-save is missing; iptables-save is missing"
    assert source_nat(packet_filter, FLOW).kind == "unknown"


ORDINARY_USER = """
import ctypes, os
from viacheck.host import packet_filter_reader
from viacheck.host import syscalls
from viacheck.host.namespace import Namespace
from netns_lab.nft_rules import Masquerade, apply

if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: gives /proc/self back to a process that changed its user
uid = os.getuid()


def become_root_of_a_user_namespace():
    syscalls.unshare(0x10000000)  # CLONE_NEWUSER
    with open("/proc/self/uid_map", "w") as uid_map:
        uid_map.write(f"0 {uid} 1")
"""


def run_as_ordinary_user(script: str) -> str:
    """Run Python that has no privilege, and no other interpreter to find: everything is imported before."""
    result = subprocess.run(
        [sys.executable, "-c", ORDINARY_USER + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    if "unshare: Operation not permitted" in result.stderr:
        pytest.skip("this system gives ordinary users no namespaces")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_rootless_namespace_is_written_and_read() -> None:
    script = """
        become_root_of_a_user_namespace()
        host = Namespace.create("host")
        apply(host, "lab", [Masquerade(source="172.16.0.0/12")])
        read = packet_filter_reader.read_packet_filter(host)
        print(read.chains[0].rules[0].matches[0].values, read.unread)
    """
    assert run_as_ordinary_user(script) == "('172.16.0.0/12',) ()"


def test_without_privilege_the_reason_is_in_unread() -> None:
    script = """
        class Here(Namespace):
            def call(self, function):
                return function()

        print(packet_filter_reader.read_packet_filter(Here("host", -1)).unread)
    """
    assert "'nftables: Operation not permitted'" in run_as_ordinary_user(script)


class Wire:
    """An agent, a host with two uplinks, and the far end of each: enough for packets to be filtered."""

    def __init__(self) -> None:
        self.host, self.agent = Namespace.create("host"), Namespace.create("agent")
        self.office, self.radio = Namespace.create("office"), Namespace.create("radio")
        names = {"docker0": self.agent, "eth0": self.office, "wlan0": self.radio}
        for number, (name, peer) in enumerate(names.items()):
            ip(self.host, f"link add {name} type veth peer name up0 netns {peer.path}")
            ip(self.host, f"addr add 10.0.{number}.1/24 dev {name}", f"link set {name} up")
            ip(peer, f"addr add 10.0.{number}.2/24 dev up0", "link set up0 up")
        ip(self.agent, "route add default via 10.0.0.1")
        self.host.call(lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))

    def socket(
        self, namespace: Namespace, kind: int = socket.SOCK_DGRAM, family: int = socket.AF_INET
    ) -> socket.socket:
        """Return a socket inside a namespace, with a bound on its waits."""
        made = namespace.call(lambda: socket.socket(family, kind))
        made.settimeout(TIMEOUT)
        return made

    def counter(self, chain: str, rule: int = 0) -> int | None:
        """Return how many packets a rule of the host has counted."""
        return next(read for read in read_packet_filter(self.host).chains if read.name == chain).rules[rule].packets

    def close(self) -> None:
        """Close every namespace."""
        for namespace in (self.agent, self.office, self.radio, self.host):
            namespace.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


def test_masquerade_shows_the_uplinks_address_to_the_far_end(wire: Wire) -> None:
    apply(wire.host, "lab", [Masquerade(source="10.0.0.0/27", not_oif="docker0")])
    with wire.socket(wire.office) as far, wire.socket(wire.agent) as near:
        far.bind(("10.0.1.2", 7))
        near.sendto(b"probe", ("10.0.1.2", 7))
        content, (source, _) = far.recvfrom(100)
    assert (content, source) == (b"probe", "10.0.1.1")
    assert wire.counter("postrouting") == 1


def test_a_forward_drop_counts_what_it_drops(wire: Wire) -> None:
    apply(wire.host, "lab", [Forward(verdict="drop", source="10.0.0.0/27")])
    with wire.socket(wire.agent) as near, wire.socket(wire.host) as fence:
        # The host resolves the next hop only for its own packets: the forward hook drops a packet before that.
        fence.sendto(b"fence", ("10.0.0.2", 7))
        near.bind(("10.0.0.2", 7))
        near.sendto(b"probe", ("10.0.1.2", 7))
        fence.sendto(b"fence", ("10.0.0.2", 7))
        assert near.recvfrom(100)[0] == b"fence"
    assert wire.counter("forward") == 1


def test_frames_of_a_foreign_mac_are_dropped_at_the_port(wire: Wire) -> None:
    apply(wire.office, "port", [DropFrames(device="up0", source_not="02:00:00:00:00:01", ethertype=0x0806)])
    frame = b"\xff" * 6 + bytes.fromhex("020000000002") + b"\x08\x06" + bytes(28)
    with wire.socket(wire.host, socket.SOCK_RAW, socket.AF_PACKET) as port:
        port.bind(("eth0", 0))
        for mac in ("020000000001", "020000000002"):
            port.send(frame[:6] + bytes.fromhex(mac) + frame[12:])
    ingress = next(chain for chain in read_packet_filter(wire.office).chains if chain.hook == "ingress")
    assert ingress.rules[0].packets == 1


def test_a_delivery_filter_spares_broadcasts(wire: Wire) -> None:
    apply(wire.host, "port", [DropFrames(device="eth0", direction="egress", destination_not="02:00:00:00:00:01")])
    with wire.socket(wire.host, socket.SOCK_RAW, socket.AF_PACKET) as port:
        port.bind(("eth0", 0))
        rest = bytes.fromhex("020000000003") + b"\x88\xb5" + bytes(46)
        port.send(bytes.fromhex("020000000001") + rest)
        port.send(bytes.fromhex("ffffffffffff") + rest)
        with pytest.raises(OSError, match="No buffer space"):
            port.send(bytes.fromhex("020000000002") + rest)
    egress = next(chain for chain in read_packet_filter(wire.host).chains if chain.hook == "egress")
    assert egress.rules[0].packets == 1


def test_a_mirrored_copy_is_seen_on_the_other_uplink(wire: Wire) -> None:
    rules: list[LabRule] = [
        Masquerade(source="10.0.0.0/24"),
        Duplicate(device="eth0", to="wlan0", source="10.0.1.1/32"),
    ]
    apply(wire.host, "lab", rules)
    everything = 0x0003
    with (
        wire.socket(wire.radio, socket.SOCK_RAW, socket.AF_PACKET) as copy,
        wire.socket(wire.office) as far,
        wire.socket(wire.agent) as near,
    ):
        copy.bind(("up0", everything))
        far.bind(("10.0.1.2", 7))
        near.sendto(b"probe-4711", ("10.0.1.2", 7))
        assert far.recvfrom(100)[0] == b"probe-4711"
        while b"probe-4711" not in copy.recv(2000):
            pass


def test_path_mtu_discovery_is_broken_by_dropping_icmp_errors(wire: Wire) -> None:
    ip(wire.host, "link set eth0 mtu 1300")
    apply(wire.host, "lab", [DropICMPErrors(only_packet_too_big=True)])
    with wire.socket(wire.agent) as near:
        near.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        near.sendto(bytes(1400), ("10.0.1.2", 7))
    assert wire.counter("output") == 1


def test_marks_set_before_routing_choose_the_table(wire: Wire) -> None:
    apply(wire.host, "lab", [SetMark(mark=0x200, source="10.0.0.0/20", protocol=17)])
    ip(wire.host, "rule add fwmark 0x200 lookup 200", "route add default via 10.0.2.2 dev wlan0 table 200")
    ip(wire.radio, "addr add 198.51.100.1/32 dev up0")
    with wire.socket(wire.radio) as far, wire.socket(wire.agent) as near:
        far.bind(("198.51.100.1", 7))
        near.sendto(b"probe", ("198.51.100.1", 7))
        assert far.recvfrom(100)[0] == b"probe"
