"""Two readers of the same ruleset, ``nft -j list ruleset`` and netlink, return the same conditions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from viacheck.host.namespace import Namespace
from viacheck.model.filter_chains import FilterChain, FilterMatch
from viacheck.netlink.nft_decode import read_nftables
from viacheck.parsers.nft_json import NotARuleset, parse_nft_json

pytestmark = pytest.mark.skipif(shutil.which("nft") is None, reason="needs the package nftables")

RULESET = """
table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 172.17.0.0/16 oifname != "docker0" counter masquerade
        ip saddr 172.18.0.0/16 oifname "eth0" snat to 10.10.40.9
        meta mark set jhash ip saddr . ip daddr mod 2 offset 7
        meta mark set jhash ip saddr mod 2
        udp dport 53 notrack
    }
}
table inet filter {
    set lans { type ipv4_addr; flags interval; elements = { 10.0.0.1-10.0.0.9, 10.1.0.0/16 }; }
    set services {
        type ipv4_addr . inet_proto . inet_service; flags interval
        elements = { 192.0.2.0/24 . tcp . 443, 192.0.2.7-192.0.2.9 . udp . 5000-6000 }
    }
    map by-port { type inet_service : ipv4_addr; elements = { 80 : 10.1.0.1, 81 : 10.1.0.2 }; }
    set leased { type ipv4_addr; flags timeout; elements = { 192.0.2.4 timeout 1h }; }
    chain helper {
        return
    }
    chain forward {
        type filter hook forward priority filter + 5; policy drop;
        ct state established,related accept
        iifname "docker*" ip daddr { 10.0.0.0/8, 192.168.0.0/16 } jump helper
        ip protocol icmp accept
        tcp dport 443 accept
        ip saddr 10.0.0.1-10.0.0.9 drop
        ip daddr != 10.0.0.1-10.0.0.9 ip saddr { 10.0.0.1-10.0.0.9, 10.7.0.1 } drop
        ip saddr @lans ip daddr @leased drop
        tcp flags & (fin | syn | rst | ack) == syn drop
        tcp flags & (fin | syn) != syn drop
        tcp flags syn drop
        tcp flags { syn, ack } drop
        meta pkttype { broadcast, multicast } meta pkttype != host drop
        meta skuid 1000 meta skgid != 5 drop
        udp dport 5000 drop
        ip saddr >= 10.0.0.1 drop
        ip daddr < 10.0.0.9 drop
        meta l4proto { tcp, udp } accept
        meta mark 0x10 accept
        meta mark and 0xff == 0x20 accept
        fib daddr type local accept
        ip6 saddr fd00::/8 reject
        ct mark 1 drop
        ct mark & 0xff == 2 meta mark set ct mark
        ct mark set meta mark & 0xff
        ct mark set 0x9
        meta mark set 0x7
        numgen random mod 10 < 5 meta mark set 1
        numgen inc mod 3 offset 1 2 drop
        meta mark set numgen random mod 2 offset 1
        meta mark set numgen random mod 100 map { 0-49 : 1, 50-99 : 2 }
        ct mark set symhash mod 2
        meta mark set 1 ct mark set numgen inc mod 2
        numgen random mod 10 vmap { 0-6 : drop, 7-9 : jump helper }
    }
    chain concatenated {
        ip daddr . meta l4proto . th dport @services drop
        ip daddr . tcp dport != { 10.0.0.1 . 80, 10.0.0.2 . 443 } accept
        iifname . ip saddr . meta mark vmap { "eth0" . 10.0.0.1 . 0x1 : drop, "wlan0" . 10.0.0.2 . 0x2 : goto helper }
        ip saddr . ip daddr vmap { 10.0.0.1 . 10.0.0.2 : drop, * : accept }
        ip saddr . icmp type { 10.0.0.1 . echo-request } ct state . ip saddr { new . 10.0.0.1 } drop
        ether saddr . ip saddr { 02:00:00:00:00:01 . 10.0.0.1 } drop
        meta mark set ip saddr map { 10.0.0.1 : 0x1, 10.0.0.2 : 0x2 }
        ct mark set iifname . ip saddr map { "eth0" . 10.0.0.1 : 0x1 }
        meta mark set meta mark . ip saddr map { 0x1 . 10.0.0.1 : 0x2 }
        th dport 53 drop
        meta l4proto { tcp, udp } th dport 53 drop
    }
    chain to {
        type nat hook prerouting priority dstnat; policy accept;
        dnat ip to tcp dport map @by-port
        dnat ip to tcp dport map { 90 : 10.1.0.9 }
        dnat ip to ip daddr . tcp dport map { 10.0.0.1 . 80 : 10.1.0.1 . 8080 }
        tcp dport 1 dnat ip to 10.0.0.1:80
        dnat ip to 10.0.0.1-10.0.0.5
    }
}
"""


@pytest.fixture
def host() -> Iterator[Namespace]:
    namespace = Namespace.create("host")
    yield namespace
    namespace.close()


def shown(chain: FilterChain) -> list[object]:
    """Return a chain without the text of its rules, which differs between the readers."""

    def condition(match: FilterMatch) -> tuple[object, ...]:
        return (match.field, () if match.field in ("unknown", "owner") else tuple(sorted(match.values)), match.negated)

    rules = [
        (
            {condition(match) for match in rule.matches},
            rule.verdict,
            rule.argument,
            rule.set_mark,
            rule.set_ctmark,
            rule.untracks,
        )
        for rule in chain.rules
    ]
    return [chain.family, chain.table, chain.name, chain.type, chain.hook, chain.priority, chain.policy, rules]


def test_both_readers_return_the_same(host: Namespace) -> None:
    assert host.run(["nft", RULESET]).ok
    said = host.run(["nft", "-j", "list", "ruleset"])
    assert said.ok
    kernel = {(c.table, c.name): c for table in read_nftables(host) for c in table.chains}
    text = {(c.table, c.name): c for c in parse_nft_json(said.stdout)}
    assert set(kernel) == set(text)
    for key, chain in text.items():
        for read, again in zip(shown(chain), shown(kernel[key]), strict=True):
            assert read == again
    unread = [
        match for chain in text.values() for rule in chain.rules for match in rule.matches if match.field == "unknown"
    ]
    assert not unread


def test_a_draw_is_read_as_the_numbers_that_it_chooses_from(host: Namespace) -> None:
    assert host.run(["nft", RULESET]).ok
    chains = {chain.name: chain.rules for table in read_nftables(host) for chain in table.chains}
    assert [rule.set_mark for rule in chains["postrouting"][-3:-1]] == [
        "drawn 0x7/0xffffffff 0x8/0xffffffff",
        "unknown",
    ]
    assert chains["postrouting"][-1].untracks
    drawing = chains["forward"][-8:]
    assert [rule.matches[-1].values for rule in drawing if rule.matches] == [
        ("0-4/10",), ("1-1/3",), ("0-49/100", "50-99/100"), ("0-6/10",), ("7-9/10",)
    ]  # fmt: skip
    one, one_or_two = "0x1/0xffffffff", "drawn 0x1/0xffffffff 0x2/0xffffffff"
    assert [rule.set_mark for rule in drawing if rule.set_mark] == [one, one_or_two, one_or_two, one]
    none_or_one = "drawn 0x0/0xffffffff 0x1/0xffffffff"
    assert [rule.set_ctmark for rule in drawing if rule.set_ctmark] == [none_or_one, none_or_one]


MORE = """
table ip more {
    set known { type ipv4_addr; elements = { 10.0.0.1 } }
    chain c {
        ip saddr @known log prefix "seen " drop comment "a word"
        iifname { "eth0", "wlan0" } tcp dport { 80, 443 } reject with tcp reset
        ip daddr . tcp dport { 10.0.0.1 . 80 } redirect to :8080
        ip daddr 10.0.0.0-10.0.0.9 udp dport 53 dnat to 10.1.1.1:53
        ct state { new, established } meta mark set meta mark | 0x1
    }
}
"""


def test_the_text_of_a_rule_can_be_typed_and_gives_the_same_rule(host: Namespace) -> None:
    """A bundle of the collect script has the JSON alone, and a fix or its rollback types the rule again."""
    for ruleset in (RULESET, MORE):
        assert host.run(["nft", ruleset]).ok
    before = host.run(["nft", "-s", "list", "ruleset"]).stdout
    for chain in parse_nft_json(host.run(["nft", "-j", "list", "ruleset"]).stdout):
        place = f"{chain.family} {chain.table} {chain.name}"
        assert host.run(["nft", f"flush chain {place}"]).ok
        # A map of verdicts is read as a rule for each of its entries.
        for rule in {rule.handle: rule for rule in chain.rules}.values():
            done = host.run(["nft", f"add rule {place} {rule.text}"])
            assert done.ok, f"{rule.text}: {done.stderr}"
    assert host.run(["nft", "-s", "list", "ruleset"]).stdout == before


def test_a_range_of_ports_is_one_value(host: Namespace) -> None:
    assert host.run(["nft", "table ip t {\nchain c {\nudp dport 5000-5100 drop\n}\n}\n"]).ok
    (chain,) = parse_nft_json(host.run(["nft", "-j", "list", "ruleset"]).stdout)
    assert chain.rules[0].matches == (
        FilterMatch(field="protocol", values=("17",)),
        FilterMatch(field="dport", values=("5000-5100",)),
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nftables": [{"rule": {}}]}', "[" * 100_000, '{"nftables": 3}'])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(NotARuleset):
        parse_nft_json(text)
