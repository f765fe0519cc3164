"""The engines of other Debian releases, really run: verdicts and diagnoses are right, and the recordings are true.

With ``--releases`` the engines of all releases run: each needs a base root of its own.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from netns_lab.faults.host import SECOND_NETWORK
from netns_lab.lab_specs import LabSpec
from netns_lab.open_lab import open_lab
from netns_lab.whole_host.base_root import RELEASES, BaseRoot
from netns_lab.whole_host.host_requirements import missing_for
from tests.helpers.engine_answers import BRIDGE, RECORDED_AS, answers_of, packet_filter_of, recorded_host, shape
from tests.helpers.front_door import Finished, by_check, run_once, viacheck
from tests.helpers.paths import RECORDED
from viacheck.analysis.agent_network import other_default
from viacheck.analysis.sightings import left_by
from viacheck.model.verdict import Verdict
from viacheck.parsers.iptables_save import parse_iptables_save

DEFAULT = "trixie"
HEALTHY = ("nat", "policy-routing", "macvlan")
_MISSING = missing_for(BaseRoot(DEFAULT))
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "release" in metafunc.fixturenames:
        releases = RELEASES if metafunc.config.option.releases else (DEFAULT,)
        metafunc.parametrize("release", releases, scope="module")


@pytest.fixture(scope="module")
def _base_root(release: str) -> None:
    BaseRoot(release).build(lambda _line: None)


@pytest.fixture(scope="module")
def run(release: str, _base_root: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run through the front door: healthy labs, and three with a fault."""
    names = (*HEALTHY, "policy-routing+rule-missing", "policy-routing+second-network", "nat+no-restart-policy")
    labs = ",".join(lab_of(name, release) for name in names)
    options = ("--lab", labs, "-k", "not FLAP or FLAP-05", "-n", "0")
    return run_once(tmp_path_factory, f"engine-{release}", lambda folder: viacheck(*options, report_dir=folder))


def lab_of(name: str, release: str) -> str:
    scenario, plus, fault = name.partition("+")
    return f"engine:{scenario}@{release}{plus}{fault}"


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_lab_has_no_failure(run: Finished, release: str, name: str) -> None:
    results = by_check(run.outcome, f"lab:{lab_of(name, release)}")
    bad = {Verdict.FAIL, Verdict.INCONCLUSIVE}
    assert not [case for cases in results.values() for case in cases if case.verdict in bad], run.said
    for check in ("HOST-01", "HOST-07", "EGRESS-01", "EGRESS-02", "EGRESS-03", "FLAP-05"):
        assert {case.verdict for case in results[check]} == {Verdict.PASS}, (check, results[check])


def test_a_missing_rule_is_found(run: Finished, release: str) -> None:
    assert run.exit_code == 1
    results = by_check(run.outcome, f"lab:{lab_of('policy-routing+rule-missing', release)}")
    (rule,) = results["ROUTE-02"]
    assert rule.diagnosis is not None
    assert rule.diagnosis.code == "RULE_MISSING"
    assert {case.observed for case in results["EGRESS-01"]} == {"3 of 3 left by eth0"}


def test_a_container_that_is_not_started_again_is_found(run: Finished, release: str) -> None:
    (restart,) = by_check(run.outcome, f"lab:{lab_of('nat+no-restart-policy', release)}")["FLAP-05"]
    assert restart.diagnosis is not None
    assert restart.diagnosis.code == "AGENT_NOT_RUNNING"


def test_a_second_network_that_takes_the_default_route_is_found(run: Finished, release: str) -> None:
    """Before Docker 28 the network whose name sorts first has the default route; since then the priority counts."""
    results = by_check(run.outcome, f"lab:{lab_of('policy-routing+second-network', release)}")
    causes = [case.diagnosis for case in results["EGRESS-01"] if case.diagnosis is not None]
    assert {cause.code for cause in causes} == {"DEFAULT_BY_OTHER_NETWORK"}
    lasting = [line for cause in causes for line in cause.remedy if "--gw-priority" in line]
    assert bool(lasting) is (release == "forky"), causes


@pytest.mark.usefixtures("_base_root")
def test_a_second_network_leaves_the_default_route_to_a_higher_priority(release: str, tmp_path: Path) -> None:
    """Docker 28 keeps the priority when the container restarts; an older engine goes by the networks' names."""
    spec = LabSpec("policy-routing", "engine", release=release)
    with contextlib.closing(open_lab(spec)) as lab:
        engine = lab.engine
        assert engine is not None
        # Its name sorts before bridge.
        engine.networks.create_bridge(SECOND_NETWORK, "172.31.0.0/24")
        engine.networks.connect(SECOND_NETWORK, lab.agent_container, gateway_priority=-1)
        for restarted in (False, True):
            if restarted:
                engine.containers.restart(lab.agent_container)
                lab.set_agent_namespace(engine.containers.namespace(lab.agent_container))
            with contextlib.closing(spec.target_of(lab, ends_lab=False)) as target:
                by_second = other_default(target.resolved)
                probes = target.traffic_tests(tmp_path).agent("udp")
                left = left_by(probes, target.resolved.egress_interfaces)
            keeps = release == "forky"
            assert (by_second is None) is keeps
            assert list(left) == (["wlan0"] if keeps else ["eth0"])


def test_the_recording_has_the_engines_own_keys_and_chains(release: str) -> None:
    if release not in RECORDED_AS:
        return
    name = RECORDED_AS[release]
    recorded: dict[str, Any] = json.loads((RECORDED / f"engine-{name}.json").read_text())
    recorded.pop("source")
    with recorded_host(release) as lab:
        answers = answers_of(lab)
        assert shape(answers) == shape(recorded)
        mac = answers["container"]["NetworkSettings"]["Networks"][BRIDGE]["MacAddress"]
        assert (mac == "02:42:ac:1e:00:02") is (release == "trixie"), "since 28 a MAC address is random"
        assert rules(packet_filter_of(lab)) == rules((RECORDED / f"docker-{name}-iptables-nft.save").read_text())


def rules(text: str) -> list[tuple[str, str, list[str]]]:
    """The rules by chain, without the ids of bridges."""
    chains = parse_iptables_save(re.sub("br-[0-9a-f]{12}", "br", text), "ip", "iptables")
    return [(chain.table, chain.name, [rule.text for rule in chain.rules]) for chain in chains]
