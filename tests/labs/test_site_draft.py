"""A draft of `site init` on a healthy host judges that host as healthy, in every mode, without an edit.

The drafts of whole hosts, on which no Python runs, are in test_whole_host.py. With a real engine one lab of each mode,
with and without a table, is drafted by default, and with ``--soak`` every lab: the others differ in what the network
manager keeps, which their labs without an engine show.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from netns_lab.lab import Lab
from netns_lab.lab_specs import LabSpec
from netns_lab.open_lab import open_lab
from netns_lab.plan import PROBE_TARGET, RESOLVER
from netns_lab.scenarios import BLANK, SCENARIOS
from tests.helpers.engine_host import DOCKER_HOST, EngineHost, engine_host, needs_engine
from tests.helpers.front_door import VIACHECK, Finished, command, finished
from tests.helpers.hand_made import (
    AGENT_PATH,
    UPLINKS,
    HandMadeHost,
    agent_on_lan_bridge,
    apply_the_guides_recipe,
    hand_made_host,
    macvlan_on_lan_bridge,
    with_pipework,
)
from viacheck.model.intent import Intent
from viacheck.model.intent_file import load_intent
from viacheck.model.site_agents import load_agents

BY_ENGINE = dict([DOCKER_HOST.split("=", 1)])
"""Where the engine of a host listens."""
HEALTHY = [name for name in SCENARIOS if name not in BLANK]
OF_EACH_MODE = ["nat", "policy-routing", "macvlan", "pipework-static", "pipework-dhcp"]


def drafted_and_judged(
    inside: Sequence[str], init: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
) -> tuple[Finished, Intent]:
    """Draft a site file on a host and judge the host by it, both from inside."""
    site = folder / "site.toml"
    drafted = finished([*inside, *VIACHECK, "site", "init", "-o", str(site), *init], folder, env=env)
    assert drafted.exit_code == 0, drafted.said
    assert f"wrote {site}; review it" in drafted.stderr
    done = finished([*inside, *command("--local", "--site", str(site), "--report-dir", str(folder / "report"))],
                    folder / "report", env=env)  # fmt: skip
    return done, load_intent(site)


def in_namespaces_of(lab: Lab) -> list[str]:
    """Words that run a command on a lab's host, where its process numbers are true."""
    if lab.engine is None:
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{lab.host.namespace.net_fd}",
                f"--mount=/proc/{os.getpid()}/fd/{lab.host.namespace.mount_fd}"]  # fmt: skip
    return ["nsenter", "--target", str(lab.engine.pid), "--mount", "--pid", "--net"]


def assert_drafted(intent: Intent, lab: Lab) -> None:
    """Compare a draft with the intent that its lab was made for."""
    meant = lab.plan.intent
    assert (intent.mode, intent.egress.uplink) == (meant.mode, meant.egress.uplink)
    assert (intent.egress.table, intent.egress.table_name) == (meant.egress.table, meant.egress.table_name)
    if meant.egress.table is not None and meant.egress.persist is not None:
        assert intent.egress.persist == meant.egress.persist


@pytest.mark.parametrize("name", HEALTHY)
def test_the_draft_of_a_healthy_lab_judges_it_as_healthy(name: str, tmp_path: Path) -> None:
    with contextlib.closing(open_lab(LabSpec(name))) as lab:
        agent = f"/proc/{os.getpid()}/fd/{lab.agent.namespace.net_fd}"
        done, intent = drafted_and_judged(in_namespaces_of(lab), ["--netns", agent], tmp_path)
    assert done.exit_code == 0, done.said
    assert_drafted(intent, lab)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine_lab" in metafunc.fixturenames:
        metafunc.parametrize("engine_lab", HEALTHY if metafunc.config.option.soak else OF_EACH_MODE)


def test_every_mode_is_drafted_with_an_engine() -> None:
    kinds = {name: (SCENARIOS[name]().intent.mode, SCENARIOS[name]().intent.egress.table) for name in HEALTHY}
    assert {kinds[name] for name in OF_EACH_MODE} == set(kinds.values())


@pytest.mark.skipif(missing_requirement() is not None, reason=str(missing_requirement()))
def test_the_draft_finds_the_container_by_itself(engine_lab: str, tmp_path: Path) -> None:
    with contextlib.closing(open_lab(LabSpec(engine_lab, "engine"))) as lab:
        done, intent = drafted_and_judged(in_namespaces_of(lab), [], tmp_path, BY_ENGINE)
    assert done.exit_code == 0, done.said
    assert intent.agent.container == "te-agent"
    assert_drafted(intent, lab)


def child_uplink(host: HandMadeHost) -> None:
    """Make wlan0 a macvlan child of eth0, and route the agent by it."""
    host.ip("link del wlan0")
    host.uplink_on("eth0", "wlan0", UPLINKS["wlan0"])
    apply_the_guides_recipe(host)


@pytest.mark.parametrize(
    ("make", "mode", "egress"),
    [
        (lambda _host: None, "nat", ("eth0", None, None)),
        (apply_the_guides_recipe, "nat", ("wlan0", 200, "none")),
        (child_uplink, "nat", ("wlan0", 200, "none")),
        (agent_on_lan_bridge, "pipework-static", ("br0", None, "none")),
        (macvlan_on_lan_bridge, "macvlan", ("br0", None, None)),
    ],
    ids=["default route", "the guide's recipe", "child uplink", "LAN bridge", "macvlan on a LAN bridge"],
)
def test_the_draft_of_a_hand_made_host_judges_it_as_healthy(
    make: Callable[[HandMadeHost], None], mode: str, egress: tuple[str, int | None, str | None], tmp_path: Path
) -> None:
    by = with_pipework(tmp_path) if mode.startswith("pipework") else ()
    with hand_made_host() as host:
        make(host)
        done, intent = drafted_and_judged(host.inside(*by), ["--netns", AGENT_PATH], tmp_path)
    assert done.exit_code == 0, done.said
    assert (intent.mode, (intent.egress.uplink, intent.egress.table, intent.egress.persist)) == (mode, egress)


def test_without_a_resolver_the_next_router_beyond_the_gateway_is_the_target(tmp_path: Path) -> None:
    with hand_made_host({"eth0": UPLINKS["eth0"]}) as host:
        host.run("sh", "-c", "echo nameserver 127.0.0.53 >/etc/resolv.conf")
        host.ip("netns add isp")
        host.ip("-n gw0 link add wan0 type veth peer name lan0 netns isp")
        for address in (PROBE_TARGET, RESOLVER):
            host.ip(f"-n gw0 address del {address}/32 dev lo")
        for name, link, address, other in (
            ("gw0", "wan0", "192.0.2.2", "192.0.2.1"),
            ("isp", "lan0", "192.0.2.1", "192.0.2.2"),
        ):
            host.ip(f"-n {name} address add {address}/30 dev {link}")
            host.ip(f"-n {name} link set {link} up")
            host.ip(f"-n {name} route add default via {other}")
            host.ip(f"netns exec {name} sysctl -q -w net.ipv4.ip_forward=1")
        draft = tmp_path / "site.toml"
        init = [*VIACHECK, "site", "init", "--netns", AGENT_PATH, "-o", str(draft)]
        drafted = finished(host.inside(*init), tmp_path)
        assert drafted.exit_code == 0, drafted.said
        said = "# the next router beyond the gateway answered ping: any address beyond the uplink that answers ping"
        assert f'target = "192.0.2.1"  {said}' in draft.read_text()
        host.ip("netns exec isp sysctl -q -w net.ipv4.icmp_echo_ignore_all=1")
        draft.unlink()
        assert finished(host.inside(*init), tmp_path).exit_code == 0
        assert '# target = ""  # CORRECT THIS' in draft.read_text()


def on_its_own_network(host: EngineHost) -> None:
    """Put the agent on a network of its own, and route that by wlan0."""
    host.type("docker network create --subnet=172.30.0.0/24 agents")
    host.run_agent("agents")
    host.type("ip rule add from 172.30.0.0/24 lookup 200")
    host.type("ip route add default via 10.10.50.1 dev wlan0 table 200")


def by_pipework(host: EngineHost) -> None:
    """Attach the agent by pipework, as step 5 says it."""
    host.install_pipework()
    host.run_agent("none")
    host.type("pipework eth0 te-agent 10.10.40.200/24@10.10.40.1")


@pytest.mark.parametrize(
    ("make", "mode", "network"),
    [
        pytest.param(on_its_own_network, "nat", "agents", marks=needs_engine, id="own network"),
        pytest.param(by_pipework, "pipework-static", None, marks=needs_engine, id="pipework"),
    ],
)
def test_the_draft_of_a_hand_made_engine_host_judges_it_as_healthy(
    make: Callable[[EngineHost], None], mode: str, network: str | None, tmp_path: Path
) -> None:
    with engine_host() as host:
        make(host)
        done, intent = drafted_and_judged(host.inside, [], tmp_path, BY_ENGINE)
    assert done.exit_code == 0, done.said
    assert (intent.mode, getattr(intent.agent.attach, "network", None)) == (mode, network)


@pytest.mark.skipif(missing_requirement() is not None, reason=str(missing_requirement()))
def test_the_draft_of_several_agents_has_a_table_for_each(tmp_path: Path) -> None:
    site, words = tmp_path / "site.toml", [*VIACHECK, "site", "init", "-o", str(tmp_path / "site.toml")]
    with engine_host() as host:
        host.type("docker network create -d macvlan --subnet=10.10.50.0/24 --gateway=10.10.50.1 -o parent=wlan0 lan")
        for name, network in (("agent.home", "bridge"), ("agent-lan", "lan")):
            host.engine.containers.run(name, network=network)
        asked = finished([*host.inside, *words], tmp_path, env=BY_ENGINE)
        assert asked.exit_code == 4, asked.said
        assert "; of several agents NAME,NAME" in asked.stderr
        drafted = finished([*host.inside, *words, "--container", "agent.home,agent-lan"], tmp_path, env=BY_ENGINE)
        assert drafted.exit_code == 0, drafted.said
        done = finished(
            [*host.inside, *command("--local", "--site", str(site), "--report-dir", str(tmp_path / "report"))],
            tmp_path / "report", env=BY_ENGINE,
        )  # fmt: skip
    assert done.exit_code == 0, done.said
    targets = [
        (target.agent, target.intent["agent"]["attach"]["mode"], target.verdict) for target in done.outcome.targets
    ]
    assert targets == [("agent-home", "nat", "pass"), ("agent-lan", "macvlan", "pass")]
    intents = load_agents(site)
    assert intents["agent-home"].agent.container == "agent.home"
    assert [intent.egress.uplink for intent in intents.values()] == ["eth0", "wlan0"]
