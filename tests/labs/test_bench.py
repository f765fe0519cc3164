"""``./viacheck bench``: it measures, prints the table and saves it. How fast anything is, no test asserts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from netns_lab.lab_specs import LabSpec
from netns_lab.scenarios import SCENARIOS
from tests.helpers.front_door import sub_command
from viacheck.bench import (
    capture_load,
    egress_verdict,
    growth_of_agents,
    growth_of_state,
    growth_of_uplinks,
    host_boot,
    lab_build,
    large_host,
)
from viacheck.bench.bench_table import page
from viacheck.bench.figures import Bench, BenchFailed, Figure, Limit, Measurement
from viacheck.bench.growth import growth_figures
from viacheck.bench.lab_by_ip import commands
from viacheck.bench.readiness import first_ping
from viacheck.cli import bench
from viacheck.cli.main import main
from viacheck.host.namespace import Namespace
from viacheck.targets.namespace_target import NamespaceTarget


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where benchmarks are saved."""
    folder = tmp_path / "bench"
    monkeypatch.setattr(bench, "reports_folder", lambda: tmp_path)
    return folder


def test_the_table_is_printed_and_saved(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = ["lab", "verdict", "silent-resolver"]
    assert main(["bench", "--quick", *(word for name in only for word in ("--only", name))]) == 0
    said = capsys.readouterr()
    (document,) = saved.glob("*.json")
    saved_bench = Bench.model_validate_json(document.read_text())
    assert json.loads(document.read_text())["schema"] == "viacheck.bench/1"
    assert [one.name for one in saved_bench.measurements] == only
    for measurement in saved_bench.measurements:
        assert measurement.figures[0].median is not None
        assert measurement.figures[0].reached is not None
    table = document.with_suffix(".md").read_text()
    assert table in said.out
    assert "| to reach |" in table
    assert sorted(path.suffix for path in saved.iterdir()) == [".json", ".md"]


def test_the_lab_is_built_alike_by_every_means() -> None:
    own, floor, by_ip, _mininet = lab_build.measure(quick=True).judged().figures
    assert len(own.values) == len(floor.values) == 3
    assert own.limit is not None
    assert by_ip.values or by_ip.remark.startswith("not measured: needs")


def test_the_watch_sees_every_probe_under_load() -> None:
    own, scapy = capture_load.measure(quick=True).figures
    assert own.values == [100]
    assert len(scapy.values) == 1


def test_a_verdict_is_judged_before_its_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_verdict, "LAB", LabSpec("policy-routing", faults=("rule-missing",)))
    with pytest.raises(BenchFailed, match="not as intended"):
        egress_verdict.measure(quick=True)


def test_a_large_host_is_read_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_host, "RULES", 300)
    monkeypatch.setattr(large_host, "ROUTES", 700)
    measurement = large_host.measure(quick=True).judged()
    whole, *parts = measurement.figures
    assert whole.median is not None
    assert whole.median == pytest.approx(sum(part.median or 0 for part in parts[:3]))
    assert measurement.figures[-1].remark.startswith("The report of it: result.json")


def test_a_large_hosts_checks_must_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_host, "RULES", 1)
    monkeypatch.setattr(large_host, "ROUTES", 1)
    with large_host.large_host() as (host, intent):
        assert host.run(["ip", "rule", "del", "lookup", "200"]).ok
        target = NamespaceTarget("local:large-host", "local", intent, host)
        try:
            with pytest.raises(BenchFailed, match=r"ROUTE-0[23]"):
                large_host._judge(target)
        finally:
            target.close()


def test_a_lab_that_is_not_ready_is_no_figure() -> None:
    alone = Namespace.create("agent")
    try:
        with pytest.raises(BenchFailed, match="the lab: the agent's first ping was not answered"):
            first_ping(alone, "the lab")
    finally:
        alone.close()


def test_what_cannot_be_measured_is_told_and_the_rest_is_saved(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(egress_verdict, "LAB", LabSpec("policy-routing", faults=("rule-missing",)))
    assert main(["bench", "--quick", "--only", "verdict", "--only", "load"]) == 1
    assert "viacheck bench: verdict: " in capsys.readouterr().err
    (document,) = saved.glob("*.json")
    assert [one.name for one in Bench.model_validate_json(document.read_text()).measurements] == ["load"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "labs"], "invalid choice: 'labs'"),
        (["--fast"], "--fast"),
        (["more"], "more"),
        (["--only"], "--only"),
    ],
)
def test_bad_words_are_refused_in_one_line(words: list[str], told: str) -> None:
    done = sub_command("bench", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert done.stderr.startswith("viacheck bench: ")
    assert told in done.stderr


def test_a_folder_that_cannot_be_written_is_told_in_one_line(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved.write_text("a file is in the way")
    assert main(["bench", "--quick", "--only", "lab"]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_ratios_are_to_viachecks_own_median() -> None:
    own = Figure(what="own", unit="ms", values=[9, 10, 50], limit=Limit(at_most=20))
    other = Figure(what="other", unit="ms", values=[30], limit=Limit(of="ratio", at_least=4))
    away = Figure(what="away", unit="ms", remark="not installed", limit=Limit(at_most=1))
    Measurement(name="x", title="X", figures=[own, other, away]).judged()
    assert (own.median, own.ratio, own.reached) == (10, None, True)
    assert (other.median, other.ratio, other.reached) == (30, 3, False)
    assert (away.median, away.ratio, away.reached) == (None, None, None)


def test_the_table_tells_what_was_missed_and_what_was_not_measured() -> None:
    figures = [
        Figure(what="own", unit="ms", values=[31.25], limit=Limit(at_most=30)),
        Figure(what="by mininet", unit="ms", remark="not installed"),
        Figure(what="slow", unit="ms", values=[12345.6, 12345.6], remark="Once."),
    ]
    measurement = Measurement(name="x", title="X", figures=figures).judged()
    bench = Bench(id="1", taken="2026-01-02T03:04:05", machine={"cores": "2"}, quick=False, measurements=[measurement])
    lines = page(bench).splitlines()
    assert "| own | 31.2 ms | (1) |  | ≤ 30 ms | **missed** |" in lines
    assert "| by mininet | not installed |  |  |  |  |" in lines
    assert "| slow [1] | 12,346 ms | 12,346 to 12,346 (2) | 395 |  |  |" in lines
    assert "1. Once." in lines


def test_the_commands_of_the_lab_by_ip_name_everything_in_the_plan() -> None:
    said = [" ".join(command) for command in commands(SCENARIOS["policy-routing"]())]
    assert "ip -n host rule add priority 32765 from 172.17.0.0/16 lookup 200" in said
    assert "ip -n host route add default via 10.10.50.1 dev wlan0 table 200" in said
    assert said.index("ip -n host link set veth-agent up") < said.index("ip -n host link set docker0 up")


def test_growth_within_n_log_n_is_told_from_quadratic_growth() -> None:
    def loops(count: int) -> None:
        for _ in range(count):
            pass

    linear = growth_figures({size: partial(loops, size * 100) for size in (100, 1_000)}, "{}", 5)
    square = growth_figures({size: partial(loops, size * size) for size in (100, 1_000)}, "{} squared", 5)
    judged = [Measurement(name="growth", title="", figures=figures).judged().figures[1] for figures in (linear, square)]
    assert [figure.reached for figure in judged] == [True, False]
    assert judged[1].what == "1,000 squared"


def test_growth_is_measured_by_uplinks_by_agents_and_by_rules() -> None:
    for module, sizes in ((growth_of_uplinks, 2), (growth_of_agents, 3), (growth_of_state, 2)):
        figures = module.measure(quick=True).judged().figures
        assert [len(figure.values) for figure in figures] == [1] * sizes
        assert all(figure.limit is not None and figure.ratio is not None for figure in figures[1:])


@pytest.mark.skipif(host_boot.missing() is not None, reason=str(host_boot.missing()))
def test_a_whole_host_boots_and_reboots_with_its_engine_and_without() -> None:
    boot, reboot, engine_boot, engine_reboot = host_boot.measure(quick=True).judged().figures
    for part, whole in ((boot, reboot), (engine_boot, engine_reboot)):
        assert part.median is not None
        assert whole.median is not None
        assert 0 < part.median < whole.median, "the shutdown comes before the boot"
