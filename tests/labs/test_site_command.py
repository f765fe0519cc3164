"""``./viacheck site``: drafts made in hand-made namespaces and of engines' answers must load, and say what is."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.front_door import VIACHECK
from viacheck.cli.main import main
from viacheck.cli.site import agent_among
from viacheck.host.command import CommandResult
from viacheck.host.docker import RunningContainer
from viacheck.host.namespace import Namespace
from viacheck.model.docker_state import Attachment, DockerContainer, DockerEngine, DockerNetwork, IPAMPool
from viacheck.model.exit_status import UsageError
from viacheck.model.intent import Intent, MacvlanAttach, NatAttach, PipeworkDhcpAttach
from viacheck.model.intent_draft import draft
from viacheck.model.intent_file import load_intent, parse_intent
from viacheck.model.intent_schema import intent_schema
from viacheck.model.namespace_state import Address, Link, NetworkState
from viacheck.model.policy_rule import Rule
from viacheck.model.route import Nexthop, Route
from viacheck.model.snapshot import Problem, Snapshot

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
attach = {mode = "nat"}
egress = {uplink = "wlan0", table = 200}
[uplinks.eth0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
"""
NO_ENGINE = "DOCKER_HOST=unix:///nonexistent/docker.sock"


def ip(namespace: Namespace, *commands: str) -> None:
    for command in commands:
        result = namespace.run(["ip", *command.split()])
        assert result.ok, f"{result.command}: {result.stderr}"


def site(namespace: Namespace, *words: str) -> CommandResult:
    return namespace.run(["env", NO_ENGINE, *VIACHECK, "site", *words])


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with two uplinks, eth0 for itself and wlan0 as yet for nobody, and an empty docker0."""
    namespace = Namespace.create("host")
    ip(
        namespace,
        "link set lo up",
        "link add eth0 type veth peer name far0",
        "link add wlan0 type veth peer name far1",
        "link add docker0 type bridge",
        "link set far0 up",
        "link set far1 up",
        "link set eth0 up",
        "link set wlan0 up",
        "link set docker0 up",
        "address add 10.10.40.9/24 dev eth0",
        "address add 10.10.50.9/24 dev wlan0",
        "address add 172.17.0.1/16 dev docker0",
        "route add default via 10.10.40.1 dev eth0",
    )
    yield namespace
    namespace.close()


@pytest.fixture
def agent(host: Namespace) -> Iterator[Namespace]:
    """An empty namespace for an agent that is no container."""
    namespace = Namespace.create("agent")
    ip(namespace, "link set lo up")
    yield namespace
    namespace.close()


def test_a_draft_of_a_policy_routed_host_names_uplinks_rule_and_table(host: Namespace, tmp_path: Path) -> None:
    ip(host, "rule add from 172.17.0.0/16 lookup 200", "route add default via 10.10.50.1 dev wlan0 table 200")
    path = tmp_path / "site.toml"
    result = site(host, "init", "-o", str(path), "--container", "te-agent")
    assert result.ok, result.stderr
    intent = load_intent(path)
    assert {name: str(uplink.gateway) for name, uplink in intent.uplinks.items()} == {
        "eth0": "10.10.40.1",
        "wlan0": "10.10.50.1",
    }
    assert (intent.egress.uplink, intent.egress.table) == ("wlan0", 200)
    assert intent.host.default_exit == "eth0"
    assert intent.agent.container == "te-agent"
    assert isinstance(intent.agent.attach, NatAttach)
    assert "Docker engine at unix:///nonexistent/docker.sock: the socket does not exist" in path.read_text()


def test_a_draft_of_a_plain_host_says_that_the_uplink_was_guessed(host: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    assert site(host, "init", "-o", str(path)).ok
    intent = load_intent(path)
    assert (intent.egress.uplink, intent.egress.table) == ("eth0", None)
    marked = [line for line in path.read_text().splitlines() if "CORRECT THIS" in line]
    assert [line.removeprefix("# ").split(" ")[0] for line in marked] == ["container", "network", "uplink", "target"]
    assert '# target = ""  # CORRECT THIS: no address beyond the uplink answered ping; name one that does' in marked


def test_a_rule_whose_table_is_empty_keeps_the_table_and_marks_the_uplink(host: Namespace, tmp_path: Path) -> None:
    ip(host, "rule add from 172.17.0.0/16 lookup 200")
    path = tmp_path / "site.toml"
    assert site(host, "init", "-o", str(path)).ok
    assert load_intent(path).egress.table == 200
    assert 'uplink = "eth0"  # CORRECT THIS: table 200 has no default route to show the uplink' in path.read_text()


def test_a_bare_namespace_behind_a_bridge_is_drafted_as_nat(host: Namespace, agent: Namespace, tmp_path: Path) -> None:
    ip(host, f"link add veth0 type veth peer name eth0 netns {agent.path}", "link set veth0 master docker0 up")
    ip(agent, "link set eth0 up", "address add 172.17.0.2/16 dev eth0", "route add default via 172.17.0.1")
    path = tmp_path / "site.toml"
    result = site(host, "init", "-o", str(path), "--netns", agent.path)
    assert result.ok, result.stderr
    attach = load_intent(path).agent.attach
    assert isinstance(attach, NatAttach)
    assert (str(attach.subnet), attach.bridge) == ("172.17.0.0/16", "docker0")


@pytest.mark.parametrize(
    ("lifetime", "kind"), [("", MacvlanAttach), (" valid_lft 600 preferred_lft 600", PipeworkDhcpAttach)]
)
def test_an_agent_on_its_parents_lan_is_drafted_by_its_interface(
    host: Namespace, agent: Namespace, tmp_path: Path, lifetime: str, kind: type
) -> None:
    ip(host, f"link add link wlan0 name eth1 netns {agent.path} type macvlan mode bridge")
    ip(agent, "link set eth1 up", f"address add 10.10.50.200/24 dev eth1{lifetime}")
    ip(agent, "route add default via 10.10.50.1")
    path = tmp_path / "site.toml"
    result = site(host, "init", "-o", str(path), "--netns", agent.path)
    assert result.ok, result.stderr
    intent = load_intent(path)
    assert isinstance(intent.agent.attach, kind)
    assert (intent.egress.uplink, str(intent.gateway)) == ("wlan0", "10.10.50.1")


def test_without_a_default_route_nothing_is_drafted(tmp_path: Path) -> None:
    namespace = Namespace.create("bare")
    result = site(namespace, "init", "-o", str(tmp_path / "site.toml"))
    namespace.close()
    assert result.exit_code == 4
    assert result.stderr.splitlines() == [
        "viacheck site init: no default route of this host names a gateway, so no uplink is known: "
        "bring the uplinks up, or write the file by hand"
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_replaced_only_by_force(host: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("mine")
    refused = site(host, "init", "-o", str(path))
    assert (refused.exit_code, refused.stderr) == (4, f"viacheck site init: {path}: exists; --force replaces it\n")
    assert path.read_text() == "mine"
    assert site(host, "init", "-o", str(path), "--force").ok
    assert load_intent(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    host: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.toml"
    path.write_text("mine")
    monkeypatch.setattr("os.path.lexists", lambda _path: False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert host.call(lambda: main(["site", "init", "-o", str(path)])) == 4
    assert capfd.readouterr().err == f"viacheck site init: {path}: exists; --force replaces it\n"
    assert (path.read_text(), list(tmp_path.iterdir())) == ("mine", [path])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "viacheck site: the following arguments are required: schema|init|check"),
        (["init", "--netns", "/etc"], "viacheck site init: /etc: is not a network namespace"),
        (["init", "--netns", "/nowhere"], "viacheck site init: /nowhere: No such file or directory"),
        (
            ["init", "--netns", "/etc", "--container", "te-agent"],
            "viacheck site init: argument --container: not allowed with argument --netns",
        ),
    ],
)
def test_a_wrong_call_is_told_in_one_line(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (main(["site", *words]), capfd.readouterr()) == (4, ("", f"{line}\n"))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_told(host: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "site.toml"
    result = site(host, "init", "-o", str(path))
    assert result.exit_code == 4
    assert result.stderr == f"viacheck site init: {path}: cannot be written: No such file or directory\n"


def unmanaged(_interface: str) -> None:
    """No network manager names an interface."""


TABLE_NAMES = {200: "wlan0rt"}


def default(gateway: str, interface: str, table: int = 254) -> Route:
    hop = Nexthop(gateway=gateway, interface=interface)
    return Route(family=4, table=table, destination="0.0.0.0/0", nexthops=(hop,))


def engine_host(network: DockerNetwork | None, *, rules: tuple[Rule, ...] = (), network_mode: str = "") -> Snapshot:
    """What a host with an engine shows whose agent is on that network."""
    container = DockerContainer(
        name="te-agent",
        id="0" * 64,
        running=False,
        pid=0,
        network_mode=network_mode,
        attachments=(Attachment(network=network.name),) if network else (),
    )
    return Snapshot(
        taken="2026-01-01T00:00:00+00:00",
        hostname="berlin-7",
        kernel="6.1.0",
        host=NetworkState(
            links=(Link(index=2, name="eth0"), Link(index=3, name="wlan0"), Link(index=4, name="eth1")),
            addresses=(Address(interface="eth0", family=4, address="10.10.40.9", prefixlen=24),),
            rules=rules,
            routes=(default("10.10.40.1", "eth0"), default("10.10.50.1", "wlan0", 200)),
        ),
        engine=DockerEngine(
            version="27.0.1", api_version="1.46", networks=(network,) if network else (), container=container
        ),
    )


def loaded(snapshot: Snapshot) -> Intent:
    return parse_intent(tomllib.loads(draft({"te-agent": snapshot}, TABLE_NAMES, unmanaged).text), source="site.toml")


def test_a_container_on_a_network_of_its_own_gets_the_rule_of_that_networks_subnet() -> None:
    network = DockerNetwork(
        name="probes", id="1" * 64, driver="bridge", pools=(IPAMPool(subnet="172.20.0.0/16"),), bridge="br-111111111111"
    )
    other = Rule(family=4, priority=100, source="10.0.0.0/8", table=100)
    own = Rule(family=4, priority=101, source="172.20.0.0/16", table=200)
    intent = loaded(engine_host(network, rules=(other, own)))
    assert isinstance(intent.agent.attach, NatAttach)
    assert intent.agent.attach.network == "probes"
    assert (intent.egress.uplink, intent.egress.table, intent.egress.table_name) == ("wlan0", 200, "wlan0rt")


def test_a_rule_by_incoming_bridge_counts_as_well() -> None:
    network = DockerNetwork(name="bridge", id="1" * 64, driver="bridge", bridge="docker0")
    rule = Rule(family=4, priority=100, iif="docker0", table=200)
    assert loaded(engine_host(network, rules=(rule,))).egress.uplink == "wlan0"


def test_a_container_on_a_macvlan_network_is_drafted_with_its_parent_and_pool() -> None:
    pool = IPAMPool(subnet="10.10.50.0/24", gateway="10.10.50.1", ip_range="10.10.50.192/27")
    network = DockerNetwork(name="macvlan0", id="1" * 64, driver="macvlan", pools=(pool,), parent="wlan0")
    intent = loaded(engine_host(network))
    attach = intent.agent.attach
    assert isinstance(attach, MacvlanAttach)
    assert (attach.network, attach.parent, intent.egress.uplink) == ("macvlan0", "wlan0", "wlan0")
    assert (str(attach.subnet), str(attach.gateway), str(attach.ip_range)) == (
        "10.10.50.0/24",
        "10.10.50.1",
        "10.10.50.192/27",
    )


def test_an_interface_without_a_default_route_is_offered_as_an_uplink() -> None:
    text = draft({"te-agent": engine_host(None, network_mode="none")}, {}, unmanaged).text
    assert "# [uplinks.eth1]  # no default route names its gateway; an uplink too?\n# gateway =\n" in text


def test_a_point_to_point_uplink_is_drafted_without_a_gateway() -> None:
    snapshot = engine_host(DockerNetwork(name="bridge", id="1" * 64, driver="bridge", bridge="docker0"))
    link = Link(index=5, name="ppp0", flags=("POINTOPOINT", "NOARP", "UP"))
    route = Route(
        family=4, table=200, destination="0.0.0.0/0", nexthops=(Nexthop(gateway=None, interface="ppp0"),)
    )  # fmt: skip
    rule = Rule(family=4, priority=100, iif="docker0", table=200)
    host = replace(snapshot.host, links=(*snapshot.host.links, link), routes=(route,), rules=(rule,))
    intent = loaded(replace(snapshot, host=host))
    assert intent.egress.uplink == "ppp0"
    assert intent.gateway is None


def test_an_agent_on_the_hosts_network_has_no_path_of_its_own() -> None:
    with pytest.raises(UsageError, match="te-agent shares the host's network"):
        loaded(engine_host(None, network_mode="host"))


AGENT, WEB, OTHER = (
    RunningContainer("te-agent", "thousandeyes/enterprise-agent"), RunningContainer("web", "nginx"),
    RunningContainer("te-agent-2", "thousandeyes/enterprise-agent"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("running", "chosen"),
    [([WEB, AGENT], (AGENT, "looks like an agent")), ([WEB], (WEB, "runs"))],
    ids=["by its name", "the only one"],
)
def test_the_agents_container_is_found(running: list[RunningContainer], chosen: tuple[RunningContainer, str]) -> None:
    assert agent_among(running) == chosen


@pytest.mark.parametrize(
    ("running", "listed"),
    [
        ([AGENT, WEB, OTHER], "te-agent (image thousandeyes/enterprise-agent), te-agent-2 (image thousandeyes/"),
        ([WEB, RunningContainer("db", "postgres")], "web (image nginx), db (image postgres)"),
    ],
    ids=["two agents", "no agent"],
)
def test_several_containers_are_listed_to_choose_from(running: list[RunningContainer], listed: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"name the agent's container with --container: {listed}")):
        agent_among(running)


def test_names_from_the_host_cannot_break_out_of_the_draft() -> None:
    name = 'a"]\x1b[x'
    snapshot = Snapshot(
        taken="2026-01-01T00:00:00+00:00",
        hostname="host",
        kernel="6.1.0",
        host=NetworkState(
            addresses=(Address(interface="docker0", family=4, address="172.17.0.1", prefixlen=16),),
            rules=(Rule(family=4, priority=1, source="172.17.0.0/16", oif=name, table=200),),
            routes=(default("10.10.40.1", name),),
        ),
        problems=(Problem(what="engine", reason="one\ntwo = 2"),),
    )
    text = draft({"": snapshot}, {}, unmanaged).text
    assert list(parse_intent(tomllib.loads(text), source="site.toml").uplinks) == [name]
    assert "\x1b" not in text


def test_a_file_is_checked_and_its_agents_are_listed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "site.toml"
    path.write_text(SEVERAL.replace("[agents.mobile]", '[[agents.home.source]]\ninterface = "eth1"\n[agents.mobile]'))
    assert main(["site", "check", str(path)]) == 0
    assert capfd.readouterr().out.splitlines() == [
        f"{path}:home: te-home (nat) by eth0; from eth1 by eth0",
        f"{path}:mobile: te-mobile (nat) by wlan0, table 200",
    ]
    path.write_text(SEVERAL.replace('uplink = "eth0"', 'uplink = "eth9"'))
    assert main(["site", "check", str(path)]) == 4
    line = "agents.home.egress.uplink: 'eth9' is not a configured uplink; allowed: eth0, wlan0"
    assert capfd.readouterr().err == f"viacheck site check: {path}: {line}\n"


def test_the_schema_knows_every_key_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["site", "schema"]) == 0
    schema = json.loads(capfd.readouterr().out)
    assert schema == intent_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    of_one_agent = [field.alias or name for name, field in Intent.model_fields.items()]
    assert sorted(schema["properties"]) == sorted([*of_one_agent, "agents"])
    assert schema["$defs"]["OneOfSeveralAgents"]["properties"]["netns"]["description"]
    assert all(part["additionalProperties"] is False for part in (schema, *schema["$defs"].values()))
    assert "null" not in json.dumps(schema)
    assert schema["$defs"]["Egress"]["properties"]["persist"]["enum"] == [
        "ifupdown",
        "networkd",
        "networkmanager",
        "netplan",
        "none",
    ]
