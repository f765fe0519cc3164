"""A site file with several agents: the intent of each, and the exact line that reports each mistake."""

from __future__ import annotations

import tomllib
from pathlib import Path

import jsonschema
import pytest

from viacheck.model.exit_status import UsageError
from viacheck.model.intent_file import IntentError, load_intent, parse_intent
from viacheck.model.intent_schema import intent_schema
from viacheck.model.site_agents import agent_chosen, agents_chosen, joined, load_agents, parse_agents

SEVERAL = """\
schema = 1
[site]
name = "berlin-7"
[agents.home]
container = "te-home"
attach = {mode = "nat"}
egress = {uplink = "eth0"}
[agents.mobile]
container = "te-mobile"
attach = {mode = "nat", network = "mobile"}
egress = {uplink = "wlan0", table = 200}
[uplinks.eth0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
"""
HOME = '[agents.home]\ncontainer = "te-home"\nattach = {mode = "nat"}\negress = {uplink = "eth0"}\n'
SINGLE = SEVERAL.replace("[agents.home]", "[agent]").partition("[agents.mobile]")[0].replace("egress = {", "#") + (
    '[uplinks.eth0]\ngateway = "10.10.40.1"\n[egress]\nuplink = "eth0"\n'
)


def test_each_agent_has_an_intent_of_its_own_and_the_host_in_common() -> None:
    intents = parse_agents(tomllib.loads(SEVERAL), source="site.toml")
    assert {name: (own.agent.container, own.egress.uplink) for name, own in intents.items()} == {
        "home": ("te-home", "eth0"), "mobile": ("te-mobile", "wlan0"),
    }  # fmt: skip
    assert intents["home"].uplinks == intents["mobile"].uplinks
    saved = joined({name: own.as_json() for name, own in intents.items()})
    assert parse_agents(saved, source="intent.json") == intents


def test_one_agent_has_no_name() -> None:
    intents = parse_agents(tomllib.loads(SINGLE), source="site.toml")
    assert list(intents) == [""]
    assert joined({"": intents[""].as_json()}) == intents[""].as_json()


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("[agents.home]", '[egress]\nuplink = "eth0"\n[agents.home]',
         ["egress: in the wrong place; each of several agents has its own table [agents.NAME.egress]"]),
        ("[agents.home]", '[agents."b\u00fcro:1"]',
         ["agents.\"b\u00fcro:1\": the name of an agent is 1 to 32 letters, digits, '_' or '-', a letter or digit "
          "first"]),
        ("te-mobile", "te-home", ["agents.mobile.container: 'te-home' is already that of agents.home"]),
        ('egress = {uplink = "eth0"}\n', "", ["agents.home.egress: missing; allowed: a table"]),
        ('{uplink = "eth0"}', '{uplink = "eth9"}',
         ["agents.home.egress.uplink: 'eth9' is not a configured uplink; allowed: eth0, wlan0"]),
        ('{mode = "nat"}', '{mode = "natt"}',
         ["agents.home.attach.mode: found 'natt'; allowed: nat, macvlan, ipvlan, pipework-static, pipework-dhcp"]),
        ('container = "te-home"', 'container = "te-home"\nuplink = "eth0"',
         ["agents.home.uplink: in the wrong place; it belongs in [agents.home.egress]"]),
        ('container = "te-home"\n', "",
         ["agents.home: neither container nor netns is given; allowed: exactly one of them"]),
        # What the agents have in common is wrong once.
        ("10.10.40.1", "10.10.40", ["uplinks.eth0.gateway: found '10.10.40'; allowed: an IPv4 address, such as "
         "'10.10.50.1'"]),
        (HOME, "[agents]\nhome = 3\n", ["agents.home: found 3; allowed: a table"]),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_by_the_agents_own_key(old: str, new: str, lines: list[str]) -> None:
    assert old in SEVERAL
    with pytest.raises(IntentError) as caught:
        parse_agents(tomllib.loads(SEVERAL.replace(old, new, 1)), source="site.toml")
    assert caught.value.mistakes == [f"site.toml: {line}" for line in lines]


def test_both_forms_together_are_one_mistake() -> None:
    with pytest.raises(IntentError) as caught:
        parse_agents({**tomllib.loads(SEVERAL), "agent": {}}, source="site.toml")
    assert caught.value.mistakes == [
        "site.toml: agents: given beside [agent]; allowed: [agent] for one agent, or a table [agents.NAME] for each of "
        "several"
    ]


@pytest.mark.parametrize("tables", [{}, 3, {f"a{number}": {} for number in range(65)}], ids=["none", "number", "many"])
def test_the_number_of_agents_has_a_limit(tables: object) -> None:
    with pytest.raises(IntentError) as caught:
        parse_agents({"schema": 1, "agents": tables}, source="site.toml")
    (line,) = caught.value.mistakes
    assert line.endswith("; allowed: 1 to 64 tables [agents.NAME]")


def test_a_reader_of_one_agent_refuses_several(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(SEVERAL)
    with pytest.raises(IntentError) as caught:
        load_intent(path)
    assert caught.value.mistakes == [
        f"{path}: agents: [agents.NAME] is for several agents; here the file is about one agent: write [agent] and "
        "[egress]"
    ]


def test_a_namespace_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(SEVERAL.replace('container = "te-home"', 'netns = "/dev/null"'))
    with pytest.raises(IntentError, match=r"agents\.home\.netns: /dev/null is "):
        load_agents(path)


def test_the_option_chooses_agents_in_the_order_of_the_file() -> None:
    assert agents_chosen(["a", "b", "c"], None, "site.toml") == ["a", "b", "c"]
    assert agents_chosen(["a", "b", "c"], "c, a", "site.toml") == ["a", "c"]
    assert agent_chosen(["a", "b"], "b", "site.toml") == "b"
    for names, wanted, message in (
        (["a", "b"], "d", "--agent: 'd' is not an agent of site.toml; allowed: a, b"),
        ([""], "a", "--agent: site.toml has one agent; --agent chooses among tables [agents.NAME]"),
        (["a", "b"], None, "site.toml has several agents: choose one by --agent: a, b"),
    ):
        with pytest.raises(UsageError) as caught:
            agent_chosen(names, wanted, "site.toml")
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (SEVERAL, True),
        (SINGLE, True),
        (SEVERAL + HOME.replace("agents.home", "agent").replace("egress = ", "#"), False),
    ],
)
def test_the_schema_takes_either_form(text: str, valid: bool) -> None:
    document = tomllib.loads(text)
    assert jsonschema.Draft202012Validator(intent_schema()).is_valid(document) == valid
    if valid:
        assert parse_agents(document, source="site.toml")
    else:
        with pytest.raises(IntentError):
            parse_agents(document, source="site.toml")


def test_an_intent_of_the_single_form_is_read_alike() -> None:
    document = tomllib.loads(SINGLE)
    assert parse_agents(document, source="site.toml")[""] == parse_intent(document, source="site.toml")
