"""The twin of a lab, healthy or broken, gives the verdicts of the lab itself; what lies outside a host is named.

Labs and twins are judged through the front door, events included, and read from result.json. By default every scenario
has its twin, and of the broken labs one for each code of a diagnosis and each that no snapshot holds; with ``--soak``
every lab of the matrix has one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab.docker_engine.requirements import missing_requirement
from reports.report_files import write_result
from tests.helpers.bundles import case_of
from tests.helpers.fault_matrix import LABS, OPTIONS, SIDE_EVENTS, TWIN_WITH_SIDE_EVENTS, labs_of_each_code
from tests.helpers.front_door import Finished, viacheck
from tests.helpers.hand_made import HandMadeHost, apply_the_guides_recipe, hand_made_host, write_site
from viacheck.bundle.writer import write_bundle
from viacheck.model.diagnosis_record import VerdictChange
from viacheck.model.result import RunResult, TargetRecord
from viacheck.model.verdict import Verdict

OUTSIDE = {
    "foreign-source-dropped": "a rule of the switch",
    "delivery-filtered": "a rule of the switch",
    "foreign-data-dropped": "a rule of the switch",
    "dhcp-in-pool": "a server on the segment",
    "dhcp-beside-pool": "a server on the segment",
    "dhcp-slow": "a server on the segment",
    "other-router": "another machine on the segment",
    "answers-lost": "a property of the machine that answers",
    "address-conflict": "another machine on the segment",
    "mac-conflict": "another machine on the segment",
    "gateway-silent": "a property of the gateway, which the host had not asked yet when its snapshot was taken",
    "dns-other-path": "a program on the host, and a twin has none of them",
    "dns-second-resolver": "a program on the host, and a twin has none of them",
    "dns-ipv6-escapes": "a resolver's IPv6 address, and a twin has no such resolver",
    "mirrored-copy": "a rule at a device, and a snapshot does not say at which",
    "guard-never-true": "what a guard looks for, and a snapshot keeps no pattern",
}
"""Faults that no snapshot of the host holds, with what each lies in."""
NO_WATCHER = "may react to link changes, and a replica runs none of its host's programs"
NOT_TOLD = {
    "FLAP-01": (NO_WATCHER,),
    "FLAP-02": (NO_WATCHER, "uses a nexthop object"),
    "FLAP-03": ("ifdown and ifup run the commands in the host's files",),
    "FLAP-06": (NO_WATCHER,),
    "FLAP-07": ("the DHCP server, another machine, must announce another router",),
    "FLAP-08": ("a boot runs the commands in the host's files",),
    "FLAP-09": ("systemd-networkd itself restarts, and a replica runs none of its host's programs",),
    "FLAP-10": (NO_WATCHER,),
}
"""Events that a twin of some hosts cannot tell, by check, and what it says then."""
STATE_EQUALS = "the replica's state equals the snapshot that it was built from"
NO_ENGINE = missing_requirement()
Told = dict[tuple[str, str | None], tuple[Verdict, str | None]]


def labs_with_twins(config: pytest.Config) -> list[str]:
    return LABS if config.option.soak else labs_of_each_code(OUTSIDE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lab" in metafunc.fixturenames:
        metafunc.parametrize("lab", labs_with_twins(metafunc.config))


@pytest.fixture(scope="module")
def lab_outcome(matrix: Finished, pytestconfig: pytest.Config) -> RunResult:
    """The part of the matrix whose labs have twins."""
    assert matrix.exit_code == 1, matrix.said
    outcome, targets = matrix.outcome, {f"lab:{lab}" for lab in labs_with_twins(pytestconfig)}
    return outcome.model_copy(
        update={
            "targets": [target for target in outcome.targets if target.id in targets],
            "results": [result for result in outcome.results if result.target in targets],
        }
    )


@pytest.fixture(scope="module")
def twins(lab_outcome: RunResult, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("twins")
    saved = write_result(lab_outcome, folder / "labs")
    return viacheck("--twin", str(saved), *OPTIONS, report_dir=folder / "report")


@pytest.fixture(scope="module")
def twin_outcome(twins: Finished) -> RunResult:
    assert twins.exit_code == 1, twins.said
    return twins.outcome


def told(outcome: RunResult, target: str) -> Told:
    # The events of others are those of whole hosts, and of twins as far as they can make them.
    return {
        (one.check, one.case): (one.verdict, one.diagnosis.code if one.diagnosis else None)
        for one in outcome.results
        if one.target == target and one.check != SIDE_EVENTS
    }


def test_a_twin_makes_a_vpn_and_no_program_of_others(lab_outcome: RunResult, twin_outcome: RunResult) -> None:
    lab, twin = (
        {one.case: one for one in outcome.results if (one.target, one.check) == (target, SIDE_EVENTS)}
        for outcome, target in ((lab_outcome, "lab:policy-routing"), (twin_outcome, TWIN_WITH_SIDE_EVENTS))
    )
    assert {one.verdict for one in lab.values()} == {Verdict.NOT_APPLICABLE}
    assert twin["vpn"].verdict is Verdict.PASS
    assert "table 51820" in twin["vpn"].model_dump_json()
    others = [one for case, one in twin.items() if case != "vpn"]
    assert {one.verdict for one in others} == {Verdict.NOT_RUN}
    assert all("a replica runs none of its host's programs" in one.observed for one in others)


def test_a_vpn_that_goes_down_takes_a_rule_that_reads_as_its_own(lab_outcome: RunResult, tmp_path: Path) -> None:
    keep = {"targets": "id", "results": "target"}
    one = lab_outcome.model_copy(
        update={
            field: [part for part in getattr(lab_outcome, field) if getattr(part, key) == "lab:policy-routing"]
            for field, key in keep.items()
        }
    )
    (tmp_path / "typed.sh").write_text("ip rule add priority 900 table main suppress_prefixlength 0\n")
    options = ("--apply", str(tmp_path / "typed.sh"), "-k", f"{SIDE_EVENTS} and vpn")
    run = viacheck("--twin", str(write_result(one, tmp_path / "labs")), *options, report_dir=tmp_path / "report")
    (result,) = run.outcome.results
    assert result.verdict is Verdict.ADVISORY, run.said
    assert result.diagnosis is not None
    assert result.diagnosis.code == "RULE_LOST"
    assert "wg-quick removes every rule" in result.diagnosis.cause


def record_of(outcome: RunResult, target: str) -> TargetRecord:
    return next(one for one in outcome.targets if one.id == target)


def test_a_twin_gives_the_verdicts_of_its_lab(lab_outcome: RunResult, twin_outcome: RunResult, lab: str) -> None:
    if record_of(lab_outcome, f"lab:{lab}").snapshot is None:
        pytest.skip("; ".join(record_of(lab_outcome, f"lab:{lab}").notes))
    original, twin = told(lab_outcome, f"lab:{lab}"), told(twin_outcome, f"twin:{lab}")
    assert original.keys() == twin.keys()
    untold = {
        (one.check, one.case)
        for one in twin_outcome.results
        if one.target == f"twin:{lab}" and one.verdict is Verdict.NOT_RUN
        if any(reason in one.observed for reason in NOT_TOLD.get(one.check, ()))
    }
    different = {key: (one, twin[key]) for key, one in original.items() if twin[key] != one and key not in untold}
    if (fault := lab.rpartition("+")[2]) in OUTSIDE:
        assert different, f"{fault} is in a snapshot after all, and not only {OUTSIDE[fault]}"
    else:
        assert not different


def test_a_twin_says_how_faithful_it_is(lab_outcome: RunResult, twin_outcome: RunResult, lab: str) -> None:
    if record_of(lab_outcome, f"lab:{lab}").snapshot is None:
        pytest.skip("there was no lab to be rebuilt")
    notes = record_of(twin_outcome, f"twin:{lab}").notes
    assert STATE_EQUALS in notes


def test_what_is_left_out_of_a_twin_is_named(twin_outcome: RunResult) -> None:
    notes = record_of(twin_outcome, "twin:policy-routing+mirrored-copy").notes
    assert any("dup to" in note for note in notes)
    notes = record_of(twin_outcome, "twin:macvlan+wireless-parent").notes
    assert "eth0: a cable replaces the wireless interface" in notes
    notes = record_of(twin_outcome, "twin:macvlan+other-router").notes
    assert "the agent's router 10.10.40.2, another machine on the segment, is not reproduced in the replica" in notes


def test_the_twin_of_a_bundle_fails_with_packets_and_its_remedy_is_verified(tmp_path: Path) -> None:
    bundle = tmp_path / "case.tar.gz"
    write_bundle(bundle, case_of("policy-routing", "rule-missing"), "default")
    words = ("--twin", str(bundle), "--mend-in-lab", "-q", "-k", "not FLAP")
    finished = viacheck(*words, report_dir=tmp_path / "report")
    assert finished.exit_code == 1, finished.said
    (target,) = finished.outcome.targets
    assert (target.id, target.kind, target.flavour) == ("twin:policy-routing", "lab", "netns")
    verdicts = told(finished.outcome, target.id)
    for protocol in ("icmp", "udp", "tcp"):
        assert verdicts["EGRESS-01", protocol] == (Verdict.FAIL, "RULE_MISSING")
    (egress,) = (one for one in finished.outcome.results if (one.check, one.case) == ("EGRESS-01", "udp"))
    assert any(one.kind == "packets" and one.sent and one.sightings for one in egress.evidence)
    (check,) = (
        result.diagnosis.remedy_check
        for result in finished.outcome.results
        if result.check == "ROUTE-02" and result.diagnosis is not None
    )
    assert check is not None
    assert (check.predicted, check.verified, check.rollback_verified) == (True, True, True), check.text
    for protocol in ("icmp", "udp", "tcp"):
        change = VerdictChange(check="EGRESS-01", case=protocol, before=Verdict.FAIL, after=Verdict.PASS)
        assert change in check.repaired
    assert "EGRESS-01 (icmp, udp, tcp) fail -> pass" in check.text
    assert "rollback verified: the state is as before" in check.text


@pytest.fixture
def host() -> Iterator[HandMadeHost]:
    with hand_made_host() as made:
        apply_the_guides_recipe(made)
        yield made


def test_the_twin_of_this_host_is_judged_in_its_place(host: HandMadeHost, tmp_path: Path) -> None:
    site, words = write_site(tmp_path), ("-q", "-k", "not FLAP")
    live = host.viacheck(*words, site=site, report_dir=tmp_path / "live")
    before = host.ip("rule") + host.ip("route show table all") + host.ip("link")
    twin = host.viacheck("--twin", *words, site=site, report_dir=tmp_path / "twin")
    assert host.ip("rule") + host.ip("route show table all") + host.ip("link") == before
    assert live.exit_code == twin.exit_code == 0, twin.said
    assert told(twin.outcome, "twin:by-hand") == told(live.outcome, "local:by-hand")
    # A network that leads from one gateway to the other would make ROUTE-06 pass on the host alone.
    (note,) = (note for note in twin.outcome.targets[0].notes if "ROUTE-06" in note)
    assert "the agent reaches 10.10.40.1, the gateway of eth0, by wlan0" in note


def test_a_change_is_tried_in_a_twin(host: HandMadeHost, tmp_path: Path) -> None:
    change = tmp_path / "change.sh"
    change.write_text("ip rule del from 172.17.0.0/16\n")
    words = ("--twin", "--apply", str(change), "-q", "-k", "ROUTE_02 or ROUTE-02")
    twin = host.viacheck(*words, site=write_site(tmp_path), report_dir=tmp_path / "twin")
    assert told(twin.outcome, "twin:by-hand") == {("ROUTE-02", None): (Verdict.FAIL, "RULE_MISSING")}, twin.said
    assert any(note.startswith(f"{change} was run before the checks") for note in twin.outcome.targets[0].notes)


@pytest.mark.skipif(NO_ENGINE is not None, reason=str(NO_ENGINE))
def test_the_twin_of_an_engine_lab_takes_what_the_engine_said(tmp_path: Path) -> None:
    labs = "engine:nat,engine:policy-routing+rule-missing,engine:nat+engine-stopped,engine:macvlan+gateway-mismatch"
    original = viacheck("--lab", labs, "-q", "-k", "not FLAP", report_dir=tmp_path / "labs")
    words = ("--twin", str(original.report_dir / "result.json"), "-q", "--mend-in-lab")
    twins = viacheck(*words, report_dir=tmp_path / "twins")
    for lab in labs.split(","):
        of_lab, of_twin = told(original.outcome, f"lab:{lab}"), told(twins.outcome, f"twin:{lab}")
        different = {key: (one, of_twin[key]) for key, one in of_lab.items() if of_twin[key] != one}
        # Docker's own resolver answers in the container's namespace; it is a program.
        expected = {("EGRESS-05", None)} if "macvlan" in lab else set()
        assert different.keys() == expected, different
    results = [one for one in twins.outcome.results if one.target == "twin:engine:nat"]
    restarts = [one for one in results if one.check in ("FLAP-04", "FLAP-05")]
    assert [one.verdict for one in restarts] == [Verdict.NOT_RUN] * 2
    assert all("a replica runs none of its host's programs" in one.observed for one in restarts)
    checks = {
        result.diagnosis.code: result.diagnosis.remedy_check for result in twins.outcome.results if result.diagnosis
    }
    rule_missing, gateway_mismatch = checks["RULE_MISSING"], checks["GATEWAY_MISMATCH"]
    assert rule_missing is not None
    assert rule_missing.verified
    assert gateway_mismatch is not None
    assert (gateway_mismatch.verified, gateway_mismatch.obstacle) == (None, "needs-docker")
    assert gateway_mismatch.text == (
        "not verified: the remedy needs the host's Docker engine, which a replica does not have"
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--twin",), "--twin needs FILE, or --local for a twin of this host"),
        (("--twin", "FILE", "--lab", "nat"), "--twin excludes --lab and --bundle"),
        (("--twin", "FILE", "--site", "site.toml"), "site.toml: cannot be read: No such file or directory"),
        (("--twin", "FILE"), "not a usable bundle"),
        (("--twin", "nowhere"), "cannot be read"),
    ],
)
def test_a_wrong_selection_is_told_in_one_line(words: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    file = tmp_path / "case.tar.gz"
    file.write_bytes(b"no bundle")
    arguments = [str(file) if word == "FILE" else word for word in words]
    done = viacheck(*arguments, report_dir=tmp_path / "report", cwd=tmp_path)
    assert done.exit_code == 4, done.said
    assert reason in done.stderr + done.stdout


def test_a_result_with_another_state_is_told_with_its_place(tmp_path: Path, lab_outcome: RunResult) -> None:
    document = json.loads(lab_outcome.model_dump_json(by_alias=True))
    document["targets"] = document["targets"][:1]
    document["targets"][0]["snapshot"]["host"]["links"][0]["index"] = "first"
    file = tmp_path / "result.json"
    file.write_text(json.dumps(document))
    done = viacheck("--twin", str(file), report_dir=tmp_path / "report")
    assert done.exit_code == 4, done.said
    assert "snapshot.host.links.0.index" in done.stderr + done.stdout
