"""Real podman: netavark's NAT, macvlan and DHCP are judged right, and a bundle of its host is.

With ``--releases`` more faults run, every event, and every fix is tried.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from netns_lab.docker_engine.podman import NAME, RELEASE, PodmanEngine
from netns_lab.faults import FAULTS as REGISTERED
from netns_lab.lab_specs import LabSpec
from netns_lab.open_lab import open_lab
from netns_lab.whole_host.base_root import BaseRoot
from netns_lab.whole_host.host_requirements import missing_for
from tests.helpers.engine_answers import shape
from tests.helpers.front_door import Finished, by_check, run_once, sub_command, viacheck
from tests.helpers.podman_answers import RECORDING, answers_of, recorded_podman
from viacheck.bundle.recorded_commands import Recorded
from viacheck.bundle.writer import Case, write_bundle
from viacheck.model.result import CheckResult
from viacheck.model.site_agents import SOLE_AGENT
from viacheck.model.verdict import Verdict

HEALTHY = ("nat", "policy-routing", "macvlan", "macvlan-dhcp", "nat-rootless")
MORE_HEALTHY = ("nat-userspace",)
FAULTS = {
    "nat+filter-flushed": ("NAT-02", "MASQUERADE_MISSING", "podman network reload te-agent"),
    "policy-routing+rule-missing": ("ROUTE-02", "RULE_MISSING", "ip rule add priority 1000 from 172.17.0.0/16"),
    "macvlan+wrong-parent": ("MACVLAN-01", "PARENT_WRONG", None),
    "policy-routing+userspace-network": ("NAT-03", "AGENT_ON_USERSPACE_NETWORK", None),
}
MORE_FAULTS = {
    "policy-routing+second-network": ("EGRESS-01", "DEFAULT_BY_OTHER_NETWORK", "$(podman inspect"),
    "nat+agent-stopped": ("HOST-07", "AGENT_NOT_RUNNING", "podman start te-agent"),
}
_MISSING = missing_for(BaseRoot(RELEASE))
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


def lab_of(name: str) -> str:
    scenario, plus, fault = name.partition("+")
    return f"engine:{scenario}@{NAME}{plus}{fault}"


@pytest.fixture(scope="module")
def _base_root() -> None:
    BaseRoot(RELEASE).build(lambda _line: None)


def faults_of(config: pytest.Config) -> dict[str, tuple[str, str, str | None]]:
    return FAULTS | MORE_FAULTS if config.option.releases else FAULTS


def healthy_of(config: pytest.Config) -> tuple[str, ...]:
    return HEALTHY + MORE_HEALTHY if config.option.releases else HEALTHY


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "healthy" in metafunc.fixturenames:
        metafunc.parametrize("healthy", healthy_of(metafunc.config))
    if "fault" in metafunc.fixturenames:
        metafunc.parametrize("fault", faults_of(metafunc.config))


@pytest.fixture(scope="module")
def run(_base_root: None, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Finished:
    """One run through the front door: healthy labs and labs with a fault."""
    events = () if pytestconfig.option.releases else ("-k", "not FLAP or FLAP-04")
    labs = ",".join(map(lab_of, (*healthy_of(pytestconfig), *faults_of(pytestconfig))))
    options = ("--lab", labs, *events, "-n", "3")
    return run_once(tmp_path_factory, "podman", lambda folder: viacheck(*options, report_dir=folder))


@pytest.fixture(scope="module")
def mended(run: Finished, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Finished:
    """The labs with a fault, and each fix tried in a lab of its own; the first run without ``--releases``."""
    if not pytestconfig.option.releases:
        return run
    labs = ",".join(map(lab_of, faults_of(pytestconfig)))
    options = ("--lab", labs, "--mend-in-lab", "-k", "not FLAP", "-n", "3")
    return run_once(tmp_path_factory, "podman-mended", lambda folder: viacheck(*options, report_dir=folder))


def results_of(run: Finished, name: str) -> dict[str, list[CheckResult]]:
    results = by_check(run.outcome, f"lab:{lab_of(name)}")
    assert results, run.said
    return results


def test_a_healthy_lab_has_no_failure(run: Finished, healthy: str) -> None:
    results = results_of(run, healthy)
    bad = {Verdict.FAIL, Verdict.INCONCLUSIVE}
    assert not [case for cases in results.values() for case in cases if case.verdict in bad], run.said
    if healthy in ("nat-rootless", "nat-userspace"):
        assert {case.case: case.verdict for case in results["EGRESS-01"]} == {
            "icmp": Verdict.PASS, "udp": Verdict.PASS, "tcp": Verdict.NOT_APPLICABLE,
        }  # fmt: skip
        assert not [case for cases in results.values() for case in cases if "masquerad" in case.observed]
        return
    proven = {"HOST-01", "HOST-07", "EGRESS-01", "EGRESS-02", "EGRESS-03", "EGRESS-05", "EGRESS-08", "FLAP-04"}
    proven |= {"MACVLAN-01", "MACVLAN-02", "MACVLAN-03"} if healthy.startswith("macvlan") else {"NAT-02", "NAT-03"}
    for check in proven:
        assert {case.verdict for case in results[check]} == {Verdict.PASS}, (check, results[check])


def test_the_server_that_gives_the_agent_its_address_collides_with_nothing(run: Finished) -> None:
    (leased,) = results_of(run, "macvlan-dhcp")["MACVLAN-04"]
    (assigned,) = results_of(run, "macvlan")["MACVLAN-04"]
    assert (leased.verdict, assigned.verdict) == (Verdict.NOT_APPLICABLE, Verdict.PASS)


def test_a_fault_is_found(mended: Finished, fault: str, pytestconfig: pytest.Config) -> None:
    check, code, fix = (FAULTS | MORE_FAULTS)[fault]
    assert mended.exit_code == 1
    causes = [case.diagnosis for case in results_of(mended, fault)[check] if case.diagnosis is not None]
    assert {cause.code for cause in causes} == {code}
    lines = [line for cause in causes for line in (*cause.remedy, *cause.undo)]
    assert not [line for line in lines if "docker" in line]
    assert any(fix in line for line in lines) if fix is not None else not lines
    if pytestconfig.option.releases and fix is not None:
        checks = [cause.remedy_check for cause in causes]
        assert all(tried is not None and tried.verified and tried.rollback_verified for tried in checks), checks


def test_packets_that_a_program_carries_break_what_is_declared(run: Finished) -> None:
    results = results_of(run, "policy-routing+userspace-network")
    failed = {check for check, cases in results.items() if any(case.verdict is Verdict.FAIL for case in cases)}
    assert failed == REGISTERED["userspace-network"].breaks


@pytest.fixture(scope="module")
def bundles(_base_root: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of a host whose rule is missing, by viacheck and by its shell script."""
    folder = tmp_path_factory.mktemp("bundles")
    spec = LabSpec("policy-routing", "engine", ("rule-missing",), release=NAME)
    target = spec.target_of(lab := open_lab(spec))
    with contextlib.closing(target):
        record, recorded = target.record(), list(map(Recorded.of, target.recorded))
        assert record.snapshot is not None
        case = Case("0.1.0", {SOLE_AGENT: record.intent}, {SOLE_AGENT: record.snapshot}, recorded)
        write_bundle(folder / "collected.tar.gz", case, "default")
        (folder / "site.toml").write_text(SITE)
        engine = lab.engine
        assert isinstance(engine, PodmanEngine)
        # The script runs in podman's own file system, which has podman and no docker, as on a host of that release.
        inside = Path(f"{engine.root}/run")
        (inside / "collect.sh").write_text(sub_command("collect-script").stdout)
        (inside / "site.toml").write_text(SITE)
        engine.run("mv", "/usr/bin/docker", "/usr/bin/docker.away")
        engine.run("sh", "/run/collect.sh", "--site", "/run/site.toml", "-o", "/run/script.tar.gz")
        engine.run("sh", "/run/collect.sh", "-o", "/run/without-site.tar.gz")
        for name in ("script.tar.gz", "without-site.tar.gz"):
            (folder / name).write_bytes((inside / name).read_bytes())
    return folder


SITE = """\
schema = 1
[site]
name = "berlin"
[agent]
container = "te-agent"
[agent.attach]
mode = "nat"
network = "podman"
[uplinks.eth0]
gateway = "10.10.40.1"
[uplinks.wlan0]
gateway = "10.10.50.1"
[egress]
uplink = "wlan0"
table = 200
persist = "none"
survives = []
[host]
default_exit = "eth0"
"""


@pytest.mark.parametrize("name", ["collected", "script", "without-site"])
def test_a_bundle_of_its_host_names_the_cause(bundles: Path, name: str, tmp_path: Path) -> None:
    site = ("--site", str(bundles / "site.toml")) if name == "without-site" else ()
    run = viacheck("--bundle", str(bundles / f"{name}.tar.gz"), *site, "-q", report_dir=tmp_path)
    assert run.exit_code == 1, run.said
    (target,) = run.outcome.targets
    results = by_check(run.outcome, target.id)
    (rule,) = results["ROUTE-02"]
    assert rule.diagnosis is not None, run.said
    assert rule.diagnosis.code == "RULE_MISSING"
    for check in ("HOST-01", "HOST-04", "HOST-05", "NAT-01", "NAT-02", "NAT-03"):
        assert {case.verdict for case in results[check]} == {Verdict.PASS}, (check, results[check])


@pytest.mark.usefixtures("_base_root")
def test_the_recording_has_podmans_own_keys() -> None:
    recorded = json.loads(RECORDING.read_text())
    recorded.pop("source")
    with recorded_podman() as engine:
        answers = answers_of(engine)
    assert shape(answers) == shape(recorded)
    assert [network["name"] for network in answers["of_podman"]] == [
        network["name"] for network in recorded["of_podman"]
    ]
