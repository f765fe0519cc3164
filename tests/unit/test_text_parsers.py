"""Parsers of nft's JSON, ini files and rt_tables: no input makes them drop a rule or raise an undeclared error."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from viacheck.model.config_entry import ParseProblem
from viacheck.model.snapshot import HostFile
from viacheck.parsers.ini import is_yes, named, sections
from viacheck.parsers.nft_json import NotARuleset, parse_nft_json
from viacheck.parsers.rt_tables import TableEntry, registered

LEFT: tuple[dict[str, Any], ...] = (
    {"meta": {"key": "iifname"}},
    {"meta": {"key": "mark"}},
    {"meta": {"key": "time"}},
    {"payload": {"protocol": "ip", "field": "saddr"}},
    {"payload": {"protocol": "tcp", "field": "dport"}},
    {"ct": {"key": "state"}},
    {"&": [{"meta": {"key": "mark"}}, 255]},
    {"fib": {"result": "type", "flags": ["daddr"]}},
    {"socket": {"key": "mark"}},
    {},
)
RIGHT: tuple[Any, ...] = (
    "eth0",
    5,
    ["new", "established"],
    {"set": ["10.0.0.1", {"prefix": {"addr": "10.0.0.0", "len": 8}}]},
    {"range": [1, 9]},
    {"set": [80, {"range": [1, 9]}]},
    "@named",
    None,
)
STATEMENTS: tuple[dict[str, Any], ...] = (
    {"accept": None},
    {"counter": {"packets": 1, "bytes": 2}},
    {"jump": {"target": "c"}},
    {"snat": {"addr": "1.2.3.4"}},
    {"xt": None},
    {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}},
    {"vmap": {}},
    {"snat": None},
    {},
)
MATCHES = st.fixed_dictionaries(
    {"op": st.sampled_from(("==", "!=", "in", "<")), "left": st.sampled_from(LEFT), "right": st.sampled_from(RIGHT)}
)
RULES = st.lists(
    st.builds(lambda match: {"match": match}, MATCHES) | st.sampled_from(STATEMENTS),
    max_size=3,
)
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("nftables", "rule", "chain", "family", "table", "name", "expr")), inner)
    ),
    max_leaves=8,
)
TABLES = st.tuples(st.integers(0, 2**32 - 1), st.booleans(), st.text("abc-_é", min_size=1, max_size=8))


def ruleset(rules: list[list[Any]]) -> str:
    place = {"family": "ip", "table": "t", "chain": "c"}
    chain = {"family": "ip", "table": "t", "name": "c", "type": "filter", "hook": "forward", "prio": 0}
    return json.dumps({"nftables": [{"chain": chain}, *({"rule": {**place, "expr": expr}} for expr in rules)]})


@settings(max_examples=100)
@given(st.lists(RULES, max_size=4))
def test_a_rule_of_nft_is_read_or_refused_and_never_dropped(rules: list[list[Any]]) -> None:
    try:
        (chain,) = parse_nft_json(ruleset(rules))
    except NotARuleset:
        return
    assert len(chain.rules) == len(rules)
    for rule, statements in zip(chain.rules, rules, strict=True):
        conditions = [statement for statement in statements if statement.keys() & {"match", "xt", "vmap"}]
        assert len(rule.matches) >= len(conditions), "an unknown condition is kept as unknown"


@settings(max_examples=60)
@given(JSON)
def test_any_json_is_a_ruleset_or_refused(document: Any) -> None:
    try:
        parse_nft_json(json.dumps(document))
    except NotARuleset:
        return


@settings(max_examples=100)
@given(st.lists(st.text(alphabet="[]Mat= ch#;\\\\Né0x1\t", max_size=12), max_size=6))
def test_every_line_of_an_ini_file_is_a_setting_a_section_or_a_problem(lines: list[str]) -> None:
    problems: list[ParseProblem] = []
    read = sections(HostFile(path="/etc/x", exists=True, text="\n".join(lines)), problems)
    reported = {section.place.line for section in read} | {problem.line for problem in problems}
    reported |= {setting.place.line for section in read for setting in section.settings}
    continued = False
    for number, line in enumerate(map(str.strip, lines), 1):
        if line[:1] in ("#", ";"):
            continue
        if not continued and line.rstrip("\\ \t"):
            assert number in reported
        continued = line.endswith("\\")
    for section in read:
        assert section in list(named(read, section.name))
        assert isinstance(is_yes(section.get("Mat"), default=True), bool)


def test_a_comment_that_ends_in_a_backslash_hides_no_setting() -> None:
    text = "[Route]\n# see C:\\\nTable=200\nGateway=\\\n; between\n10.0.0.1\n"
    (section,) = sections(HostFile(path="/etc/x", exists=True, text=text), [])
    assert [(setting.key, setting.value, setting.place.line) for setting in section.settings] == [
        ("Table", "200", 3),
        ("Gateway", "10.0.0.1", 4),
    ]


@settings(max_examples=80)
@given(st.lists(TABLES, max_size=5))
def test_every_entry_of_rt_tables_is_read(entries: list[tuple[int, bool, str]]) -> None:
    path = "/etc/iproute2/rt_tables"
    lines = [f"{hex(number) if in_hex else number}\t{name} # {name}" for number, in_hex, name in entries]
    read = registered([HostFile(path=path, exists=True, text="\n".join(["# names", *lines]))])
    assert read == [TableEntry(path, line, number, name) for line, (number, _, name) in enumerate(entries, 2)]


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_any_text_of_rt_tables_is_read(text: str) -> None:
    for entry in registered([HostFile(path="/etc/iproute2/rt_tables.d/x.conf", exists=True, text=text)]):
        assert entry.name
