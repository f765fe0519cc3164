"""The intent file: what is accepted, and the exact line that reports each mistake.

The lines are part of what a person meets first, so they are held word for word.
"""

from __future__ import annotations

import re
import tomllib
from ipaddress import IPv4Address
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viacheck.model.intent import Agent, Egress, Intent, NatAttach, Site, Survivable, Uplink
from viacheck.model.intent_file import IntentError, load_intent, parse_intent
from viacheck.model.intent_values import seconds
from viacheck.model.toml_text import toml_text

EVENTS = ", ".join(get_args(Survivable))
GOOD = """\
schema = 1
[site]
name = "berlin-7"
[agent]
container = "te-agent"
[agent.attach]
mode = "nat"
[uplinks.eth0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
[egress]
uplink = "wlan0"
table = 200
table_name = "wlan0rt"
[host]
default_exit = "eth0"
[probe]
target = "198.51.100.1"
"""
MACVLAN = """\
mode = "macvlan"
network = "macvlan0"
parent = "wlan0"
subnet = "10.10.50.0/24"
gateway = "10.10.50.1"
ip_range = "10.10.50.192/27"
"""
STATIC = """\
mode = "pipework-static"
parent = "wlan0"
address = "10.10.50.200/24"
gateway = "10.10.50.1"
"""
MODES = "nat, macvlan, ipvlan, pipework-static, pipework-dhcp"
UNTABLED = GOOD.replace('table = 200\ntable_name = "wlan0rt"\n', "")


def attached(lines: str) -> str:
    """The good file with another way of attachment, and without a table."""
    return UNTABLED.replace('mode = "nat"\n', lines)


def mistakes(text: str) -> list[str]:
    with pytest.raises(IntentError) as caught:
        parse_intent(tomllib.loads(text), source="site.toml")
    return caught.value.mistakes


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        attached(MACVLAN),
        attached(STATIC),
        attached('mode = "pipework-dhcp"\nparent = "wlan0"\n'),
        GOOD.replace('container = "te-agent"', 'netns = "/proc/123/ns/net"'),
    ],
    ids=["nat", "macvlan", "pipework-static", "pipework-dhcp", "netns"],
)
def test_every_mode_is_accepted_and_survives_json(text: str) -> None:
    intent = parse_intent(tomllib.loads(text), source="site.toml")
    assert parse_intent(intent.as_json(), source="result.json") == intent
    assert intent.gateway == IPv4Address("10.10.50.1")


def test_dhcp_servers_have_ten_seconds_unless_the_site_says_otherwise() -> None:
    silent, explicit = GOOD, GOOD.replace('"198.51.100.1"', '"198.51.100.1"\ndhcp_wait = "30s"')
    waits = [parse_intent(tomllib.loads(text), source="site.toml").probe.dhcp_wait for text in (silent, explicit)]
    assert waits == ["10s", "30s"]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("schema = 1\n", "", "schema: missing; allowed: 1"),
        ("schema = 1", "schema = 2", "schema: found 2; allowed: 1"),
        ("schema = 1", "schema = true", "schema: found true; allowed: 1"),
        ('[site]\nname = "berlin-7"\n', "", "site: missing; allowed: a table"),
        ('"berlin-7"', '"berlin\\u001b[31m"', "site.name: found 'berlin\\x1b[31m'; "
         "a name is one line without control characters"),
        ('"berlin-7"', '""', "site.name: found ''; allowed: 1 to 200 characters"),
        ('"berlin-7"', f'"{"b" * 300}"', f"site.name: found '{'b' * 78}…; allowed: 1 to 200 characters"),
        ('name = "berlin-7"', 'name = "x"\nallow_disruptive = true',
         "site.allow_disruptive: in the wrong place; it belongs at the top of the file, above every table"),
        ('name = "berlin-7"', 'name = "x"\ntable_name = "wlan0rt"',
         "site.table_name: in the wrong place; it belongs in [egress]"),
        ('name = "berlin-7"', 'name = "x"\nip_range = "10.10.40.192/27"',
         "site.ip_range: in the wrong place; it belongs in [agent.attach]"),
        ('name = "berlin-7"', 'name = "x"\n[site.host]\ndefault_exit = "eth0"',
         "site.host: in the wrong place; it belongs under [host], a table of its own"),
        ('name = "berlin-7"', 'nam = "berlin-7"\nname = "x"', "site.nam: unknown key, did you mean 'name'?; "
         "allowed here: name"),
        ('container = "te-agent"', "", "agent: neither container nor netns is given; allowed: exactly one of them"),
        ('"te-agent"', '"te-agent"\nnetns = "/proc/1/ns/net"',
         "agent: both container and netns are given; allowed: exactly one of them"),
        ('"te-agent"', "3", "agent.container: found 3; allowed: a Docker name or id, such as 'te-agent'"),
        ('"te-agent"', '"-rm"', "agent.container: found '-rm'; a Docker name has two or more letters, digits, "
         "'_', '.' or '-', and a letter or digit first"),
        ('container = "te-agent"', 'netns = "te"', "agent.netns: found 'te'; the path of a network namespace is "
         "absolute, such as /proc/123/ns/net"),
        ('mode = "nat"', "", f"agent.attach.mode: missing; allowed: {MODES}"),
        ('mode = "nat"', 'mode = "bridge"', f"agent.attach.mode: found 'bridge'; allowed: {MODES}"),
        ('mode = "nat"', "mode = 5", f"agent.attach.mode: found 5; allowed: {MODES}"),
        ('mode = "nat"', 'mode = "nat"\nparent = "eth0"',
         "agent.attach.parent: unknown key; allowed here: bridge, mode, network, subnet"),
        ('mode = "nat"', 'mode = "nat"\nsubnet = "172.17.0.1/16"', "agent.attach.subnet: found '172.17.0.1/16'; "
         "allowed: an IPv4 subnet without host bits, such as '10.10.40.0/24'"),
        ('mode = "nat"', 'mode = "nat"\nsubnet = "10.10.40.0/24"', "uplinks.eth0.gateway: 10.10.40.1 lies inside the "
         "agent's subnet; allowed: an address outside 10.10.40.0/24"),
        ('mode = "nat"', 'mode = "nat"\nsubnet = "198.51.100.0/24"', "probe.target: 198.51.100.1 lies inside the "
         "agent's subnet; allowed: an address outside 198.51.100.0/24"),
        ('"10.10.50.1"', '"2001:db8::1"', "uplinks.wlan0.gateway: found '2001:db8::1'; "
         "allowed: an IPv4 address, such as '10.10.50.1'"),
        ('"10.10.50.1"', "10", "uplinks.wlan0.gateway: found 10; an address is text between quotes"),
        ('"10.10.50.1"', '"127.0.0.1"', "uplinks.wlan0.gateway: found '127.0.0.1'; the address of another machine "
         "is needed: not loopback, multicast, broadcast or 0.0.0.0"),
        ("[uplinks.eth0]", '[uplinks."wlan0.100"]\ngateway = 1\n[uplinks.eth0]',
         'uplinks."wlan0.100".gateway: found 1; an address is text between quotes'),
        ("[uplinks.eth0]", '[uplinks.nat]\ngateway = 1\n[uplinks.eth0]',
         "uplinks.nat.gateway: found 1; an address is text between quotes"),
        ("[uplinks.eth0]", '[uplinks.a-name-of-more-than-15-bytes]\ngateway = "192.0.2.1"\n[uplinks.eth0]',
         "uplinks.a-name-of-more-than-15-bytes: found 'a-name-of-more-than-15-bytes'; "
         "an interface name has 1 to 15 bytes"),
        ("[uplinks.eth0]", '[uplinks.eth0.40]\ngateway = "10.10.60.1"\n[uplinks.eth0]',
         "uplinks.eth0: found [uplinks.eth0.40]; the name of an interface with a dot stands between quotes: "
         'write [uplinks."eth0.40"]'),
        ('uplink = "wlan0"', "", "egress.uplink: missing; allowed: the name of an interface, such as 'eth0'"),
        ('uplink = "wlan0"', 'uplink = "wlan1"', "egress.uplink: 'wlan1' is not a configured uplink; "
         "allowed: eth0, wlan0"),
        ('uplink = "wlan0"', 'uplink = "a/b"', "egress.uplink: found 'a/b'; an interface name has no '/', no ':' and "
         "no white space, and is not '.' or '..'"),
        ("table = 200", "table = 254", "egress.table: found 254; tables 252 to 255 are the kernel's own; "
         "pick another, such as 200"),
        ("table = 200", "table = 0", "egress.table: found 0; "
         "allowed: a whole number from 1 to 4294967295, other than 252 to 255"),
        ("table = 200", 'table = "200"', "egress.table: found '200'; "
         "allowed: a whole number from 1 to 4294967295, other than 252 to 255"),
        ("table = 200\n", "", "egress.table_name: given without a table; allowed: together with egress.table"),
        ('"wlan0rt"', '"0rt"', "egress.table_name: found '0rt'; "
         "allowed: letters, digits, '_', '.', '-', a letter or '_' first, such as 'wlan0rt'"),
        ("table = 200", 'table = 200\npersist = "systemd"', "egress.persist: found 'systemd'; "
         "allowed: ifupdown, networkd, networkmanager, netplan, none"),
        ("table = 200", 'table = 200\nsurvives = "reboot"', "egress.survives: found 'reboot'; allowed: a list of: "
         f"{EVENTS}"),
        ("table = 200", 'table = 200\nsurvives = ["link-flap", "flap"]', "egress.survives[2]: found 'flap', did you "
         f"mean 'link-flap'?; allowed: {EVENTS}"),
        ("table = 200", 'table = 200\nsurvives = ["dns"]', f"egress.survives[1]: found 'dns'; allowed: {EVENTS}"),
        ("table = 200", 'table = 200\nrecover_within = "5"', "egress.recover_within: found '5'; "
         "a duration is a number with its unit: '500ms', '5s', '2m'"),
        ("table = 200", 'table = 200\nrecover_within = "0s"', "egress.recover_within: found '0s'; "
         "a duration is more than 0 and at most 60m"),
        ('default_exit = "eth0"', 'default_exit = "ppp0"',
         "host.default_exit: 'ppp0' is not a configured uplink; allowed: eth0, wlan0"),
        ('"198.51.100.1"', '"example.net"', "probe.target: found 'example.net'; "
         "allowed: an IPv4 address, such as '10.10.50.1'"),
        ('"198.51.100.1"', '"198.51.100.1"\nprotocols = []', "probe.protocols: found []; "
         "allowed: a list of: icmp, udp, tcp"),
        ('"198.51.100.1"', '"198.51.100.1"\nprotocols = ["udp", "udp"]', "probe.protocols: found ['udp', 'udp']; "
         "the list has an entry twice"),
        ('"198.51.100.1"', '"198.51.100.1"\ncount = 2.5', "probe.count: found 2.5; "
         "allowed: a whole number from 1 to 100"),
        ('"198.51.100.1"', '"198.51.100.1"\nport = 65536', "probe.port: found 65536; "
         "allowed: a whole number from 1 to 65535"),
        ('"198.51.100.1"', '"198.51.100.1"\ndhcp_wait = "5s"', "probe.dhcp_wait: found '5s'; "
         "the wait is from 6s, as servers may take 5s, to 60s"),
        ('"198.51.100.1"', '"198.51.100.1"\ndhcp_wait = "2m"', "probe.dhcp_wait: found '2m'; "
         "the wait is from 6s, as servers may take 5s, to 60s"),
        ('"198.51.100.1"', '"198.51.100.1"\ndhcp_wait = 10', "probe.dhcp_wait: found 10; "
         "allowed: a duration from '6s' to '60s'"),
        ('"198.51.100.1"', '"198.51.100.1"\nloss_allowed = "2"', "probe.loss_allowed: found '2'; "
         "a share is a number with %: '2%', '0.5%'"),
        ('"198.51.100.1"', '"198.51.100.1"\nloss_allowed = "101%"', "probe.loss_allowed: found '101%'; "
         "a share is from 0% to 100%"),
        ('"198.51.100.1"', '"198.51.100.1"\nloss_allowed = 2', "probe.loss_allowed: found 2; "
         "allowed: a number from 0 to 100 with %: '2%', '0.5%'"),
        ("schema = 1", 'schema = 1\nallow_disruptive = "yes"', "allow_disruptive: found 'yes'; allowed: true or false"),
        ("schema = 1", "schema = 1\n[egres]", "egres: unknown key, did you mean 'egress'?; allowed here: agent, "
         "allow_disruptive, egress, host, probe, schema, site, uplinks, waive"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_in_one_line(old: str, new: str, line: str) -> None:
    assert old in GOOD
    assert mistakes(GOOD.replace(old, new)) == [f"site.toml: {line}"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            attached(MACVLAN.replace('network = "macvlan0"\n', "")),
            "agent.attach.network: missing; allowed: a Docker name or id, such as 'te-agent'",
        ),
        (
            attached(MACVLAN.replace('gateway = "10.10.50.1"', 'gateway = "10.10.40.1"')),
            "agent.attach.gateway: 10.10.40.1 is outside the subnet; allowed: an address in 10.10.50.0/24",
        ),
        (
            attached(MACVLAN.replace('ip_range = "10.10.50', 'ip_range = "10.10.60')),
            "agent.attach.ip_range: 10.10.60.192/27 is outside the subnet; allowed: a part of 10.10.50.0/24",
        ),
        (
            attached(MACVLAN.replace('"wlan0"', '"eth0"')),
            "egress.uplink: 'wlan0' is not the agent's parent; allowed: eth0",
        ),
        (
            attached(MACVLAN).replace("[host]", "table = 200\n[host]"),
            "egress.table: policy routing does not apply to a bridged agent (macvlan); leave it out",
        ),
        (
            attached(STATIC.replace("200/24", "200/27")),
            "agent.attach.gateway: 10.10.50.1 is outside the subnet; allowed: an address in 10.10.50.192/27",
        ),
        (
            attached(STATIC + 'bridge = "br0"\n'),
            "agent.attach.bridge: unknown key; allowed here: address, gateway, mode, parent",
        ),
        (
            attached(STATIC).replace('[uplinks.wlan0]\ngateway = "10.10.50.1"', "[uplinks.wlan0]"),
            "uplinks.wlan0.gateway: missing; allowed: an IPv4 address, because a bridged agent's parent is a LAN",
        ),
        (
            attached('mode = "pipework-dhcp"\nparent = "wlan0"\ngateway = "10.10.50.1"\n'),
            "agent.attach.gateway: unknown key; allowed here: mode, parent",
        ),
    ],
)
def test_a_mistake_of_a_bridged_agent_is_reported_in_one_line(text: str, line: str) -> None:
    assert mistakes(text) == [f"site.toml: {line}"]


def test_an_unquoted_name_with_a_dot_is_one_mistake_and_hides_no_other() -> None:
    vlan = UNTABLED.replace("[uplinks.wlan0]", "[uplinks.wlan0.40.7]").replace(
        'uplink = "wlan0"', 'uplink = "wlan0.40.7"'
    )
    line = (
        "site.toml: uplinks.wlan0: found [uplinks.wlan0.40.7]; the name of an interface with a dot stands between "
        'quotes: write [uplinks."wlan0.40.7"]'
    )
    assert mistakes(vlan) == [line]
    assert mistakes(vlan.replace('"10.10.50.1"', '"x"')) == [
        line,
        "site.toml: uplinks.\"wlan0.40.7\".gateway: found 'x'; allowed: an IPv4 address, such as '10.10.50.1'",
    ]


def test_a_mistake_in_one_place_hides_none_in_another() -> None:
    text = (
        GOOD.replace("schema = 1", "schema = 2")
        .replace('"te-agent"', '"te-agent"\nnetns = "/proc/1/ns/net"')
        .replace('mode = "nat"', 'mode = "macvlan"\nparent = "ppp0"\ngatway = "x"\nsubnet = "10.10.50.0/24"')
        .replace('uplink = "wlan0"', 'uplink = "wlan1"\nlek = "allow"')
        .replace('"198.51.100.1"', '"example.net"')
    )
    keys = [line.split(": ")[1] for line in mistakes(text)]
    assert sorted(keys) == [
        "agent",
        "agent.attach.gateway",
        "agent.attach.gatway",
        "agent.attach.network",
        "agent.attach.parent",
        "egress.lek",
        "egress.table",
        "egress.uplink",
        "egress.uplink",
        "probe.target",
        "schema",
    ]


def test_an_empty_file_lists_all_that_is_missing() -> None:
    assert mistakes("") == [
        "site.toml: schema: missing; allowed: 1",
        "site.toml: site: missing; allowed: a table",
        "site.toml: agent: missing; allowed: a table",
        "site.toml: uplinks: missing; allowed: a table [uplinks.NAME] for each uplink",
        "site.toml: egress: missing; allowed: a table",
    ]


def test_parts_of_the_wrong_type_are_reported_and_stop_nothing() -> None:
    assert mistakes(
        "schema = 1\nagent = 3\nsite = []\nuplinks = {}\negress = { uplink = 7 }\nhost = []\nprobe = 1"
    ) == [
        "site.toml: site: found []; allowed: a table",
        "site.toml: agent: found 3; allowed: a table",
        "site.toml: uplinks: found {}; allowed: a table [uplinks.NAME] for each uplink",
        "site.toml: egress.uplink: found 7; allowed: the name of an interface, such as 'eth0'",
        "site.toml: host: found []; allowed: a table",
        "site.toml: probe: found 1; allowed: a table",
    ]


def test_an_intent_made_in_code_is_held_to_the_same_rules() -> None:
    with pytest.raises(ValueError, match=r"egress\.uplink: 'wlan1' is not a configured uplink; allowed: eth0"):
        Intent(
            schema=1,
            site=Site(name="made"),
            agent=Agent(container="te-agent", attach=NatAttach(mode="nat")),
            uplinks={"eth0": Uplink(gateway=IPv4Address("10.10.40.1"))},
            egress=Egress(uplink="wlan1"),
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"schema = = 1", "not TOML: Invalid value (at line 1, column 10)"),
        (
            b"[agent]\ncontainer = te-agent  # ours",
            'not TOML: Invalid value (at line 2, column 13); text stands between quotes: container = "te-agent"',
        ),
        (
            b"gateway = 10.10.40.1",
            "not TOML: Expected newline or end of document after a statement (at line 1, column 16); "
            'text stands between quotes: gateway = "10.10.40.1"',
        ),
        (b"schema = 1\n# \xff", "not UTF-8 text (byte 13); a site file is TOML in UTF-8"),
        (None, "cannot be read: No such file or directory"),
    ],
    ids=["no-toml", "no-quotes", "no-quotes-address", "no-utf8", "no-file"],
)
def test_a_file_that_cannot_be_read_is_reported_in_one_line(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "site.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(IntentError) as caught:
        load_intent(path)
    assert caught.value.mistakes == [f"{path}: {message}"]


@pytest.mark.parametrize(("text", "number"), [("500ms", 0.5), ("2.5s", 2.5), ("2m", 120.0)])
def test_durations_are_turned_into_seconds(text: str, number: float) -> None:
    assert seconds(text) == pytest.approx(number)


TEXTS = ("nat", "macvlan", "eth0", "10.0.0.1", "")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("mode", "gateway", "x.y", "")), inner),
    max_leaves=6,
)


def any_mistakes(document: dict[str, object]) -> list[str]:
    try:
        parse_intent(document, source="site.toml")
    except IntentError as error:
        return error.mistakes
    return []


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(("schema", "site", "agent", "uplinks", "egress", "host", "probe", "x")), VALUES))
def test_any_document_is_refused_with_a_line_for_each_mistake(document: dict[str, object]) -> None:
    mistakes = any_mistakes(document)
    assert mistakes, "no such document has an egress"
    assert all(line.startswith("site.toml: ") for line in mistakes)


@settings(max_examples=60)
@given(key=st.sampled_from(("container", "name", "gateway", "uplink", "target")), text=st.text(max_size=20))
def test_any_text_is_accepted_or_refused_with_its_key(key: str, text: str) -> None:
    file = re.sub(rf"(?m)^{key} = .*$", lambda _match: f"{key} = {toml_text(text)}", GOOD)
    for line in any_mistakes(tomllib.loads(file)):
        assert re.match(rf"site\.toml: [\w.]*{key}: ", line)
        assert line.isprintable()
