"""The lab `blank` has the names and addresses of a site file; what no lab can have is one line with the key."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from netns_lab.lab_specs import parse_labs
from netns_lab.plan import AGENT_PATH, LabPlan
from netns_lab.site_lab import plan_of_site
from tests.helpers.markdown import blocks
from viacheck.model.intent import Intent
from viacheck.model.intent_file import IntentError, parse_intent
from viacheck.model.site_agents import parse_agents
from viacheck.targets.specs import SelectionError

DOCUMENTED = [
    intent
    for text in blocks("site-file.md", "toml")
    for intent in parse_agents(tomllib.loads(text), source="site-file.md").values()
]
LACKING = (
    "agent.attach.mode: --lab blank: found 'ipvlan'; no lab has it",
    "agent.source[1].interface: --lab blank: found 'eth1'; its agent has eth0 alone",
)
SITE = """\
schema = 1
[site]
name = "oslo-3"
[agent]
container = "probe-1"
[agent.attach]
mode = "nat"
network = "agents"
subnet = "172.30.8.0/22"
[uplinks.ens3]
gateway = "192.168.7.254"
[uplinks."lte0.7"]
gateway = "10.20.0.1"
address = "10.20.3.4/16"
[egress]
uplink = "lte0.7"
table = 77
[host]
default_exit = "ens3"
[probe]
target = "203.0.113.9"
"""


def planned(text: str = SITE) -> LabPlan:
    return plan_of_site(parse_intent(tomllib.loads(text), source="site.toml"), "site.toml")


def addresses(plan: LabPlan, machine: str = "host") -> dict[str, list[str]]:
    (state,) = (each.state for each in plan.machines if each.name == machine)
    return {link.name: [f"{a.address}/{a.prefixlen}" for a in state.addresses_of(link.name)] for link in state.links}


def test_names_and_addresses_are_those_of_the_file() -> None:
    plan = planned()
    assert addresses(plan) == {
        "ens3": ["192.168.7.9/24"], "lte0.7": ["10.20.3.4/16"], "br-agents": ["172.30.8.1/22"], "veth-agent": []
    }  # fmt: skip
    assert addresses(plan, "gw-ens3")["lan0"] == ["192.168.7.254/24"]
    assert all("203.0.113.9" in gateway.answers_on for gateway in plan.gateways)
    assert [str(route) for route in plan.host.state.routes] == ["default via 192.168.7.254 dev ens3"]
    assert not plan.host.state.rules
    assert plan.intent.agent.netns == AGENT_PATH
    assert plan.intent.egress.table == 77
    (note,) = plan.notes
    assert "uplinks.ens3.address" in note
    assert "192.168.7.9/24" in note


def test_the_intent_of_the_lab_describes_the_same_lab() -> None:
    plan = planned()
    again = plan_of_site(plan.intent, "lab:blank")
    assert (again.host, again.agent, again.intent) == (plan.host, plan.agent, plan.intent)
    assert not again.notes


@pytest.mark.parametrize("intent", DOCUMENTED, ids=range(len(DOCUMENTED)))
def test_every_documented_site_file_is_a_lab_or_says_what_it_lacks(intent: Intent) -> None:
    try:
        plan = plan_of_site(intent, "site-file.md")
    except IntentError as error:
        (mistake,) = error.mistakes
        assert mistake.endswith(LACKING), mistake
    else:
        assert {link.name for link in plan.host.state.links} >= set(intent.uplinks)
        assert plan.intent.egress == intent.egress


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('subnet = "172.30.8.0/22"\n', "", "agent.attach.subnet: missing"),
        ('subnet = "172.30.8.0/22"', 'subnet = "172.30.8.0/31"', "agent.attach.subnet: found 172.30.8.0/31"),
        ('subnet = "172.30.8.0/22"', 'subnet = "192.168.0.0/16"', "uplinks.ens3.gateway: 192.168.7.254 lies inside"),
        ('subnet = "172.30.8.0/22"', 'bridge = "ens3"', "agent.attach.bridge: found 'ens3'"),
        ('gateway = "192.168.7.254"\n', "", "uplinks.ens3.gateway: missing; no lab has a point-to-point"),
        ('gateway = "192.168.7.254"', 'gateway = "192.168.7.0"', "uplinks.ens3.address: the gateway"),
        ('"10.20.3.4/16"', '"10.21.3.4/16"', 'uplinks."lte0.7".address: the gateway 10.20.0.1 is no usable'),
        ('"10.20.3.4/16"', '"10.20.0.1/16"', 'uplinks."lte0.7".address: found 10.20.0.1/16; it needs'),
        ('"10.20.0.1"\n', '"10.20.0.1"\ngateway6 = "fe80::1"\n', 'uplinks."lte0.7".gateway6: found fe80::1'),
        ('[host]\ndefault_exit = "ens3"\n', "", "host.default_exit: missing"),
        ("[uplinks.ens3]", '[[agent.source]]\ninterface = "eth7"\n[uplinks.ens3]', "agent.source[1].interface: found"),
        ("[uplinks.ens3]", '[[agent.source]]\naddress = "10.9.9.9"\n[uplinks.ens3]', "agent.source[1].address: found"),
        ("[uplinks.ens3]", '[uplinks.lo]\ngateway = "10.0.0.1"\n[uplinks.ens3]', "uplinks.lo: its host has"),
    ],
)  # fmt: skip
def test_what_no_lab_can_have_is_one_line(old: str, new: str, said: str) -> None:
    assert SITE.count(old) == 1
    with pytest.raises(IntentError) as caught:
        planned(SITE.replace(old, new))
    lines = [mistake.replace(" --lab blank:", "") for mistake in caught.value.mistakes]
    assert any(line.startswith(f"site.toml: {said}") for line in lines), lines


def test_the_agent_has_the_sources_of_the_file() -> None:
    plan = planned(SITE.replace("[agent.attach]", '[[agent.source]]\naddress = "172.30.8.9"\n[agent.attach]'))
    assert addresses(plan, "agent")["eth0"] == ["172.30.8.2/22", "172.30.8.9/22"]
    assert [source.name for source in plan.intent.agent.source] == ["172.30.8.9"]


BRIDGED = """\
schema = 1
[site]
name = "oslo-4"
[agent]
container = "probe-1"
[agent.attach]
mode = "{mode}"
parent = "ens3"
{attach}
[uplinks.ens3]
gateway = "192.168.7.30"
[egress]
uplink = "ens3"
"""


def test_addresses_of_a_small_lan_do_not_collide() -> None:
    attach = 'network = "lan0"\nsubnet = "192.168.7.0/27"\ngateway = "192.168.7.30"\nip_range = "192.168.7.8/29"'
    plan = planned(BRIDGED.format(mode="macvlan", attach=attach))
    used = [f"{a.address}/{a.prefixlen}" for machine in plan.machines for a in machine.state.addresses]
    used = [address for address in used if not address.endswith("/32")]
    assert used.count("192.168.7.8/27") == 1, "the agent has the first address of the range"
    assert len(used) == len(set(used)) == 4, used


def test_leases_leave_out_the_addresses_of_machines() -> None:
    plan = planned(BRIDGED.format(mode="pipework-dhcp", attach=""))
    (pool,) = (gateway.dhcp for gateway in plan.gateways)
    assert pool is not None
    assert (pool.first, pool.last, pool.router) == ("192.168.7.205", "192.168.7.254", "192.168.7.30")
    full = BRIDGED.format(mode="pipework-dhcp", attach="").replace("7.30", "7.1")
    with pytest.raises(IntentError, match=r"has no addresses left for a DHCP server|no address left"):
        planned(full.replace('gateway = "192.168.7.1"', 'gateway = "192.168.7.1"\naddress = "192.168.7.2/30"'))


@pytest.mark.parametrize(
    ("labs", "said"),
    [
        ("nat", "--site goes with --local, --bundle or --lab blank; every other lab carries its own intent"),
        ("blank,nat", "--lab: blank stands alone, without a flavour, a fault or other labs; found 'blank'"),
        ("engine:blank", "--lab: blank stands alone, without a flavour, a fault or other labs; found 'engine:blank'"),
    ],
)
def test_only_blank_alone_takes_a_site_file(labs: str, said: str) -> None:
    with pytest.raises(SelectionError) as caught:
        parse_labs(labs, Path("site.toml"))
    assert caught.value.lines == [said]
